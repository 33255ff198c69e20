"""Several processes at one place: predictions onto one output, exports of one model, trainings, preparations of data.

    python benchmarks/contention.py [FOLDER]        # a new folder; about three minutes on two idle cores

Each is a process of its own that begins when all are there. It is an error if one fails without naming the cause,
if the result is not what one alone gives, if a model is lost, or if anything is left over.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import data, export, predict, train  # noqa: F401 - loaded once, before the processes
from sentiment_hybrid.engine.inference.model_directory import load_model
from sentiment_hybrid.files import leftovers

TEXTS = 3000
SETTINGS = [
    "--config", "quickstart", "--device", "cpu", "--offline", "--set", "train.epochs=1", "--set", "models.keep=null",
    "--set", "test.resamples=100",
]  # fmt: skip


def together(commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Exit code and stderr of each command; all begin at once, in processes of their own."""
    start, waiting = os.pipe()
    started = []
    for arguments in commands:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - read below
        if (process := os.fork()) == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.close(waiting)
            os.read(start, 1)
            code = 1
            try:
                cli.main(arguments)
            except SystemExit as exit_:
                code = int(exit_.code or 0)
            finally:
                os._exit(code)
        started.append((process, said))
    os.close(waiting)
    results = []
    for process, said in started:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said.seek(0)
        results.append((code, said.read().decode()))
        said.close()
    os.close(start)
    return results


def judged(what: str, commands: Sequence[Sequence[str]], check: Callable[[], list[str]], *, all_win: bool) -> bool:
    """Run commands together; prints what became of them and every fault."""
    results, faults = together(commands), []
    for number, (code, said) in enumerate(results):
        last = said.strip().splitlines()[-3:]
        if "Traceback" in said or (code and (all_win or "another process is writing" not in said)):
            faults.append(f"process {number}, exit code {code}: {' / '.join(last)}")
    if any(code == 0 for code, _ in results):
        faults += check()
    else:
        faults.append("none succeeded")
    won = sum(code == 0 for code, _ in results)
    print(f"{what}: {won} of {len(results)} succeeded, {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")
    return not faults


def main(folder: Path) -> int:
    """Every case in a new folder; 1 if there was a fault."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    rows = [[number, f"text {number} was {'very good' if number % 2 else 'bad'}"] for number in range(TEXTS)]
    with Path("in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *rows])
    alone = ["predict", "--load-model-path", "mini", "--device", "cpu", "--offline", "--input", "in.csv", "--output"]
    good = [result[0] == 0 for result in together([[*alone, "alone.csv"]])]
    for suffix in ("csv", "parquet", "db"):
        target = Path(f"out.{suffix}")
        good.append(
            judged(f"10 predictions onto {target}", [[*alone, str(target)]] * 10, output_check(target), all_win=False)
        )
    prepare = ["data", "--config", "quickstart"]
    good.append(judged("6 preparations", [prepare] * 6, left_over(Path("quickstart/data")), all_win=True))
    seeds = [["train", "-m", "linear", *SETTINGS, "--seed", str(seed)] for seed in range(6)]
    good.append(judged("6 trainings", seeds, trained, all_win=True))
    model = str(paths.published_model(Path("quickstart/models"), "linear"))
    exports = [["export", "--load-model-path", model, "--config", "quickstart", "--output", "graph"]] * 6
    good.append(judged("6 exports", exports, left_over(Path()), all_win=False))
    return 0 if all(good) else 1


def output_check(target: Path) -> Callable[[], list[str]]:
    """What is wrong with an output of the predictions."""

    def check() -> list[str]:
        faults = left_over(Path())()
        if target.suffix == ".csv" and target.read_bytes() != Path("alone.csv").read_bytes():
            faults.append(f"{target} is not what one process alone writes")
        return faults

    return check


def left_over(folder: Path) -> Callable[[], list[str]]:
    """What killed processes alone may leave, although none was killed."""

    def check() -> list[str]:
        hidden = [path for path in folder.glob(".*") if path.name.endswith((".partial", ".writing", ".parts", ".new"))]
        return [f"left over: {path}" for path in {*leftovers(folder), *hidden}]

    return check


def trained() -> list[str]:
    """What is missing after six trainings: models, entries of the results, the published model."""
    models, results = Path("quickstart/models"), Path("quickstart/results")
    faults = left_over(models)() + left_over(results)()
    kept = [path for path in paths.kept_models(models).iterdir() if not path.name.startswith(".")]
    entries = json.loads(paths.results_json(results).read_text(encoding="utf-8"))
    for what, count in (("models", len(kept)), ("entries in the results", len(entries))):
        if count != 6:
            faults.append(f"{count} {what} instead of 6")
    for place in (*kept, paths.published_model(models, "linear")):
        load_model(place, offline=True)
    return faults


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "contention"
    shutil.rmtree(place, ignore_errors=True)
    raise SystemExit(main(place.resolve()))
