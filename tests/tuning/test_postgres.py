"""Several processes on one real PostgreSQL server, which this test starts where its programs are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sentiment_hybrid import paths
from sentiment_hybrid.commands import report
from sentiment_hybrid.config.load import to_yaml
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.reporting.results import append_result
from sentiment_hybrid.tuning import study as studies

PROCESSES = 4
TRIALS = 12


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists()), None)


def _another_user() -> dict[str, Any]:
    """The server refuses to run as root: who runs it instead."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an empty database; it listens on a socket in a folder of its own only."""
    if os.name != "posix":
        pytest.skip("starts the server over a Unix socket")
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install '.[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are not installed")
    user = _another_user()
    # Not in tmp_path, whose parents belong to us alone; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="senthy-pg-"))
    if user:
        os.chown(folder, user["user"], user["group"])
    folder.chmod(0o755)
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False, **user
        )
        assert done.returncode == 0, done.stderr

    call("initdb", "-D", str(data), "-U", "senthy", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    call("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://senthy@/postgres?host={folder}"
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


#: So many processes of `senthy`, begun at the same moment: forked once what takes long to import is there.
TOGETHER = """
import gc, os, sys
import transformers
import sentiment_hybrid.commands.optimize, sentiment_hybrid.tuning.search, sentiment_hybrid.tuning.workers
from sentiment_hybrid.cli import main
gc.freeze()
children = []
for number in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        out = os.open(f"{sys.argv[2]}/{number}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        main(sys.argv[3:])
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert not any(codes), codes
"""


def test_processes_that_share_a_study_reach_the_total_exactly_and_run_no_trial_twice(
    server: str, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    command = [sys.executable, "-c", TOGETHER, str(PROCESSES), str(tmp_path)]
    command += ["optimize", "--model", "linear", "--no-final", "--device", "cpu"]
    command += ["--config", str(tmp_path / "config.yaml"), "--storage", server, "--n-trials", str(TRIALS)]
    command += ["--pruner", "median", "--study-name", "together"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    said = [(tmp_path / f"{number}.txt").read_text(encoding="utf-8") for number in range(PROCESSES)]
    assert done.returncode == 0, (done.stderr, said)

    with studies.open_storage(server, default=tmp_path / "unused.db") as storage:
        assert not storage.exclusive
        study = optuna.load_study(study_name="together", storage=storage.optuna)
        trials = study.get_trials()
        counted = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert len(counted) == TRIALS
        assert all(trial.state.is_finished() for trial in trials)
        assert len({str(trial.params) for trial in counted}) == TRIALS, "no trial is run twice"
        assert len({trial.user_attrs["owner"] for trial in counted}) > 1, "they work at the same time"
        # What is left over gave itself back: no failure, no score.
        spare = [trial for trial in trials if trial not in counted]
        assert all(studies.is_cancelled(trial) and trial.value is None for trial in spare)
    assert not (tmp_path / "unused.db").exists()
    counts = f"{sum(trial.state == TrialState.COMPLETE for trial in counted)} trials finished"
    assert all(counts in text for text in said), "every process reports the whole study"


def test_a_server_holds_the_studies_of_several_searches(server: str, tmp_path: Path) -> None:
    config = Config()
    with studies.open_storage(server, default=tmp_path / "unused.db") as storage:
        first, _ = studies.open_study(storage, studies.identity(config, "lstm", {"data": "a"}), config)
        second, told = studies.open_study(storage, studies.identity(config, "lstm", {"data": "b"}), config)
        assert first.study_name != second.study_name
        assert "the data changed" in told


def test_a_report_shows_the_searches_of_its_project_on_a_server_and_those_that_its_results_name(
    server: str, tmp_path: Path
) -> None:
    def project(name: str, storage: str | None = server) -> Config:
        hpo = {"hpo": {"storage": storage}}
        return Config.model_validate(
            {"project": {"name": name}, "paths": {"results_dir": tmp_path / name}, "linear": hpo}
        )

    names = {}
    for name in ("mine", "other"):
        with studies.open_storage(server, default=tmp_path / "unused.db") as storage:
            study, _ = studies.open_study(storage, studies.identity(project(name), "linear", {}), project(name))
            study.add_trial(optuna.trial.create_trial(value=0.75))
            names[name] = study.study_name
            shown = storage.shown
    notes: list[str] = []
    (found,) = report._searches(project("mine"), notes)
    assert (found.name, found.trials) == (names["mine"], [(0, 0.75)])
    # A storage that was given to the command alone.
    assert report._searches(project("mine", None), notes) == []
    append_result(paths.results_json(tmp_path / "mine"), {"storage": shown, "study": names["mine"]})
    (again,) = report._searches(project("mine", None), notes)
    assert (again, notes) == (found, [])
    gone = "postgresql://senthy:secret@127.0.0.1:1/none"
    assert [one.name for one in report._searches(project("mine", gone), notes)] == [names["mine"]]
    assert len(notes) == 1 and "cannot be read" in notes[0] and "secret" not in notes[0]
