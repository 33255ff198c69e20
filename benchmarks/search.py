"""Does a search help, what does pruning save, and how do the public predecessor's values do? All on the same rows.

    python benchmarks/search.py search FILE.csv.gz --encoder DIR --work FOLDER [--models lstm han] [--json]
    python benchmarks/search.py predecessor FILE.csv.gz --encoder DIR --work FOLDER [--rows 10000] [--json]

`search`: for each head, `--trials` trials of `--epochs` epochs without pruning on `--trial-rows` rows, then a final
model with the best parameters beside one with the default values: same training rows, epochs and test rows, a paired
test of the difference. Then the recorded trials are played to the default pruner once more, epoch by epoch: what it
would have saved on identical parameters, and whether the best trial is still the same.

`predecessor`: configs/predecessor.yaml (its values, its cleaned column, its 20 epochs) beside configs/default.yaml,
trained on the same rows over the same frozen encoder. FOLDER keeps everything; running again goes on from there.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import line, places, print_table

from sentiment_hybrid.commands import data, optimize, train
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config, Hpo
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.testing import TestResult, kept_result
from sentiment_hybrid.engine.training.fingerprint import can_resume, is_published
from sentiment_hybrid.engine.training.runs import versions
from sentiment_hybrid.paths import published_model
from sentiment_hybrid.reporting.predictions import read_predictions
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.study import TrialFacts, pruner_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "predecessor"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--encoder", required=True, help="a local directory or a hub name")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["lstm", "han"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--trial-rows", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=50_000, help="of final models, the defaults and the predecessor")
    parser.add_argument("--final-epochs", type=int, default=3)
    parser.add_argument("--test-rows", type=int, default=25_000)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    contest = search if arguments.what == "search" else predecessor
    report: dict[str, Any] = {model: contest(arguments, model) for model in arguments.models}
    report["machine"] = {"processor": platform.processor() or platform.machine(), "system": platform.platform()}
    report["versions"] = versions()
    report["seconds"] = time.perf_counter() - started
    if arguments.json:
        json.dump(report, sys.stdout, indent=2)
    else:
        show(report, arguments.models)


def search(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        f"{model}.hpo.n_trials": arguments.trials,
        f"{model}.hpo.epochs": arguments.epochs,
        f"{model}.hpo.sample_size": arguments.trial_rows,
        f"{model}.hpo.pruner": "none",
        f"{model}.train.epochs": arguments.final_epochs,
    }
    config = configure(arguments, "found", None, {**settings, **rows_of(arguments, model)})
    defaults = configure(arguments, "defaults", None, {**settings, **rows_of(arguments, model)})
    data.run(config)
    ours = trained(defaults, model)
    found = optimize.run(config, model)
    final = found.trained.test if found.trained else found.test
    assert final is not None
    pruning = load_config(None, flags={f"{model}.hpo.n_trials": arguments.trials})
    trials = [trial for trial in found.trials if trial.state == "complete"]
    return {
        "table": table({"defaults": ours, "after the search": final}),
        "difference": paired(final, ours),
        "best_params": found.best.params,
        "importances": found.importances,
        "pruning": replay(trials, pruning.model(model).hpo),
    }


def replay(trials: list[TrialFacts], hpo: Hpo) -> dict[str, Any]:
    """Play trials that were never pruned to the pruner of ``hpo``: the same parameters, the same figures."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=pruner_of(hpo))
    epochs_run = pruned = 0
    values: dict[int, float] = {}
    for trial in sorted(trials, key=lambda one: one.number):
        asked = study.ask()
        stopped = False
        for epoch, value in enumerate(trial.epochs, start=1):
            asked.report(value, step=epoch)
            epochs_run += 1
            if asked.should_prune():
                stopped = True
                break
        if stopped and epoch < len(trial.epochs):
            pruned += 1
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            values[trial.number] = max(trial.epochs)
            study.tell(asked, values[trial.number])
    epochs = sum(len(trial.epochs) for trial in trials)
    best = max(trials, key=lambda trial: max(trial.epochs)).number
    return {
        "trials": len(trials),
        "pruned": pruned,
        "epochs": epochs,
        "epochs_run": epochs_run,
        "saved": 1 - epochs_run / epochs,
        "same_best": max(values, key=values.__getitem__) == best,
    }


def predecessor(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    rows = rows_of(arguments, model)
    theirs = configure(arguments, "seed", "predecessor", {**rows, "data.valid_size": 0.1})
    ours = configure(arguments, "ours", None, rows)
    results = {}
    for name, config in (("configs/predecessor.yaml", theirs), ("configs/default.yaml", ours)):
        data.run(config)
        results[name] = trained(config, model)
    first, second = (results[name] for name in ("configs/default.yaml", "configs/predecessor.yaml"))
    return {"table": table(results), "difference": paired(first, second)}


def rows_of(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    return {f"{model}.train.sample_size": arguments.rows, "test.sample_size": arguments.test_rows}


def configure(arguments: argparse.Namespace, name: str, base: str | None, flags: dict[str, Any]) -> Config:
    everywhere = {"data.source": str(arguments.file), "encoder.name": arguments.encoder}
    column = {} if base == "predecessor" else {"data.text_column": "text"}
    folders = places(arguments.work / name, cache=arguments.work / "cache")
    if base is None:
        # The database is of the same texts for every contestant but the predecessor.
        folders["paths.data_db"] = str(arguments.work / "tweets.db")
    return load_config(base, arguments.overrides, flags={**everywhere, **column, **folders, **flags})


def trained(config: Config, model: str) -> TestResult:
    """Train and test, or take what an earlier call of this benchmark left."""
    with_data = data.run(config)
    directory = published_model(config.paths.models_dir, model)
    if is_published(config, model, with_data.fingerprint):
        kept = kept_result(config, directory, read_info(directory))
        if kept is not None:
            return kept
    test = train.run(config, model, runtime=Runtime(resume=can_resume(config, model, with_data.fingerprint))).test
    assert test is not None
    return test


def table(results: dict[str, TestResult]) -> list[dict[str, Any]]:
    rows = [line(name, tested.rows, tested.scores) for name, tested in results.items()]
    last = list(results.values())[-1]
    return [*rows, line("TF-IDF + logistic regression", last.rows, last.baseline)]


def paired(first: TestResult, second: TestResult) -> dict[str, Any]:
    """The difference on the rows that both were tested on, paired by their row in the source."""
    one, two = (read_predictions(tested.files["predictions"], tested.labels) for tested in (first, second))
    _, here, there = np.intersect1d(one.rows, two.rows, return_indices=True)
    assert np.array_equal(one.labels[here], two.labels[there])
    return metrics.compare(one.labels[here], one.predicted[here], two.predicted[there]).to_dict()


def show(report: dict[str, Any], models: list[str]) -> None:
    for model in models:
        part = report[model]
        print_table(f"\n{model}: accuracy on the test split [95 % interval]", part["table"])
        gap = part["difference"]["accuracy"]
        print(
            f"  difference {100 * gap['value']:+.2f} points [{100 * gap['low']:+.2f}, {100 * gap['high']:+.2f}], "
            f"exact McNemar p = {part['difference']['accuracy']['p_value']:.2g}, {part['difference']['rows']:,} rows"
        )
        if "pruning" in part:
            saved = part["pruning"]
            print(f"  best parameters {part['best_params']}; importances {part['importances']}")
            print(
                f"  pruning: {saved['epochs_run']} of {saved['epochs']} epochs, {100 * saved['saved']:.0f} % saved, "
                f"{saved['pruned']} of {saved['trials']} trials pruned, same best trial: {saved['same_best']}"
            )
    print(f"\n{report['machine']['system']}; " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()))


if __name__ == "__main__":
    main()
