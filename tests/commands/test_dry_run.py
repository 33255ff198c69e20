"""``--dry-run``: what a command would do and take, and not a byte of it done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sentiment_hybrid import paths
from sentiment_hybrid.commands import dry_run, optimize, train
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.training.probe import Rate
from sentiment_hybrid.errors import ConfigError, DatabaseError, DataError, StudyError, UsageError
from sentiment_hybrid.runtime import Runtime

SPACE = "linear.hpo.search_space={learning_rate: {type: float, low: 0.001, high: 0.1, log: true}}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dry_run, "SECONDS", 0.02)


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def senthy(*arguments):
    from sentiment_hybrid.cli import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code or 0


def test_a_dry_run_of_a_training_counts_what_the_training_then_does(project):
    config = project.config("linear.train.epochs=3")
    (dry,) = dry_run.run(config, ["linear"], "train")
    assert dry.counts["windows to encode"] == dry.counts["distinct windows"] > 0
    result = train.run(config, "linear")
    assert result.encoder_passes + result.test.encoder_passes == dry.counts["windows to encode"]
    rows = dry.counts["training: rows"]
    assert (dry.counts["training: epochs"], dry.counts["training: steps of all runs"]) == (3, 3 * -(-rows // 16))
    assert dry.counts["test rows"] == result.test.rows
    assert set(dry.seconds) == {"encoding", "training", "testing"}
    assert all(value > 0 for value in (*dry.seconds.values(), *dry.bytes.values()))
    (again,) = dry_run.run(config, ["linear"], "train")
    assert again.counts["windows to encode"] == 0
    assert "encoding" not in again.seconds
    assert again.counts["distinct windows"] == dry.counts["distinct windows"]


def test_time_is_work_divided_by_rates(project):
    with open_store(project.config().paths.data_db) as store:
        survey = dry_run.Survey(project.config("linear.train.epochs=3"), "linear", "train", store, seeds=2)
        rates = [Rate(work, "fp32", tokens, 0.0) for work, tokens in (("encode", 10), ("train", 100), ("validate", 50))]
        rates += [Rate("train", "bf16", 1, 0.0)]
        survey.compute = replace(survey.compute, precision="fp32")
        made = survey.estimate(rates, set())
        tokens = {split: survey.session.tokenize(store.read(split).texts).lengths.sum() for split in survey.rows}
    assert made.seconds["training"] == pytest.approx(2 * 3 * (tokens["train"] / 100 + tokens["valid"] / 50))
    assert made.seconds["testing"] == pytest.approx(2 * tokens["test"] / 50)
    assert made.seconds["encoding"] == pytest.approx(sum(tokens.values()) / 10, rel=0.05), "each distinct window once"
    width = survey.encoder.model.config.hidden_size
    assert made.bytes["token states"] == pytest.approx(2 * width * 10 * made.seconds["encoding"])
    assert made.total_seconds == pytest.approx(sum(made.seconds.values()))


def test_a_final_model_that_trains_on_validation_rows_too_is_counted_so(project):
    config = project.config(SPACE, "linear.hpo.final.include_valid=true", "linear.hpo.epochs=4")
    (made,) = dry_run.run(config, ["linear"], "optimize")
    with open_store(config.paths.data_db) as store:
        both = store.count("train") + store.count("valid")
    assert (made.counts["training: rows"], made.counts["training: validation rows"]) == (both, 0)
    assert made.counts["training: epochs"] == 4


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
        assert ("search: runs" in shown) == (verb != ["train"])
    (other,) = dry_run.run(project.config(*settings, "linear.hpo.epochs=2"), ["linear"], "optimize", final=False)
    assert (other.counts["search: runs"], other.counts["trials done already"]) == (5, 0), "other epochs, another study"
    assert "training: runs" not in other.counts
    assert list(other.seconds) == ["searching"], "the states are those of the first search"
    assert tree(project.folder.parent) == before


def test_models_share_the_states_so_only_the_first_is_said_to_encode(project):
    first, second = dry_run.run(project.config(), ["lstm", "linear"], "train")
    assert first.counts["windows to encode"] > 0
    assert second.counts["windows to encode"] == 0


def test_a_trained_encoder_stores_nothing_and_its_model_holds_it(project):
    (frozen,) = dry_run.run(project.config(), ["linear"], "train")
    (trained,) = dry_run.run(project.config("encoder.trainable_layers=all"), ["linear"], "train")
    assert "windows" not in trained.counts
    assert "token states" not in trained.bytes
    names = ("model", "checkpoints, while it trains")
    assert trained.bytes[names[1]] > frozen.bytes[names[1]]
    model = train.run(project.config("encoder.trainable_layers=all"), "linear", test=False).model_dir
    weights = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    assert trained.bytes["model"] == pytest.approx(weights, rel=0.2)


def test_states_beyond_the_budget_are_reported(project):
    words = "more than cache.max_gb (1e-06) leaves"
    for override, told in (("cache.max_gb=0.000001", True), ("cache.max_gb=1", False)):
        (result,) = dry_run.run(project.config(override), ["linear"], "train", runtime=Runtime(device="cpu"))
        assert any(words in note for note in result.notes) is told


def test_more_texts_than_are_counted_are_taken_to_go_on_alike(project, monkeypatch):
    (exact,) = dry_run.run(project.config(), ["linear"], "train")
    monkeypatch.setattr(dry_run, "MOST_COUNTED", 60)
    (scaled,) = dry_run.run(project.config(), ["linear"], "train")
    assert scaled.counts["training: rows"] == exact.counts["training: rows"] > 60
    assert scaled.bytes["token states"] == pytest.approx(exact.bytes["token states"], rel=0.1)
    assert "counted on the first texts of train" in " ".join(scaled.notes)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "verb", "error", "words"),
    [
        (["paths.data_db=nowhere.db"], "train", DatabaseError, "no prepared database"),
        (["linear.train.sample_size=9999"], "train", DataError, "9,999"),
        (["test.sample_size=9999"], "train", DataError, "9,999"),
        (["linear.hpo.sample_size=9999"], "optimize", DataError, "9,999"),
        (["linear.hpo.enabled=false"], "optimize", UsageError, "is disabled"),
        (["linear.hpo.search_space={}"], "optimize", ConfigError, "empty"),
        (["linear.hpo.storage=nonsense"], "optimize", StudyError, "not a valid URL"),
    ],
)
def test_what_the_command_would_refuse_a_dry_run_refuses(project, overrides, verb, error, words):
    with pytest.raises(error, match=words):
        dry_run.run(project.config(*overrides), ["linear"], verb)
    assert not paths.runs_dir(project.folder / "results").exists()


def test_a_dry_run_of_several_processes_is_refused(project, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        dry_run.run(project.config(), ["linear"], "train")


def test_a_dry_run_of_tests_is_refused(project, capsys):
    assert senthy("run-all", "--mode", "test", "--config", str(project.file), "--dry-run") == 2
    assert "--dry-run" in capsys.readouterr().err
