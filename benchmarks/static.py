"""Accuracy and speed of `encoder.name: static` beside TF-IDF and `mini`, on the same rows in one process.

    python benchmarks/static.py sample --set data.valid_size=0.15 --set data.test_size=0.25
    python benchmarks/static.py Tweets.csv --json airline.json
    python benchmarks/static.py train.tsv --test valid.tsv

Every model is trained with the default settings on the training rows and tested on the test rows, and so is TF-IDF with
logistic regression, with which each is compared in pairs. Then all predict raw texts of the file, in turns: strings to
probabilities, cleaning and tokenising included. Other programs on the machine slow the clock down, but hardly the
processor time that is reported beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accuracy import line, places, print_table
from limits import as_json, machine, machine_lines

from sentiment_hybrid.commands import run_all
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation import baseline
from sentiment_hybrid.engine.inference.predictor import Predictor

BASELINE = "TF-IDF + logistic regression"
#: Name -> encoder, head, and how many texts it predicts in a turn.
CONTESTANTS = {
    "static, linear": ("static", "linear", 10_000),
    "mini, linear": ("mini", "linear", 1000),
    "mini, lstm": ("mini", "lstm", 1000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="labelled texts, or sample")
    parser.add_argument("--test", type=Path, help="labelled texts to test on, which the file then need not provide")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as senthy's")
    parser.add_argument("--only", choices=CONTESTANTS, nargs="+", default=list(CONTESTANTS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        report = compare(options, Path(work))
    print_table(f"{options.file}, on the test rows [95 % interval]", report["accuracy"])
    for name, found in report["less_baseline"].items():
        gap = {key: f"{100 * value:+.2f}" if key != "p_value" else f"{value:.3g}" for key, value in found.items()}
        print(
            f"  {name} less TF-IDF, macro-F1: {gap['value']} [{gap['low']}, {gap['high']}] points, p = {gap['p_value']}"
        )
    for name, found in report["speed"].items():
        print(
            f"  {name:30} {found['texts/s']:>8,.0f} texts/s, "
            f"{found['processor us/text']:.0f} us of processor time per text"
        )
    print(machine_lines(report["machine"]))
    if options.json:
        options.json.write_text(as_json(report), encoding="utf-8")


def compare(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train, test and time all contestants."""
    rows: list[dict[str, Any]] = []
    against: dict[str, Any] = {}
    predictors: dict[str, Predictor] = {}
    for name in options.only:
        encoder, head, _ = CONTESTANTS[name]
        flags: dict[str, Any] = {"encoder.name": encoder, **places(work / name, cache=work / "cache")}
        flags["paths.data_db"] = str(work / "texts.db")
        if options.test:
            flags |= {"data.train_source": options.file, "data.test_source": str(options.test)}
        else:
            flags["data.source"] = options.file
        result = run_all.run(load_config(None, options.overrides, flags=flags), [head])
        (tested,) = result.tests.values()
        rows.append(
            {**line(name, tested.rows, tested.scores), "seconds": sum(one.seconds for one in result.trained.values())}
        )
        assert tested.comparison is not None
        against[name] = tested.comparison.to_dict()["macro_f1"]
        predictors[name] = Predictor(tested.model_dir)
    rows.append(line(BASELINE, tested.rows, tested.baseline))
    return {
        "accuracy": rows,
        "less_baseline": against,
        "speed": speed(work, predictors, options.turns),
        "machine": machine(),
    }


def speed(work: Path, predictors: dict[str, Predictor], turns: int) -> dict[str, dict[str, float]]:
    """Texts per second and processor time per text of each, medians of turns."""
    with open_store(work / "texts.db") as store:
        train = store.read("train", with_raw=True)
        classes, clean = len(store.labels), normalizers.from_id(store.normalizer)
    fitted = baseline.fit(train.texts, train.labels, num_classes=classes)
    texts = list(dict.fromkeys(train.raw or []))
    work_of: dict[str, tuple[Callable[[list[str]], object], int]] = {
        BASELINE: (lambda some: fitted.predict_proba(clean.many(some)), 10_000),
        **{name: (predictor.predict_proba, CONTESTANTS[name][2]) for name, predictor in predictors.items()},
    }
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in work_of}
    for turn in range(turns + 1):
        for name, (predict, most) in work_of.items():
            some = texts[:most]
            wall, processor = time.perf_counter(), time.process_time()
            predict(some)
            taken = (time.perf_counter() - wall) / len(some), (time.process_time() - processor) / len(some)
            if turn:  # the first one warms up
                clocks[name].append(taken)
    return {
        name: {
            "texts": min(len(texts), work_of[name][1]),
            "texts/s": 1 / statistics.median(wall for wall, _ in found),
            "processor us/text": 1e6 * statistics.median(processor for _, processor in found),
        }
        for name, found in clocks.items()
    }


if __name__ == "__main__":
    main()
