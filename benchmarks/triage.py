"""Whether thresholds keep their promise: calibrate on a random part of labelled rows, count right answers on the rest.

    python benchmarks/triage.py --data FILE [--model mini-han] [--splits 100] [--train] [--json FILE]

For each target accuracy and number of calibration rows: in how many of the splits a threshold was promised, and in how
many of these the answers at or above it are right at least that often on all rows that were not used; beside it the
naive threshold, the lowest whose calibration rows reach the target. The rows must be new to the model: neither trained
on, nor used to choose it.

With --train, each split trains a linear head on the states of the model's encoder (mini), whose epoch and temperature
are chosen on some validation rows, and thresholds come from as many that were set aside (`train.promise_size`), and
beside it from those that chose.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import f1_score

from sentiment_hybrid import Predictor
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.labelled import read_labelled
from sentiment_hybrid.data.normalizers import from_id
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.triage import Calibration, risk_coverage
from sentiment_hybrid.files import atomic_file

TARGETS, SIZES = (0.85, 0.9, 0.95, 0.98), (500, 2000, 5000)
#: With --train: training rows, validation rows of each kind, and epochs.
TRAINED, SET_ASIDE, EPOCHS = 3000, (2000, 500), 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled texts")
    parser.add_argument("--model", default="mini-han")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--train", action="store_true", help="train a head in each split")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    if arguments.train:
        show_set_aside(arguments)
        return
    confidence, right = answers(arguments.model, arguments.data)
    curve = risk_coverage(confidence, right)
    print(
        f"{arguments.model} on {arguments.data.name}: {len(right):,} rows, {right.mean():.1%} right; possible coverage:"
    )
    print("  " + ", ".join(f"{target:.0%}: {curve.coverage_at(target):.1%}" for target in TARGETS))
    rows = [
        row(confidence, right, target, size, arguments.splits)
        for target in TARGETS
        for size in SIZES
        if 2 * size < len(right)
    ]
    print("target  rows  promised  kept  mean coverage   naive: kept  mean coverage")
    for one in rows:
        print(
            f"{one['target']:.0%}  {one['rows']:6,}  {one['promised']:8}  {one['kept']:4}  {one['coverage']:13.1%}"
            f"  {one['naive_kept']:11}  {one['naive_coverage']:13.1%}"
        )
    if arguments.json:
        with atomic_file(arguments.json) as aside:
            aside.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def answers(model: str, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the answer (N,), and whether it is right (N,)."""
    predictor = Predictor(model)
    info = predictor.info
    labelled = read_labelled(
        open_source(str(file), Data(), offline=True), Data(), labels=info.labels, normalizer=from_id(info.normalizer)
    ).examples
    probabilities = predictor.predict_proba(labelled.texts)
    return probabilities.max(1), probabilities.argmax(1) == labelled.labels


def show_set_aside(arguments: argparse.Namespace) -> None:
    predictor = Predictor(arguments.model)
    labelled = read_labelled(
        open_source(str(arguments.data), Data(), offline=True),
        Data(),
        labels=predictor.info.labels,
        normalizer=from_id(predictor.info.normalizer),
    ).examples
    states = predictor.states(labelled.texts)
    states = (states - states.mean(0)) / np.maximum(states.std(0), 1e-6)
    print("target  rows  set aside: promised  broken  coverage   chosen on: promised  broken  coverage")
    for size in SET_ASIDE:
        found = [split(states, labelled.labels, size, seed) for seed in range(arguments.splits)]
        for target in TARGETS[:3]:
            cells = []
            for way in ("aside", "chosen"):
                promised = [one[way, target] for one in found if one[way, target] is not None]
                broken = sum(not kept for kept, _ in promised)
                coverage = np.mean([share for _, share in promised]) if promised else 0.0
                cells.append(f"{len(promised):8}  {broken:6}  {coverage:8.1%}")
            print(f"{target:.0%}  {size:6,}            {'               '.join(cells)}", flush=True)


def split(
    states: np.ndarray, labels: np.ndarray, size: int, seed: int
) -> dict[tuple[str, float], tuple[bool, float] | None]:
    """For rows set aside and rows that chose: whether the promise of each target is kept, and its coverage."""
    order = np.random.default_rng([seed, size]).permutation(len(labels))
    train, chooses, aside, new = np.split(order, np.cumsum([TRAINED, size, size]))
    head, best = SGDClassifier(loss="log_loss", alpha=1e-4, random_state=seed), None
    for _ in range(EPOCHS):
        head.partial_fit(states[train], labels[train], classes=np.unique(labels))
        score = f1_score(labels[chooses], head.predict(states[chooses]), average="macro")
        if best is None or score > best[0]:
            best = score, head.coef_.copy(), head.intercept_.copy()
    assert best is not None
    logits = states @ best[1].T + best[2]
    warm = metrics.temperature(labels[chooses], softmax(logits[chooses], axis=1))
    probabilities = softmax(logits / warm, axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    result: dict[tuple[str, float], tuple[bool, float] | None] = {}
    for way, rows in (("aside", aside), ("chosen", chooses)):
        calibration = Calibration.of(confidence[rows], right[rows])
        for target in TARGETS:
            threshold = calibration.threshold(target)
            sure = confidence[new] >= (threshold.value if threshold else 2.0)
            kept = not sure.any() or bool(right[new][sure].mean() >= target)
            result[way, target] = (kept, float(sure.mean())) if threshold else None
    return result


def row(confidence: np.ndarray, right: np.ndarray, target: float, size: int, splits: int) -> dict[str, Any]:
    figures: dict[str, list[float]] = {"kept": [], "coverage": [], "naive_kept": [], "naive_coverage": []}
    for seed in range(splits):
        order = np.random.default_rng([seed, size]).permutation(len(right))
        known, new = order[:size], order[size:]
        promise = Calibration.of(confidence[known], right[known]).threshold(target)
        curve = risk_coverage(confidence[known], right[known])
        reached = curve.thresholds[curve.accuracy >= target]
        for name, threshold in (
            ("", promise.value if promise else None),
            ("naive_", float(reached.min()) if reached.size else None),
        ):
            if threshold is not None:
                sure = confidence[new] >= threshold
                figures[f"{name}kept"].append(float(right[new][sure].mean() >= target) if sure.any() else 1.0)
                figures[f"{name}coverage"].append(float(sure.mean()))
    means = {name: float(np.mean(values)) if values else 0.0 for name, values in figures.items() if "coverage" in name}
    kept = {name: int(sum(values)) for name, values in figures.items() if "kept" in name}
    return {"target": target, "rows": size, "splits": splits, "promised": len(figures["kept"]), **kept, **means}


if __name__ == "__main__":
    main()
