"""``senthy optimize``: searches, goes on after anything, and hands back the best model."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
import yaml

from sentiment_hybrid import console, paths
from sentiment_hybrid.commands import optimize, train
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.errors import ConfigError, OutputError, StudyError, UsageError
from sentiment_hybrid.reporting import canvas
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime

SPACE = "{type: float, low: 0.001, high: 0.1, log: true}"


@pytest.fixture(autouse=True)
def quick_collections():
    """Each trial collects garbage; what the imports made would have it take longer than the trial."""
    import gc

    import sentiment_hybrid.tuning.search
    import sentiment_hybrid.tuning.trials  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def tuned(project):
    """``tuned("more=settings")``: a config whose search of linear is three trials of two epochs."""

    def make(*overrides):
        base = ["linear.hpo.n_trials=3", "linear.hpo.epochs=2", f"linear.hpo.search_space={{learning_rate: {SPACE}}}"]
        return project.config(*base, *overrides)

    return make


def entries(project):
    return read_results(project.folder / "results" / "model_results.json")


def test_a_search_ends_with_the_best_model_published_tested_and_reported(project, tuned):
    result = optimize.run(tuned(), "linear")
    assert (result.counts["finished"] + result.counts["pruned"], result.counts["failed"]) == (3, 0)
    assert result.best.value == max(trial.value for trial in result.top)
    assert result.storage.endswith("results/optuna_linear_roberta.db")
    run = Run(result.trained.run_dir)
    assert run.config().linear.train.learning_rate == result.best.params["learning_rate"]
    assert run.config().linear.train.epochs == 2, "the final model trains for train.epochs"
    assert read_info(project.folder / "models" / "linear_roberta_model_final").run_id == run.id
    (entry,) = entries(project)
    assert entry["name"] == "LinearRoBERTa_Optimize"
    assert entry["trials"] == {"finished": result.counts["finished"], "pruned": result.counts["pruned"], "failed": 0}
    for name in ("history", "slices", "best_params"):
        assert result.files[name].stat().st_size > 0
    assert (entry["study"], entry["best_trial"]) == (result.study, result.best.number)
    assert entry["best_params"] == result.best.params
    assert entry["test"]["accuracy"]["value"] == result.test.scores.accuracy.value


def test_figures_name_the_prepared_data_whatever_source_is_configured_now(project, tuned, monkeypatch):
    titles = []
    monkeypatch.setattr(canvas, "_set_title", lambda drawing, title: titles.append(title))
    optimize.run(tuned("data.source=kaggle", "linear.hpo.n_trials=1"), "linear", final=False)
    assert titles
    assert all("texts.csv" in title and "kaggle" not in title for title in titles)


def test_the_best_parameters_are_a_fragment_that_any_config_can_be_merged_with(project, tuned):
    space = (
        f"linear.hpo.search_space={{learning_rate: {SPACE}, dropout: {{type: float, low: 0.1, high: 0.3}}, "
        "max_length: {type: int, low: 8, high: 16}}"
    )
    result = optimize.run(tuned(space, "linear.hpo.n_trials=2"), "linear", final=False)
    assert result.trained is None
    text = paths.best_params(project.folder / "results", "linear").read_text()
    assert result.study in text.splitlines()[0]
    params = result.best.params
    assert yaml.safe_load(text) == {
        "linear": {"head": {"dropout": params["dropout"]}, "train": {"learning_rate": params["learning_rate"]}},
        "encoder": {"max_length": params["max_length"]},
    }
    assert not entries(project)


@pytest.mark.parametrize("searched", [True, False])
def test_a_password_of_a_storage_is_kept_nowhere(project, tuned, searched):
    from sentiment_hybrid.tuning.study import TrialFacts

    best = TrialFacts(0, "complete", 0.9, {"learning_rate": 0.02}, [0.9], 1, 1.0, "")
    secret = "postgresql+psycopg://anna:geheim@host/db"
    config, purpose = tuned(*(f"{model}.hpo.storage={secret}" for model in ("lstm", "linear"))), train.Purpose()
    if searched:
        shown = secret.replace("geheim", "***")
        found = optimize.OptimizeResult("Linear", "s", shown, "macro_f1", 1, [best], None, "", "")
        config, purpose = optimize.final_training(config, "linear", found)
        assert config.linear.train.learning_rate == 0.02
    result = train.run(config, "linear", purpose=purpose)
    files = [path for name in ("results", "models", "cache") for path in (project.folder / name).rglob("*")]
    assert result.run_dir / paths.RUN_CONFIG in files
    assert not [path for path in files if path.is_file() and b"geheim" in path.read_bytes()]


def test_running_it_again_goes_straight_to_the_end_and_a_larger_total_goes_on(project, tuned, monkeypatch):
    from sentiment_hybrid.tuning.trials import TrialTrainer

    first = optimize.run(tuned(), "linear")
    with monkeypatch.context() as patched:
        patched.setattr(TrialTrainer, "outcomes", lambda *_: pytest.fail("a trial was run"))
        again = optimize.run(tuned(), "linear")
    assert again.trained is None, "the final model is published already"
    assert again.test.scores == first.test.scores
    assert (again.study, again.best) == (first.study, first.best)
    assert len(entries(project)) == 1
    more = optimize.run(tuned("linear.hpo.n_trials=4"), "linear", final=False)
    assert (more.study, more.counts["finished"] + more.counts["pruned"]) == (first.study, 4)


def test_a_full_disk_at_the_final_model_keeps_the_study_and_the_parameters(project, tuned, monkeypatch):
    from sentiment_hybrid import files
    from sentiment_hybrid.tuning.trials import TrialTrainer

    real = files.flush_to_disk

    def full(folder):
        if "model_final" in folder.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder)

    with monkeypatch.context() as patched:
        patched.setattr(files, "flush_to_disk", full)
        with pytest.raises(OutputError, match="the disk is full"):
            optimize.run(tuned(), "linear")
    assert paths.best_params(project.folder / "results", "linear").is_file()
    monkeypatch.setattr(TrialTrainer, "outcomes", lambda *_: pytest.fail("a trial was run"))
    result = optimize.run(tuned(), "linear")
    assert result.trained.resumed, "the trained epochs are not trained again"
    assert [entry["name"] for entry in entries(project)] == ["LinearRoBERTa_Optimize"]


def test_with_include_valid_the_final_model_trains_on_both_for_the_best_number_of_epochs(project, tuned):
    result = optimize.run(tuned("linear.hpo.final.include_valid=true", "linear.hpo.epochs=3"), "linear")
    info = read_info(result.trained.model_dir)
    rows = json.loads((result.trained.run_dir / paths.RUN_META).read_text())
    assert rows["model"] == "linear"
    assert len(Run(result.trained.run_dir).epochs()) == result.best.best_epoch
    assert result.trained.valid == {}
    assert info.trained_on_valid


def test_with_two_workers_of_which_one_dies_the_total_is_reached(project, tuned, monkeypatch):
    from sentiment_hybrid.tuning.workers import WorkerPool

    real = WorkerPool.resume
    killed = []

    def kill_once(self, slot):
        if not killed:
            killed.append(slot)
            self._workers[slot].process.kill()
        real(self, slot)

    monkeypatch.setattr(WorkerPool, "resume", kill_once)
    result = optimize.run(tuned("linear.hpo.workers=2"), "linear", final=False, runtime=Runtime(device="cpu"))
    assert (result.counts["finished"] + result.counts["pruned"], result.counts["failed"]) == (3, 1)


def test_a_search_of_other_data_is_another_study(project, tuned, make_project, capsys, monkeypatch):
    monkeypatch.setattr(console, "_verbosity", 0)  # another test of this process may have asked for silence
    first = optimize.run(tuned("linear.hpo.n_trials=1"), "linear", final=False)
    other = make_project("other", rows=200)
    moved = tuned("linear.hpo.n_trials=1", f"paths.data_db={other.folder / 'data' / 'tweets.db'}")
    second = optimize.run(moved, "linear", final=False)
    assert second.study != first.study
    said = capsys.readouterr().err
    assert "the data changed" in said
    assert first.study in said


def test_a_final_training_shorter_than_the_best_trial_says_so(tuned):
    from sentiment_hybrid.tuning.study import TrialFacts

    best = TrialFacts(0, "complete", 0.9, {"learning_rate": 0.02}, [0.1] * 5 + [0.9], 6, 1.0, "")
    short, same = (tuned(f"linear.train.epochs={epochs}") for epochs in (2, 6))
    assert "--final-epochs 6" in optimize.shorter_than_the_best(short, "linear", best)
    assert optimize.shorter_than_the_best(same, "linear", best) == ""


# --- kills -----------------------------------------------------------------------------------------------------------

#: Forks a process for each kill, which costs no new imports: each is killed at a random statement that it sends to its
#: storage, between any two writes.
TOTAL = 10
KILLED = """
import os, random, signal, sys
import gc, sqlalchemy, torch, transformers
torch.set_num_threads(1)
from sentiment_hybrid.commands import optimize
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.engine.training import prepare, trainer
from sentiment_hybrid.tuning import search, study, trials, workers

config = load_config(sys.argv[1], sys.argv[2:])
moments = random.Random(7)
gc.freeze()  # collecting what the imports made takes longer than a trial

def no_waiting_for_the_disk(connection, record):
    connection.execute("PRAGMA synchronous = OFF")  # a kill loses nothing that the system has taken

def search_until(kill_at):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = 0
    def count(*arguments):
        nonlocal done
        done += 1
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", count)
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", no_waiting_for_the_disk)
    optimize.run(config, "linear", final=False)
    os._exit(0)

kills = 0
while kills < 5:
    code = search_until(moments.randrange(60, 200))
    assert code == -signal.SIGKILL, code
    kills += 1
assert search_until(0) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")
def test_a_search_killed_five_times_ends_like_one_that_was_not(project, tuned):
    overrides = [
        f"linear.hpo.n_trials={TOTAL}",
        "linear.hpo.epochs=2",
        f"linear.hpo.search_space={{learning_rate: {SPACE}}}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(project.file), *overrides],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    import optuna
    from optuna.trial import TrialState

    file = paths.study_db(project.folder / "results", "linear")
    (name,) = optuna.get_all_study_names(f"sqlite:///{file}")
    trials = optuna.load_study(study_name=name, storage=f"sqlite:///{file}").get_trials()
    states = [trial.state for trial in trials]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == TOTAL
    assert all(trial.state.is_finished() or trial.state == TrialState.WAITING for trial in trials)
    whole = optimize.run(tuned(*overrides, f"paths.results_dir={project.folder / 'whole'}"), "linear", final=False)
    ended = [trial for trial in trials if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}]
    assert [(trial.params, list(trial.intermediate_values.values())) for trial in ended] == [
        (trial.params, trial.epochs) for trial in whole.trials
    ], "a search that was killed ends like one that was not"
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert failed, "a kill in the middle of a trial leaves one"
    assert all(trial.value is None for trial in failed)
    assert all("killed" in trial.user_attrs["failure"] for trial in failed)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_search_that_is_switched_off_is_refused(tuned):
    with pytest.raises(UsageError, match="enabled is false") as caught:
        optimize.run(tuned("linear.hpo.enabled=false"), "linear")
    assert "linear.hpo.enabled=true" in caught.value.hint


def test_a_search_under_a_launcher_is_refused(tuned, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process") as caught:
        optimize.run(tuned(), "linear")
    assert "--workers" in caught.value.hint


def test_a_second_search_in_the_same_file_is_refused(project, tuned):
    from sentiment_hybrid.tuning.study import open_storage

    file = paths.study_db(project.folder / "results", "linear")
    with open_storage(None, default=file), pytest.raises(StudyError, match="another process is using the storage"):
        optimize.run(tuned(), "linear")


def test_a_space_that_cannot_be_is_refused_before_anything_runs(project, tuned):
    with pytest.raises(ConfigError, match="empty"):
        optimize.run(tuned("linear.hpo.search_space={}"), "linear")
    assert not paths.study_db(project.folder / "results", "linear").exists()


def test_where_no_trial_finished_the_reason_is_reported_and_the_study_kept(project, tuned, monkeypatch):
    from sentiment_hybrid.engine.training.trainer import Trainer
    from sentiment_hybrid.tuning import search

    def crash(self, *arguments):
        raise RuntimeError("the graphics card is on fire")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", crash)
        patched.setattr(search, "MAX_ABANDONED", 1)
        with pytest.raises(StudyError, match="on fire"):
            optimize.run(tuned(), "linear")
    assert optimize.run(tuned(), "linear", final=False).counts["failed"] == 4


def test_a_timeout_before_the_first_trial_is_reported(tuned):
    with pytest.raises(StudyError, match="no trial of the study") as caught:
        optimize.run(tuned("linear.hpo.timeout=1e-9"), "linear")
    assert "--timeout" in caught.value.hint


def test_the_command_tells_the_study_the_best_trials_and_the_files(project, capsys):
    from sentiment_hybrid.cli import main

    arguments = ["optimize", "--model", "linear", "--config", str(project.file), "--n-trials", "2", "--no-final"]
    arguments += ["--hpo-epochs", "1", "--sample-size", "40", "--pruner", "none", "--study-name", "mine"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code
    shown = capsys.readouterr()
    assert "study mine in sqlite:///" in shown.out
    assert "2 trials finished, 0 pruned, 0 failed; 2 epochs trained" in shown.out
    assert "Best trials" in shown.out
    assert "learning_rate" in shown.out
    assert "best params:" in shown.out


INTERRUPTED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from sentiment_hybrid.engine.training import trainer
real = trainer.Trainer._step
steps = 0
def step(self, *arguments):
    global steps
    steps += 1
    if steps == 30:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(self, *arguments)
trainer.Trainer._step = step
from sentiment_hybrid.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_keeps_the_study_and_says_so(project, tuned):
    arguments = ["optimize", "--model", "linear", "--config", str(project.file), "--n-trials", "3", "--no-final"]
    arguments += ["--set", "linear.hpo.epochs=2", "--set", f"linear.hpo.search_space={{learning_rate: {SPACE}}}"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 130, done.stderr
    assert "run the same command to continue" in done.stderr
    result = optimize.run(tuned(), "linear", final=False)
    assert (result.counts["finished"] + result.counts["pruned"], result.counts["failed"]) == (3, 0)


def test_the_search_can_be_called_from_python(tuned):
    import sentiment_hybrid

    assert sentiment_hybrid.optimize(tuned("linear.hpo.n_trials=1"), "linear", final=False).counts["finished"] == 1


def test_a_published_model_of_another_search_is_trained_anew(project, tuned):
    config = tuned("linear.hpo.n_trials=1")
    train.run(config, "linear")
    assert optimize.run(config, "linear").trained is not None
    assert [entry["name"] for entry in entries(project)] == ["LinearRoBERTa_Train", "LinearRoBERTa_Optimize"]
