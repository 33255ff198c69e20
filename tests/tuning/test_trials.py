"""A trial is the shared loop on the search's rows, with its parameters; it leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import Store
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.states.store import StateStore, window_keys
from sentiment_hybrid.engine.training.tasks import Classification
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import ConfigError, DataError, EncoderError, TrainingError
from sentiment_hybrid.tuning.trials import TrialTrainer, settled


def changed(config: Config, *keys: str, value: Any) -> Config:
    document = config.model_dump(mode="json")
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return Config.model_validate(document)


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def scores(trial_trainer: TrialTrainer, params: dict[str, Any]) -> list[float]:
    """The score of each epoch of a trial."""
    return [outcome.value for outcome in trial_trainer.train(params) if outcome.kind == "epoch"]


def test_a_trial_yields_the_validation_metric_of_each_epoch_and_the_same_parameters_the_same(config: Config) -> None:
    trial_trainer = TrialTrainer(config, "lstm")
    params = {"hidden": 4, "learning_rate": 0.05}
    first = scores(trial_trainer, params)
    assert len(first) == config.lstm.hpo.epochs
    assert all(0.0 <= value <= 1.0 for value in first)
    other = scores(trial_trainer, {"hidden": 12, "learning_rate": 0.001})
    assert scores(trial_trainer, params) == first != other


def test_over_all_trials_each_distinct_window_passes_what_is_frozen_once_per_level(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StateStore._encode
    passed: Counter[tuple[str, bytes]] = Counter()

    def count(self: StateStore, tokenized: TokenizedTexts, windows: np.ndarray) -> np.ndarray:
        keys = window_keys(tokenized)[windows]
        passed.update((self.folder.name, bytes(key)) for key in keys)
        return real(self, tokenized, windows)

    monkeypatch.setattr(StateStore, "_encode", count)
    levels = {0: 0, 1: 0}
    for model in ("lstm", "linear"):
        trial_trainer = TrialTrainer(config, model)
        trial_trainer.prepare()
        for layers in (0, 1, 0, 1):
            scores(trial_trainer, {"trainable_layers": layers})
            levels[layers] += 1
    scores(TrialTrainer(config, "linear"), {"trainable_layers": "all"})
    assert levels == {0: 4, 1: 4}
    assert set(passed.values()) == {1}
    by_level = Counter(name for name, _ in passed)
    assert len(by_level) == 2
    assert len(set(by_level.values())) == 1


def test_a_trial_never_reads_the_test_split(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.read
    read = []

    def noted(self: Store, split: Any, *arguments: Any, **options: Any) -> Any:
        assert split != "test"
        read.append(split)
        return real(self, split, *arguments, **options)

    monkeypatch.setattr(Store, "read", noted)
    trial_trainer = TrialTrainer(config, "linear")
    assert scores(trial_trainer, {})
    assert read == ["train", "valid"]


def test_a_trial_sees_the_first_rows_that_the_search_asks_for(config: Config) -> None:
    small = changed(config, "linear", "hpo", "sample_size", value=20)
    small = changed(small, "linear", "hpo", "valid_sample_size", value=5)
    facts = TrialTrainer(small, "linear").facts()
    assert (facts["train_rows"], facts["valid_rows"]) == (20, 5)


def test_the_default_sample_gives_way_to_a_small_split_and_a_chosen_one_is_checked(config: Config) -> None:
    trial_trainer = TrialTrainer(config, "linear")
    assert trial_trainer.facts()["train_rows"] < 120
    assert "fewer than 10,000" in trial_trainer.notes[0]
    with pytest.raises(DataError, match="5,000"):
        TrialTrainer(changed(config, "linear", "hpo", "sample_size", value=5000), "linear")


def test_memory_returns_to_its_level_after_each_trial(config: Config) -> None:
    trial_trainer = TrialTrainer(config, "lstm")
    scores(trial_trainer, {"hidden": 8})
    before = tensors()
    for hidden in (16, 4):
        scores(trial_trainer, {"hidden": hidden})
        assert tensors() == before
    pruned = trial_trainer.outcomes({"hidden": 16})
    next(pruned)
    assert tensors() > before
    pruned.close()  # type: ignore[attr-defined]
    assert tensors() == before


def test_garbage_of_a_search_is_collected_without_looking_at_what_was_there_before() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.own = self

    with settled():
        assert gc.get_freeze_count() > 1000
        gone = weakref.ref(Cycle())
        gc.collect()
        assert gone() is None
    assert gc.get_freeze_count() == 0


def test_memory_returns_after_a_crash_too(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    trial_trainer = TrialTrainer(config, "lstm")
    scores(trial_trainer, {"hidden": 8})
    before = tensors()

    def crash(self: Trainer, *arguments: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_step", crash)
    (outcome,) = trial_trainer.outcomes({"hidden": 8})
    assert outcome.kind == "failed"
    assert "CUDA out of memory" in outcome.text
    assert tensors() == before


@pytest.mark.parametrize("layers", [1, "all"])
def test_a_trial_that_trains_the_encoder_leaves_it_as_it_came_for_the_next(config: Config, layers: Any) -> None:
    trial_trainer = TrialTrainer(config, "linear")
    before = trial_trainer.loaded.fingerprint
    params = {"trainable_layers": layers, "encoder_learning_rate": 0.01}
    first = scores(trial_trainer, params)
    scores(trial_trainer, {"trainable_layers": 0})
    assert scores(trial_trainer, params) == first
    from sentiment_hybrid.models.encoder.module import encoder_fingerprint

    assert encoder_fingerprint(trial_trainer.loaded.model) == before


def test_a_scratch_encoder_and_the_window_length_can_be_searched(config: Config) -> None:
    scratch = {"vocab_size": 400, "hidden_size": 16, "layers": 1, "attention_heads": 2, "intermediate_size": 32}
    document = config.model_dump(mode="json")
    document["encoder"] |= {"name": "scratch", "trainable_layers": "all", "scratch": scratch}
    trial_trainer = TrialTrainer(Config.model_validate(document), "linear")
    assert len(scores(trial_trainer, {"max_length": 8})) == len(scores(trial_trainer, {"max_length": 48})) == 2


def test_trials_run_all_their_epochs_whatever_the_patience(config: Config) -> None:
    impatient = changed(config, "linear", "train", "patience", value=1)
    impatient = changed(impatient, "linear", "hpo", "epochs", value=4)
    assert len(scores(TrialTrainer(impatient, "linear"), {"learning_rate": 1e-9})) == 4


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_more_is_better_whatever_the_metric(config: Config, metric: str) -> None:
    values = scores(TrialTrainer(changed(config, "linear", "train", "metric", value=metric), "linear"), {})
    assert all(value < 0 if metric == "loss" else value >= 0 for value in values)


def test_a_loss_that_is_not_a_number_is_the_parameters_fault(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    summed_loss = Classification.summed_loss
    monkeypatch.setattr(Classification, "summed_loss", lambda *given: summed_loss(*given) * float("nan"))
    (outcome,) = TrialTrainer(config, "linear").outcomes({})
    assert (outcome.kind, "the loss became nan" in outcome.text) == ("unusable", True)


def test_parameters_that_do_not_go_together_are_reported_before_anything_is_built(config: Config) -> None:
    (outcome,) = TrialTrainer(config, "lstm").outcomes({"hidden": 5, "attention_heads": 4})
    assert (outcome.kind, "must divide" in outcome.text) == ("unusable", True)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"trainable_layers": {"type": "int", "low": 0, "high": 9}}, "has 2 layers"),
        ({"max_length": {"type": "int", "low": 8, "high": 4000}}, "at most"),
    ],
)
def test_a_space_beyond_the_encoder_is_refused_before_the_first_trial(config: Config, entry: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrialTrainer(changed(config, "linear", "hpo", "search_space", value=entry), "linear")


def test_what_is_wrong_for_every_trial_is_reported_at_once(config: Config, tmp_path: Any) -> None:
    with pytest.raises(EncoderError):
        TrialTrainer(changed(config, "encoder", "name", value=str(tmp_path)), "linear")
    with pytest.raises(TrainingError, match="class_weights"):
        TrialTrainer(changed(config, "linear", "train", "class_weights", value={"good": 1.0}), "linear")


def test_the_identity_follows_content_not_paths(config: Config, tmp_path: Any) -> None:
    import shutil

    copy = tmp_path / "elsewhere"
    shutil.copytree(config.encoder.name, copy)
    moved = changed(config, "encoder", "name", value=str(copy))
    assert TrialTrainer(moved, "linear").facts() == TrialTrainer(config, "linear").facts()
