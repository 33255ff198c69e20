"""Accuracy of frozen and trained encoders under each head, with intervals, beside the baseline on the same rows.

    python benchmarks/accuracy.py tweets FILE.csv.gz --encoder DIR [--work FOLDER] [--json]
    python benchmarks/accuracy.py airline Tweets.csv --encoder DIR
    python benchmarks/accuracy.py frozen Tweets.csv --encoder mini

`tweets` trains lstm, han and linear over the frozen encoder on the first 50,000 training rows of the raw texts, then
lstm on the column that has lost its stopwords, and compares the two on the rows that both test. It also counts the
windows that went through the encoder against the distinct windows that there are. `airline` trains every layer;
`frozen` trains a head (han) over the frozen encoder with the default settings, and compares it with the baseline.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sentiment_hybrid.commands import run_all
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.states.store import window_keys
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.runs import versions
from sentiment_hybrid.models.encoder.hub import load_encoder
from sentiment_hybrid.reporting.predictions import read_predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tweets", "airline", "frozen"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--encoder", required=True, help="a local directory or a hub name")
    parser.add_argument("--work", type=Path, help="keep everything here, and go on from what is there")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--test-rows", type=int, default=25_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        started = time.perf_counter()
        report = {"tweets": tweets, "airline": airline, "frozen": frozen}[arguments.what](arguments, work)
    report["machine"] = {"processor": platform.processor() or platform.machine(), "system": platform.platform()}
    report["versions"] = versions()
    report["seconds"] = time.perf_counter() - started
    if arguments.json:
        json.dump(report, sys.stdout, indent=2)
    else:
        show(report)


def tweets(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    models = arguments.models or ["lstm", "han", "linear"]
    raw = configure(arguments, work, "text", models)
    result = run_all.run(raw, models)
    report: dict[str, Any] = {"table": table(result)}
    passes = sum(done.encoder_passes + done.test.encoder_passes for done in result.trained.values())
    report["encoder"] = {"passes": passes, "distinct_windows": distinct_windows(raw, models[0])}
    clean = configure(arguments, work, "text_clean", models[:1])
    cleaned = run_all.run(clean, models[:1])
    report["text_clean"] = {"table": table(cleaned), "same_rows": same_rows(result, cleaned)}
    return report


def airline(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    models = arguments.models or ["lstm"]
    flags: dict[str, Any] = {
        "data.source": str(arguments.file),
        "encoder.name": arguments.encoder,
        "encoder.trainable_layers": "all",
        **places(work / "airline"),
    }
    for model in models:
        flags |= {
            f"{model}.train.epochs": arguments.epochs,
            f"{model}.train.encoder_learning_rate": 1e-4,
            f"{model}.train.learning_rate": 5e-4,
        }
    result = run_all.run(load_config(None, arguments.overrides, flags=flags), models)
    return {"table": table(result)}


def frozen(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """A head over the frozen encoder, and its difference in accuracy from the baseline on the same rows."""
    flags = {"data.source": str(arguments.file), "encoder.name": arguments.encoder, **places(work / "frozen")}
    result = run_all.run(load_config(None, arguments.overrides, flags=flags), arguments.models or ["han"])
    found = {name: tested.comparison.to_dict() for name, tested in result.tests.items() if tested.comparison}
    return {"table": table(result), "baseline": found}


def configure(arguments: argparse.Namespace, work: Path, column: str, models: list[str]) -> Config:
    flags: dict[str, Any] = {
        "data.source": str(arguments.file),
        "data.text_column": column,
        "data.normalizer": "tweet" if column == "text" else "none",
        "encoder.name": arguments.encoder,
        "test.sample_size": arguments.test_rows,
        **places(work / column, cache=work / "cache"),
    }
    for model in models:
        flags |= {f"{model}.train.sample_size": arguments.rows, f"{model}.train.epochs": arguments.epochs}
    return load_config(None, arguments.overrides, flags=flags)


def places(folder: Path, cache: Path | None = None) -> dict[str, str]:
    return {
        "paths.data_db": str(folder / "tweets.db"),
        "paths.models_dir": str(folder / "models"),
        "paths.results_dir": str(folder / "results"),
        "paths.cache_dir": str(cache or folder / "cache"),
    }


def table(result: run_all.RunAllResult) -> list[dict[str, Any]]:
    if result.failures:
        raise SystemExit(str(result.failures))
    rows = []
    for name, tested in result.tests.items():
        rows.append(line(name, tested.rows, tested.scores))
    rows.append(line("TF-IDF + logistic regression", tested.rows, tested.baseline))
    return rows


def line(name: str, rows: int, scores: metrics.Scores | None) -> dict[str, Any]:
    assert scores is not None
    facts = scores.to_dict()
    return {"model": name, "rows": rows, "accuracy": facts["accuracy"], "macro_f1": facts["macro_f1"]}


def distinct_windows(config: Config, model: str) -> int:
    """How many different windows the three splits have, counted anew from the texts."""
    tokenizer = load_encoder(config.encoder).tokenizer
    settings = config.model(model).train
    keys = []
    with open_store(config.paths.data_db) as store:
        for split, rows in (
            ("train", settings.sample_size),
            ("valid", settings.valid_sample_size),
            ("test", config.test.sample_size),
        ):
            texts = store.read(split, rows).texts
            limits = {"max_length": config.encoder.max_length, "max_windows": config.encoder.max_windows}
            keys.append(window_keys(tokenize(texts, tokenizer, **limits)))
    return len(np.unique(np.concatenate(keys)))


def same_rows(raw: run_all.RunAllResult, clean: run_all.RunAllResult) -> dict[str, Any]:
    """The first model on raw texts against the same on cleaned ones, paired by source row."""
    first, second = (next(iter(result.tests.values())) for result in (raw, clean))
    one, two = (read_predictions(tested.files["predictions"], tested.labels) for tested in (first, second))
    rows, here, there = np.intersect1d(one.rows, two.rows, return_indices=True)
    assert np.array_equal(one.labels[here], two.labels[there])
    compared = metrics.compare(one.labels[here], one.predicted[here], two.predicted[there])
    return {
        "rows": len(rows),
        "text": float((one.predicted[here] == one.labels[here]).mean()),
        "text_clean": float((two.predicted[there] == two.labels[there]).mean()),
        "difference": compared.to_dict(),
    }


def show(report: dict[str, Any]) -> None:
    print_table("accuracy on the test split [95 % interval]", report["table"])
    if "encoder" in report:
        counted = report["encoder"]
        print(f"\nencoder passes {counted['passes']:,}, distinct windows {counted['distinct_windows']:,}")
    if "text_clean" in report:
        print_table("\nthe same on text_clean", report["text_clean"]["table"])
        same = report["text_clean"]["same_rows"]
        gap = same["difference"]["accuracy"]
        print(
            f"on the same {same['rows']:,} rows: text {100 * same['text']:.2f} %, text_clean "
            f"{100 * same['text_clean']:.2f} %: {100 * gap['value']:+.2f} points "
            f"[{100 * gap['low']:+.2f}, {100 * gap['high']:+.2f}]"
        )
    for name, compared in report.get("baseline", {}).items():
        gap = compared["accuracy"]
        print(
            f"{name} less baseline: {100 * gap['value']:+.2f} points "
            f"[{100 * gap['low']:+.2f}, {100 * gap['high']:+.2f}], p = {gap['p_value']:.4g}"
        )
    print(f"\n{report['machine']['system']}; " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()))


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(title)
    for row in rows:
        accuracy, f1 = row["accuracy"], row["macro_f1"]
        print(
            f"  {row['model']:30} {row['rows']:>8,} rows  accuracy {100 * accuracy['value']:.2f} % "
            f"[{100 * accuracy['low']:.2f}, {100 * accuracy['high']:.2f}]  macro-F1 {f1['value']:.4f} "
            f"[{f1['low']:.4f}, {f1['high']:.4f}]"
        )


if __name__ == "__main__":
    main()
