"""One suite that every registered head runs through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

TEXTS = [[5], [3, 6, 2], [1], [4, 4]]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}


def logits_of(classifier, windows):
    with torch.no_grad():
        return windows.classify(classifier.eval()).logits


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("junk", [0.0, 50.0, float("nan")], ids=["zero", "junk", "nan"])
@pytest.mark.parametrize("texts", [TEXTS, [[5], [2], [7]]], ids=["windows", "single"])
def test_padded_columns_change_no_logit(head_name, make, dtype, junk, texts):
    classifier = make.classifier(head_name)
    bare = logits_of(classifier, make.windows(texts, junk=0.0).like(dtype))
    padded = logits_of(classifier, make.windows(texts, extra=9, junk=junk).like(dtype))
    torch.testing.assert_close(padded, bare, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("mates", [[[12]], [[2, 9, 9, 9]], [[1], [1, 1, 1, 1, 1, 1]]])
def test_longer_texts_in_the_batch_change_no_logit(head_name, make, mates):
    classifier = make.classifier(head_name)
    alone = logits_of(classifier, make.windows([[5], [3, 6, 2]]))
    together = logits_of(classifier, make.windows([[5], [3, 6, 2], *mates]))
    torch.testing.assert_close(together[:2], alone, atol=1e-5, rtol=0)


def test_a_one_window_text_has_the_same_logits_beside_texts_of_several_windows(head_name, make):
    classifier = make.classifier(head_name)
    alone = logits_of(classifier, make.windows([[5], [3]]))
    together = logits_of(classifier, make.windows([[5], [3], [6, 2]]))
    torch.testing.assert_close(together[:2], alone, atol=1e-5, rtol=0)


def test_windows_of_padding_alone_change_no_logit(head_name, make):
    classifier = make.classifier(head_name)
    full = logits_of(classifier, make.windows([[5, 4], [3]]))
    with_empty = make.windows([[5, 4, 0], [3]])
    # The third window is empty; the fourth must hold the states that the third held before.
    with_empty.states[3] = make.windows([[5, 4], [3]]).states[2]
    torch.testing.assert_close(logits_of(classifier, with_empty), full, atol=1e-5, rtol=0)


def test_a_text_without_any_token_gives_finite_logits_and_gradients(head_name, make):
    classifier = make.classifier(head_name)
    windows = make.windows([[0], [3], [0, 0]], extra=2)
    logits = windows.classify(classifier).logits
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in classifier.parameters())
    attention = windows.classify(classifier.eval()).attention
    assert attention.sum(1).tolist() == pytest.approx([0, 1, 0], abs=1e-5)


def test_the_order_of_texts_is_irrelevant(head_name, make):
    classifier = make.classifier(head_name)
    windows = make.windows([[5], [3], [7], [2]])
    order = torch.tensor([2, 0, 3, 1])
    shuffled = type(windows)(windows.states[order], windows.mask[order], torch.arange(4), 4)
    expected = logits_of(classifier, windows)[order]
    torch.testing.assert_close(logits_of(classifier, shuffled), expected, atol=1e-5, rtol=0)


def test_what_a_later_window_says_changes_the_logits(head_name, make):
    classifier = make.classifier(head_name)
    windows = make.windows([[5, 4, 3], [4]])
    before = logits_of(classifier, windows)
    windows.states[2, :3] += 1.5 * torch.randn(3, make.size, generator=torch.Generator().manual_seed(1))
    after = logits_of(classifier, windows)
    assert (after[0] - before[0]).abs().max() > 1e-4
    torch.testing.assert_close(after[1], before[1], atol=1e-6, rtol=0)


def test_every_parameter_learns(head_name, make):
    classifier = make.classifier(head_name, dropout=0.0)
    windows, labels = make.windows(TEXTS), torch.tensor([0, 1, 2, 1])
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    for _ in range(2):  # what starts at zero may keep the layer behind it from a gradient, for one step
        optimizer.zero_grad()
        F.cross_entropy(windows.classify(classifier).logits, labels).backward()
        optimizer.step()
    silent = [name for name, value in classifier.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_one_window_texts_give_every_parameter_a_gradient_tensor(head_name, make):
    classifier = make.classifier(head_name)
    make.windows([[5], [3]]).classify(classifier).logits.sum().backward()
    assert [name for name, value in classifier.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("texts", [TEXTS, [[5], [3]], [[300, 300], [7]]], ids=["windows", "single", "long"])
def test_attention_sums_to_one_over_real_tokens_and_is_zero_on_padding(head_name, make, texts):
    windows = make.windows(texts, extra=4)
    attention = windows.classify(make.classifier(head_name).eval()).attention
    tokens = torch.tensor([sum(lengths) for lengths in texts])
    real = torch.arange(int(tokens.max())) < tokens[:, None]
    assert attention.shape == real.shape
    assert not attention.requires_grad
    torch.testing.assert_close(attention.sum(1), torch.ones(len(texts)), atol=1e-4, rtol=0)
    assert (attention[real] > 0).all()
    assert not attention[~real].any()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_there_is_a_logit_per_class(head_name, make, num_classes):
    output = make.windows(TEXTS).classify(make.classifier(head_name, num_classes=num_classes))
    assert output.logits.shape == (len(TEXTS), num_classes)
    assert output.logits.dtype == output.attention.dtype == torch.float32


def test_a_separable_task_is_learned(head_name, make):
    classifier = make.classifier(head_name, dropout=0.1)
    windows = make.windows([[4 + row % 5] * (1 + row % 2) for row in range(40)])
    labels = torch.arange(40) % 3
    windows.states[:, :, 0] += 2.0 * (labels[windows.text_index].float() - 1)[:, None]
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(windows.classify(classifier.train()).logits, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (logits_of(classifier, windows).argmax(1) == labels).float().mean() >= 0.9


def test_saved_and_loaded_weights_give_the_same_logits(head_name, make, tmp_path: Path):
    first, second = make.classifier(head_name), make.classifier(head_name)
    for parameter in second.parameters():
        torch.nn.init.normal_(parameter)
    windows = make.windows(TEXTS)
    save_file(first.state_dict(), tmp_path / "head.safetensors")
    second.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(logits_of(first, windows), logits_of(second, windows))


@pytest.mark.processor
def test_the_head_predicts_in_float32_on_a_cpu_whatever_autocast_says(head_name, make):
    classifier = make.classifier(head_name).eval()
    windows = make.windows(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = logits_of(classifier, windows)
    assert torch.equal(inside, logits_of(classifier, windows))


def test_the_same_seed_gives_the_same_weights(head_name, make):
    first, second = make.classifier(head_name), make.classifier(head_name)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_fresh_output_layer_leaves_all_else_as_it_was(head_name, make):
    from sentiment_hybrid.models import renew_output

    classifier = make.classifier(head_name)
    head, before = classifier.head, {name: value.clone() for name, value in classifier.head.state_dict().items()}
    old_classes = logits_of(classifier, make.windows([[5], [3]])).shape[1]
    renew_output(head, old_classes)
    after = head.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 2, "a weight and a bias"
    assert {after[name].shape[0] for name in changed} == {old_classes}
    renew_output(head, 7)
    assert logits_of(classifier, make.windows([[5], [3]])).shape == (2, 7)
