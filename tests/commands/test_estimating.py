"""``--dry-run``: what a command would do and take, and not a byte of it done."""

from __future__ import annotations

import pytest

from sentiment_hybrid import paths
from sentiment_hybrid.commands import estimating, optimize, train
from sentiment_hybrid.errors import ConfigError, DatabaseError, DataError, StudyError, UsageError

SPACE = "linear.hpo.search_space={learning_rate: {type: float, low: 0.001, high: 0.1, log: true}}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(estimating, "SECONDS", 0.02)


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def senthy(*arguments):
    from sentiment_hybrid.cli import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code or 0


def test_a_dry_run_of_a_training_counts_what_the_training_then_does(project):
    config = project.config("linear.train.epochs=3")
    (dry,) = estimating.run(config, ["linear"], "train")
    todo = dry.estimate.todo
    assert todo.missing == todo.distinct > 0
    result = train.run(config, "linear")
    assert result.encoder_passes + result.test.encoder_passes == todo.missing
    rows = todo.training.train.rows
    assert (todo.training.epochs, todo.training.steps) == (3, 3 * -(-rows // 16))
    assert todo.test.rows == result.test.rows
    assert set(dry.estimate.seconds) == {"encoding", "training", "testing"}
    assert all(value > 0 for value in (*dry.estimate.seconds.values(), *dry.estimate.bytes.values()))
    (again,) = estimating.run(config, ["linear"], "train")
    assert again.estimate.todo.missing == 0
    assert "encoding" not in again.estimate.seconds
    assert again.estimate.todo.distinct == todo.distinct


def test_nothing_on_disk_changes_and_trials_that_the_study_holds_are_not_counted_again(project, capsys):
    settings = [SPACE, "linear.hpo.n_trials=5", "linear.hpo.epochs=1"]
    optimize.run(project.config(*settings, "linear.hpo.n_trials=2"), "linear", final=False)
    before = tree(project.folder.parent)
    common = ["--model", "linear", "--config", str(project.file), "--dry-run", "-q"]
    common += [word for setting in settings for word in ("--set", setting)]
    for verb in (["train"], ["optimize"], ["run-all", "--mode", "optimize"]):
        assert senthy(*verb, *common) == 0
        shown = capsys.readouterr().out
        assert "nothing was changed" in shown
        assert "time in all, about" in shown
        assert ("3 x 1 (2 done already)" in shown) == (verb != ["train"])
    (other,) = estimating.run(project.config(*settings, "linear.hpo.epochs=2"), ["linear"], "optimize", final=False)
    assert (other.estimate.todo.trials.runs, other.estimate.todo.trials_done) == (5, 0), "other epochs, another study"
    assert other.estimate.todo.training is None
    assert list(other.estimate.seconds) == ["searching"], "the states are those of the first search"
    assert tree(project.folder.parent) == before


def test_the_heads_of_a_space_are_measured_at_both_ends(project):
    space = "lstm.hpo.search_space={hidden: {type: categorical, choices: [4, 64]}}"
    (dry,) = estimating.run(project.config(space), ["lstm"], "optimize")
    assert len(dry.estimate.speeds.trials) == 2


def test_models_share_the_states_so_only_the_first_is_said_to_encode(project):
    first, second = estimating.run(project.config(), ["lstm", "linear"], "train")
    assert first.estimate.todo.missing > 0
    assert second.estimate.todo.missing == 0


def test_a_trained_encoder_stores_nothing_and_its_model_holds_it(project):
    (frozen,) = estimating.run(project.config(), ["linear"], "train")
    (trained,) = estimating.run(project.config("encoder.trainable_layers=all"), ["linear"], "train")
    assert trained.estimate.todo.windows == 0
    assert "token states" not in trained.estimate.bytes
    names = ("model", "checkpoints, while it trains")
    assert trained.estimate.bytes[names[1]] > frozen.estimate.bytes[names[1]]
    model = train.run(project.config("encoder.trainable_layers=all"), "linear", test=False).model_dir
    weights = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    assert trained.estimate.bytes["model"] == pytest.approx(weights, rel=0.2)


def test_states_beyond_the_budget_are_told(project):
    words = "more than cache.max_gb (1e-06) has room for"
    for override, told in (("cache.max_gb=0.000001", True), ("cache.max_gb=1", False)):
        (result,) = estimating.run(project.config(override), ["linear"], "train", device="cpu")
        assert any(words in note for note in result.estimate.notes) is told


def test_more_texts_than_are_counted_are_taken_to_go_on_alike(project, monkeypatch):
    (exact,) = estimating.run(project.config(), ["linear"], "train")
    monkeypatch.setattr(estimating, "MOST_COUNTED", 60)
    (scaled,) = estimating.run(project.config(), ["linear"], "train")
    assert scaled.estimate.todo.training.train.rows == exact.estimate.todo.training.train.rows > 60
    assert scaled.estimate.todo.missing_tokens == pytest.approx(exact.estimate.todo.missing_tokens, rel=0.1)
    assert "first 60 texts" in " ".join(scaled.estimate.notes)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "verb", "error", "words"),
    [
        (["paths.data_db=nowhere.db"], "train", DatabaseError, "no prepared database"),
        (["linear.train.sample_size=9999"], "train", DataError, "9,999"),
        (["test.sample_size=9999"], "train", DataError, "9,999"),
        (["linear.hpo.sample_size=9999"], "optimize", DataError, "9,999"),
        (["linear.hpo.enabled=false"], "optimize", UsageError, "switched off"),
        (["linear.hpo.search_space={}"], "optimize", ConfigError, "empty"),
        (["linear.hpo.storage=nonsense"], "optimize", StudyError, "no URL"),
    ],
)
def test_what_the_command_would_refuse_a_dry_run_refuses(project, overrides, verb, error, words):
    with pytest.raises(error, match=words):
        estimating.run(project.config(*overrides), ["linear"], verb)
    assert not paths.runs_dir(project.folder / "results").exists()


def test_a_dry_run_of_several_processes_is_refused(project, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        estimating.run(project.config(), ["linear"], "train")


def test_a_dry_run_of_tests_is_refused(project, capsys):
    assert senthy("run-all", "--mode", "test", "--config", str(project.file), "--dry-run") == 2
    assert "--dry-run" in capsys.readouterr().err
