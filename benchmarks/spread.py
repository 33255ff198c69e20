"""What labelling chosen rows is worth: learning curves of rows by chance, of the least sure, and of spread ones.

    python benchmarks/spread.py --airline ../shared/data/airline/Tweets.csv --semeval ../shared/data/semeval

A pool of labelled rows stands for unlabelled ones. Each round labels some rows more and fits a linear head on the
frozen states of mini (logistic regression, as in `senthy check`), whose macro-F1 on rows outside the pool is told:
means over seeds, and for the other ways the difference from rows by chance with a 95 % interval (t over seeds, paired:
each seed has the same first rows and test rows for all ways). mini was trained on SemEval's training rows, not on the
airline tweets.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from sentiment_hybrid import Predictor
from sentiment_hybrid.engine.insight.spread import CANDIDATES, choose

Choice = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def by_chance(states: np.ndarray, probabilities: np.ndarray, rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(states))[:rows]


def least_sure(states: np.ndarray, probabilities: np.ndarray, rows: int, seed: int) -> np.ndarray:
    return probabilities.max(1).argsort(kind="stable")[:rows]


def spread(states: np.ndarray, probabilities: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """As `predict --review FILE --spread`."""
    among = least_sure(states, probabilities, CANDIDATES * rows, seed)
    return among[choose(states[among], probabilities[among], rows, seed=seed)]


WAYS: dict[str, Choice] = {"by chance": by_chance, "least sure": least_sure, "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--airline", type=Path)
    parser.add_argument("--semeval", type=Path, help="folder with train.tsv and valid.tsv")
    parser.add_argument("--pool", type=int, default=6000)
    parser.add_argument("--step", type=int, default=50, help="rows of the first fit, and of each round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    predictor = Predictor("mini-han")
    for name, read in (("airline", read_airline), ("semeval", read_semeval)):
        if (place := getattr(given, name)) is not None:
            texts, labels = read(place)
            print(f"{name}: {len(texts):,} rows, a pool of {given.pool:,}", flush=True)
            show(curves(predictor.states(texts), labels, given), given)


def read_airline(place: Path) -> tuple[list[str], np.ndarray]:
    with place.open(encoding="utf-8", newline="") as file:
        found = {row["text"]: row["airline_sentiment"] for row in csv.DictReader(file)}
    return list(found), np.unique(list(found.values()), return_inverse=True)[1]


def read_semeval(place: Path) -> tuple[list[str], np.ndarray]:
    """A sample of the training rows, about as many as there are airline tweets."""
    with (place / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    text, label = ("text", "label") if "text" in rows[0] else list(rows[0])[-1:] + list(rows[0])[-2:-1]
    found = {row[text]: row[label] for row in rows}
    sample = np.random.default_rng(0).permutation(len(found))[:11_000]
    texts, labels = list(found), list(found.values())
    return [texts[at] for at in sample], np.unique([labels[at] for at in sample], return_inverse=True)[1]


def curves(states: np.ndarray, labels: np.ndarray, given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Macro-F1 of each way, (seeds, rounds + 1)."""
    states = (states - states.mean(0)) / np.maximum(states.std(0), 1e-6)
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for seed in range(given.seeds):
        order = np.random.default_rng(seed).permutation(len(labels))
        pool, held_out = order[: given.pool], order[given.pool :]
        for way in WAYS:
            found[way].append(curve(WAYS[way], states, labels, pool, held_out, given, seed))
    return {way: np.array(values) for way, values in found.items()}


def curve(way: Choice, states: Any, labels: Any, pool: Any, held_out: Any, given: Any, seed: int) -> list[float]:
    known, free = pool[: given.step], pool[given.step :]
    figures = []
    for number in range(given.rounds + 1):
        model = LogisticRegression(C=0.01, max_iter=200, tol=1e-3).fit(states[known], labels[known])
        figures.append(float(f1_score(labels[held_out], model.predict(states[held_out]), average="macro")))
        if number < given.rounds:
            chosen = way(states[free], model.predict_proba(states[free]), given.step, seed * 1000 + number)
            known = np.concatenate([known, free[chosen]])
            free = np.delete(free, chosen)
    return figures


def show(found: dict[str, np.ndarray], given: argparse.Namespace) -> None:
    print("| rows | by chance | least sure | spread |\n|---|---|---|---|")
    base = found["by chance"]
    for place in range(1, given.rounds + 1):
        cells = [f"{100 * base[:, place].mean():.1f}"]
        for way in ("least sure", "spread"):
            gain = 100 * (found[way][:, place] - base[:, place])
            half = stats.sem(gain) * stats.t.ppf(0.975, len(gain) - 1)
            cells.append(f"{gain.mean():+.1f} ± {half:.1f}")
        print(f"| {given.step * (place + 1)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
