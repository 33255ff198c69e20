"""Masking depends on a token's place, the seed and the epoch alone; the loss it gives on nothing that cuts a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Pretrain
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.batches import TokenizedTexts, plan_epoch
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.events import EpochEvent, StepEvent
from sentiment_hybrid.engine.training.mlm import MaskedLanguage, Masking, count_masked_held_out, held_out, perplexity
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import EncoderError
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.mlm import MaskedLanguageModel
from sentiment_hybrid.models.encoder.module import set_dropout

from ..conftest import toy_texts

VOCABULARY, MASK, SPECIAL = 40, 4, (0, 1, 2, 3, 4)


class Tokens:
    """What masking asks of a tokenizer."""

    mask_token_id: int | None = MASK
    all_special_ids = SPECIAL

    def __len__(self) -> int:
        return VOCABULARY


def masking_of(*, probability: float = 0.15, seed: int = 3) -> Masking:
    return Masking(Tokens(), probability=probability, seed=seed)


def texts_of(windows: list[list[int]], seed: int = 0) -> TokenizedTexts:
    """Texts given by the token counts of their windows: a start (0), words and an end (2) in each."""
    lengths = [length + 2 for text in windows for length in text]
    ids = [
        np.concatenate([[0], np.random.default_rng([seed, place]).integers(0, VOCABULARY, length - 2), [2]])
        for place, length in enumerate(lengths)
    ]
    return TokenizedTexts(
        ids=np.concatenate(ids).astype(np.int32),
        window_offsets=np.cumsum([0, *lengths]),
        text_offsets=np.cumsum([0, *map(len, windows)]),
        pad_id=1,
        truncated=0,
    )


def seen_by(
    texts: TokenizedTexts, task: MaskedLanguage, parts: Iterable[np.ndarray], epoch: int
) -> tuple[dict[int, int], dict[int, int]]:
    """Place among all tokens -> what the model reads there, and -> what it is to predict there, over micro-batches."""
    read: dict[int, int] = {}
    asked: dict[int, int] = {}
    for rows in parts:
        part = task.micro_batch(rows, epoch)
        windows, _ = texts.windows_of(rows)
        places = np.full(part.input_ids.shape, -1)
        for row, window in enumerate(windows):
            start, end = texts.window_offsets[window : window + 2]
            places[row, : end - start] = np.arange(start, end)
        assert np.array_equal(places >= 0, part.attention_mask.numpy())
        assert set(part.input_ids.numpy()[places < 0].tolist()) <= {texts.pad_id}
        read |= dict(zip(places[places >= 0].tolist(), part.input_ids.numpy()[places >= 0].tolist(), strict=True))
        asked |= dict(zip(places.reshape(-1)[part.masked.numpy()].tolist(), part.targets.tolist(), strict=True))
    return read, asked


WINDOWS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=20)


@settings(max_examples=80, deadline=None)
@given(windows=WINDOWS, budget=st.integers(1, 80), world=st.integers(1, 3), epoch=st.integers(0, 50), data=st.data())
def test_masking_is_the_same_however_rows_are_cut(
    windows: list[list[int]], budget: int, world: int, epoch: int, data: st.DataObject
) -> None:
    texts = texts_of(windows)
    task = MaskedLanguage(texts, None, masking_of(probability=0.5))
    every = np.arange(len(texts))
    whole = seen_by(texts, task, [every], epoch)
    mixed = np.array(data.draw(st.permutations(range(len(texts)))))
    assert seen_by(texts, task, np.array_split(mixed, min(3, len(mixed))), epoch) == whole
    # As the loop cuts an epoch: into steps, over processes, under a token budget.
    parts: list[np.ndarray] = []
    for rank in range(world):
        plan = plan_epoch(
            texts.lengths, rows_per_step=5, token_budget=budget, seed=1, epoch=max(1, epoch), rank=rank, world=world
        )
        parts += [rows for _, micro_batches in plan for rows in micro_batches]
    assert seen_by(texts, task, parts, epoch) == whole
    assert sum(len(task.micro_batch(rows, epoch).masked) for rows in parts) == len(whole[1])
    assert task.weight(every, epoch) == max(1, len(whole[1]))


@settings(max_examples=60, deadline=None)
@given(windows=WINDOWS, seed=st.integers(0, 2**32), epoch=st.integers(0, 9), probability=st.floats(0.01, 0.9))
def test_special_tokens_are_never_predicted_and_none_but_the_mask_is_put_in(
    windows: list[list[int]], seed: int, epoch: int, probability: float
) -> None:
    texts = texts_of(windows)
    masking = masking_of(probability=probability, seed=seed)
    read, asked = seen_by(texts, MaskedLanguage(texts, None, masking), [np.arange(len(texts))], epoch)
    assert all(target not in SPECIAL for target in asked.values())
    assert all(texts.ids[place] == target for place, target in asked.items())
    for place, token in read.items():
        if place not in asked:
            assert token == texts.ids[place], "what is not asked for is read as it is"
        else:
            assert token == MASK or token not in SPECIAL


def test_other_tokens_are_hidden_in_every_epoch_and_with_every_seed() -> None:
    texts = texts_of([[200]] * 5)
    places = np.arange(len(texts.ids))
    chosen = [masking_of(seed=seed).chosen(texts.ids, places, epoch) for seed, epoch in ((3, 1), (3, 2), (4, 1))]
    again = masking_of().chosen(texts.ids, places, 1)
    assert np.array_equal(chosen[0], again)
    for other in chosen[1:]:
        both = (chosen[0] & other).mean() / chosen[0].mean()
        assert both == pytest.approx(0.15, abs=0.08), "as often as by chance"


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_the_share_asked_for_is_predicted_of_which_80_percent_are_hidden_and_10_exchanged(probability: float) -> None:
    rng = np.random.default_rng(0)
    ids, places = rng.integers(len(SPECIAL), VOCABULARY, 200_000), np.arange(200_000)
    masking = masking_of(probability=probability)
    chosen = masking.chosen(ids, places, 1)
    assert chosen.mean() == pytest.approx(probability, abs=0.005)
    targets = ids[chosen]
    put_in = masking.replaced(targets, places[chosen], 1)
    hidden, stays = put_in == MASK, put_in == targets
    assert hidden.mean() == pytest.approx(0.8, abs=0.01)
    exchanged = ~hidden & ~stays
    # One of 35 that are exchanged gets what it was.
    assert exchanged.mean() == pytest.approx(0.1 * 34 / 35, abs=0.01)
    counts = np.bincount(put_in[exchanged], minlength=VOCABULARY)
    assert (counts[list(SPECIAL)] == 0).all()
    ordinary = counts[len(SPECIAL) :]
    assert ordinary.min() > 0.6 * ordinary.mean(), "any other token, each as often"
    assert ordinary.max() < 1.5 * ordinary.mean()


def test_neighbours_are_hidden_independently_of_each_other() -> None:
    ids, places = np.full(100_000, 7), np.arange(100_000)
    chosen = masking_of().chosen(ids, places, 1)
    assert (chosen[1:] & chosen[:-1]).mean() == pytest.approx(0.15**2, abs=0.003)


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    tokens = Tokens()
    tokens.mask_token_id = None
    with pytest.raises(EncoderError, match="no mask token") as caught:
        Masking(tokens, probability=0.15, seed=0)
    assert "roberta-base" in caught.value.hint


def test_perplexity_is_e_to_the_loss_and_finite() -> None:
    assert perplexity(math.log(50.0)) == pytest.approx(50.0)
    assert math.isfinite(perplexity(1e9))


# --- in the loop


def task_of(encoder_dir: Path) -> tuple[MaskedLanguageModel, MaskedLanguage]:
    torch.manual_seed(1)
    loaded = load_encoder_dir(encoder_dir)
    model = MaskedLanguageModel(loaded.model)
    set_dropout(model, 0.0)
    train, valid = (
        tokenize(toy_texts(count, seed)[0], loaded.tokenizer, max_length=16, max_windows=4)
        for count, seed in ((40, 0), (20, 1))
    )
    return model, MaskedLanguage(train, valid, Masking(loaded.tokenizer, probability=0.3, seed=5))


def trainer_of(encoder_dir: Path, **changes: object) -> Trainer:
    model, task = task_of(encoder_dir)
    small = {"batch_size": 8, "epochs": 2, "precision": "fp32", "learning_rate": 0.01}
    compute = device.resolve("cpu", "fp32")
    return Trainer(
        model,
        task,
        settings=Pretrain.model_validate({**small, **changes}).as_train(),
        seed=5,
        compute=compute,
        accelerator=device.accelerator(compute),
    )


def test_the_token_budget_changes_no_step_of_pretraining(tiny_encoder_dir: Path) -> None:
    losses = []
    for token_budget in (64, 10_000):
        facts = list(trainer_of(tiny_encoder_dir, token_budget=token_budget).events())
        losses.append([one.loss for one in facts if isinstance(one, StepEvent)])
    assert len(losses[0]) == 10
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)


def test_a_step_is_the_mean_over_all_tokens_that_are_hidden_in_it(tiny_encoder_dir: Path) -> None:
    trainer = trainer_of(tiny_encoder_dir, batch_size=40, epochs=1)
    part = trainer.task.micro_batch(np.arange(40), 1)
    with torch.no_grad():
        logits = trainer.bare(part.input_ids, part.attention_mask, part.masked)
    expected = -logits.log_softmax(-1)[torch.arange(len(part.targets)), part.targets].mean()
    first = next(one for one in trainer.events() if isinstance(one, StepEvent))
    assert first.loss == pytest.approx(float(expected), abs=1e-5)
    assert len(part.targets) > 30


def test_epochs_are_judged_by_the_loss_on_the_held_out_texts(tiny_encoder_dir: Path) -> None:
    trainer = trainer_of(tiny_encoder_dir, epochs=4)
    epochs = [one for one in trainer.events() if isinstance(one, EpochEvent)]
    losses = [one.valid["loss"] for one in epochs]
    assert [one.is_best for one in epochs] == [loss == min(losses[: at + 1]) for at, loss in enumerate(losses)]
    assert losses[-1] < losses[0]
    assert all(0.0 <= one.valid["accuracy"] <= 1.0 and "macro_f1" not in one.valid for one in epochs)


def test_what_is_held_out_is_measured_the_same_by_any_number_of_processes_and_under_any_budget(
    tiny_encoder_dir: Path,
) -> None:
    model, task = task_of(tiny_encoder_dir)
    compute = device.resolve("cpu", "fp32")
    assert task.valid is not None

    def sums(token_budget: int, share: tuple[int, int] = (0, 1)) -> torch.Tensor:
        return held_out(model, task.valid, task.masking, compute=compute, token_budget=token_budget, process=share)

    whole = sums(10_000)
    assert whole[2] == count_masked_held_out(task.valid, task.masking) > 20
    torch.testing.assert_close(sums(50), whole, atol=1e-3, rtol=0)
    torch.testing.assert_close(sum(sums(50, (rank, 3)) for rank in range(3)), whole, atol=1e-3, rtol=0)
    assert model.training, "given back in the mode it had"
    torch.testing.assert_close(sums(50, (98, 99)), torch.zeros(3, dtype=torch.float64))
