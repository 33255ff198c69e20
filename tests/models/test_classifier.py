"""Gathering windows into texts, and the two ways into the classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier, count_tokens, gather_texts
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder


def by_hand(windows):
    """The same gathering, text by text and token by token."""
    rows = [[] for _ in range(windows.num_texts)]
    for window, text in enumerate(windows.text_index.tolist()):
        rows[text].append(windows.states[window][windows.mask[window]])
    return [torch.cat(parts) for parts in rows]


@pytest.mark.parametrize("texts", [[[2, 3, 1], [4], [5, 1]], [[3], [6], [1]], [[3, 0, 2], [0], [4]]])
def test_the_windows_of_a_text_stand_in_a_row(make, texts):
    windows = make.windows(texts, extra=3)
    states, mask = gather_texts(windows.states, windows.mask, windows.text_index, windows.num_texts)
    expected = by_hand(windows)
    assert states.shape[1] == mask.shape[1] == max(len(tokens) for tokens in expected)
    for row, tokens in enumerate(expected):
        assert mask[row].tolist() == [True] * len(tokens) + [False] * (mask.shape[1] - len(tokens))
        assert torch.equal(states[row, : len(tokens)], tokens)


@pytest.mark.parametrize("texts", [[[2, 3], [4]], [[3], [6]]])
def test_gradients_go_back_to_real_tokens_alone(make, texts):
    windows = make.windows(texts, extra=2)
    leaf = windows.states.clone().requires_grad_()
    states, mask = gather_texts(leaf, windows.mask, windows.text_index, windows.num_texts)
    (states * mask.unsqueeze(-1)).sum().backward()
    assert torch.equal(leaf.grad, windows.mask.unsqueeze(-1).expand_as(leaf).float())


def test_tokens_and_windows_are_counted(make):
    windows = make.windows([[2, 3, 0], [4]])
    counts = count_tokens(windows.mask, windows.text_index, windows.num_texts)
    counted = (counts.per_window, counts.per_text, counts.windows)
    assert [count.tolist() for count in counted] == [[2, 3, 0, 4], [5, 4], [2, 1]]


@pytest.fixture
def tiny(tiny_encoder_dir: Path, head_name: str):
    """A head on the tiny encoder, and the ids of a few texts."""
    torch.manual_seed(1)
    loaded = load_encoder_dir(tiny_encoder_dir)
    encoder = Encoder(loaded.model, 0)
    head = build_head(head_name, Config().model(head_name).head, input_size=encoder.hidden_size, num_classes=2)
    ids = [loaded.tokenizer(text)["input_ids"] for text in ("good!", "this was not a very good film?", "bad day.")]
    return Classifier(encoder, head).eval(), ids


def ask(classifier, ids, *, width=None, stray=1):
    width = width or max(len(row) for row in ids)
    input_ids = torch.tensor([row + [stray] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    index = torch.arange(len(ids))
    return classifier(input_ids=input_ids, attention_mask=mask, text_index=index, num_texts=len(ids)).logits


def test_padding_of_ids_changes_no_logit(tiny):
    classifier, ids = tiny
    together = ask(classifier, ids, width=30)
    alone = torch.cat([ask(classifier, [row]) for row in ids])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.processor
def test_padding_of_ids_changes_no_logit_beyond_bfloat16(tiny):
    classifier, ids = tiny
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = ask(classifier, ids, width=30)
        alone = torch.cat([ask(classifier, [row]) for row in ids])
    torch.testing.assert_close(together, alone, atol=2e-2, rtol=0)


def test_the_id_in_a_padded_place_is_not_read(tiny):
    classifier, ids = tiny
    assert torch.equal(ask(classifier, ids, stray=1), ask(classifier, ids, stray=9))


def test_stored_states_give_the_logits_of_the_ids(tiny):
    classifier, ids = tiny
    row = torch.tensor([ids[1]])
    mask, index = torch.ones_like(row), torch.zeros(1, dtype=torch.long)
    states = classifier.encoder(row, mask)
    from_states = classifier(states=states, attention_mask=mask, text_index=index, num_texts=1)
    from_ids = classifier(input_ids=row, attention_mask=mask, text_index=index, num_texts=1)
    assert torch.equal(from_states.logits, from_ids.logits)
    half = classifier(states=states.half(), attention_mask=mask, text_index=index, num_texts=1)
    torch.testing.assert_close(half.logits, from_ids.logits, atol=5e-3, rtol=0)


def test_a_temperature_divides_logits_in_eval_mode_alone_and_changes_no_label(make, head_name):
    windows = make.windows([[3, 2], [5], [1]])
    classifier = make.classifier(head_name, dropout=0.0)
    with torch.no_grad():
        cold = {mode: windows.classify(classifier.train(mode)) for mode in (True, False)}
        classifier.temperature = 4.0
        warm = {mode: windows.classify(classifier.train(mode)) for mode in (True, False)}
    torch.testing.assert_close(warm[True].logits, cold[True].logits)
    torch.testing.assert_close(warm[False].logits, cold[False].logits / 4.0)
    assert torch.equal(warm[False].logits.argmax(-1), cold[False].logits.argmax(-1))
    assert torch.equal(warm[False].attention, cold[False].attention)
