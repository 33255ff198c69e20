"""How faithful explanations are: what happens to the probability of a label when its words go, or when they alone stay.

    python benchmarks/explain.py --data FILE [--texts 1000] [--model mini-han --model mini-lstm] [--json FILE]

Comprehensiveness and sufficiency (DeYoung et al. 2020, ERASER, section 4): the label's probability falls by how much
when the words with the largest weights are deleted (more is better), and when all other words are (less is better);
averaged over the largest 1, 5, 10, 20 and 50 % of the words, one at least. Curves at further shares show deletion and
insertion. Words are deleted from the text itself, so no baseline of a method is favoured. Methods are integrated
gradients, the attention of the head, and a random order of the words. Intervals: 95 % bootstrap intervals over texts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentiment_hybrid import Predictor
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.sources import open_source, texts_of
from sentiment_hybrid.engine.inference.explanations import METHODS, Explanation
from sentiment_hybrid.files import atomic_file

RANDOM = "random"
#: Of ERASER, and those that the curves have beside.
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
SHARES = tuple(sorted({*BINS, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9}))
#: Words that a text needs, so that something is left when some go.
FEWEST = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file with a column of texts")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--model", action="append", help="model directories, or names of mini")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    texts = sample(arguments.data, arguments.texts, arguments.seed)
    report = {"data": arguments.data.name, "seed": arguments.seed, "models": {}}
    for model in arguments.model or ("mini-han", "mini-lstm"):
        report["models"][model] = measure(Predictor(model, precision="fp32"), texts, arguments.seed)
        print(shown(model, report["models"][model]), flush=True)
    if arguments.json:
        with atomic_file(arguments.json) as aside:
            aside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def sample(file: Path, size: int, seed: int) -> list[str]:
    """Texts of enough words, chosen at random."""
    source = open_source(str(file), Data(), offline=True)
    column = find_text(source.columns, None, source=source.name)
    texts = [text for batch in source.batches() for text in texts_of(batch, column, source=source.name) if text]
    texts = [text for text in dict.fromkeys(texts) if len(text.split()) >= FEWEST]
    return [texts[at] for at in np.random.default_rng(seed).permutation(len(texts))[:size]]


def measure(predictor: Predictor, texts: list[str], seed: int) -> dict[str, Any]:
    orders: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for method in METHODS:
        started = time.process_time()
        found = predictor.explain(texts, method=method)
        seconds[method] = (time.process_time() - started) / len(texts)
        orders[method] = [np.argsort([-word.weight for word in one.words], kind="stable") for one in found]
        if method == "gradients":
            whole = found
    random = np.random.default_rng(seed)
    orders[RANDOM] = [random.permutation(len(one.words)) for one in whole]
    figures = {method: faithfulness(predictor, whole, order) for method, order in orders.items()}
    gap = [abs(one.error) / max(abs(one.logit - one.baseline), 1.0) for one in whole]
    return {
        "texts": len(texts),
        "methods": {name: summary(one, figures, random) for name, one in figures.items()},
        "processor_seconds_per_text": seconds,
        "largest_error": max(gap),
    }


def faithfulness(predictor: Predictor, whole: Sequence[Explanation], orders: Sequence[np.ndarray]) -> dict[str, Any]:
    """Falls of the probability (N, shares) when words are deleted, and when they alone stay."""
    variants, places = [], [predictor.labels.index(one.label or "") for one in whole]
    for deleted in (True, False):
        for one, order in zip(whole, orders, strict=True):
            for share in SHARES:
                chosen = order[: max(1, int(np.ceil(share * len(order))))]
                variants.append(without(one, set(chosen.tolist())) if deleted else only(one, set(chosen.tolist())))
    found = predictor.predict_proba(variants).reshape(2, len(whole), len(SHARES), -1)
    # Where nothing is left, the model has no answer: then all labels are equally likely.
    found = np.where(np.isnan(found), 1.0 / found.shape[-1], found)
    probabilities = np.stack([found[:, at, :, place] for at, place in enumerate(places)], axis=1)  # (2, N, shares)
    scores = np.array([one.score for one in whole])[:, None]
    return {"deletion": scores - probabilities[0], "insertion": scores - probabilities[1]}


def without(one: Explanation, places: set[int]) -> str:
    """The text without these words."""
    return only(one, set(range(len(one.words))) - places)


def only(one: Explanation, places: set[int]) -> str:
    """These words of the text, in its order, apart where they were."""
    parts: list[str] = []
    end = 0
    for at, word in enumerate(one.words):
        if at in places:
            parts.append(f" {word.text}" if word.start > end or not parts else word.text)
        else:
            parts.append("" if word.start == end else " ")
        end = word.end
    return " ".join("".join(parts).split())


def summary(one: Mapping[str, np.ndarray], every: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    bins = [SHARES.index(share) for share in BINS]
    result: dict[str, Any] = {}
    for name, kind in (("comprehensiveness", "deletion"), ("sufficiency", "insertion")):
        values = one[kind][:, bins].mean(1)  # (N,)
        result[name] = interval(values, random)
        result[f"{name}_less_{RANDOM}"] = interval(values - every[RANDOM][kind][:, bins].mean(1), random)
    return result | {
        kind: dict(zip(map(str, SHARES), one[kind].mean(0).round(4).tolist(), strict=True)) for kind in one
    }


def interval(values: np.ndarray, random: np.random.Generator) -> list[float]:
    """Mean, and its 95 % bootstrap interval."""
    means = values[random.integers(0, len(values), (2000, len(values)))].mean(1)
    return [round(float(value), 4) for value in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


def shown(model: str, report: Mapping[str, Any]) -> str:
    lines = [f"{model}, {report['texts']:,} texts; largest error of completeness {report['largest_error']:.4f}"]
    for name, one in report["methods"].items():
        cells = [
            f"{kind} {one[kind][0]:+.3f} [{one[kind][1]:+.3f}, {one[kind][2]:+.3f}]"
            for kind in ("comprehensiveness", "sufficiency")
        ]
        lines.append(f"  {name:10} " + "   ".join(cells))
        for kind in ("deletion", "insertion"):
            lines.append(f"      {kind:9} " + "  ".join(f"{share}: {value:+.3f}" for share, value in one[kind].items()))
    lines.append(f"  processor seconds per text: {report['processor_seconds_per_text']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
