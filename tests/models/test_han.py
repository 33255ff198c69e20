"""What the hierarchy promises: windows start as equals, and saying it five times does not change what is said."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_windows_of_a_text_start_with_equal_weights(make, cell):
    classifier = make.classifier("han", cell=cell)
    windows = make.windows([[5, 2, 7], [4], [1, 3]])
    attention = windows.classify(classifier.eval()).attention
    torch.testing.assert_close(attention[0, :5].sum(), torch.tensor(1 / 3))
    torch.testing.assert_close(attention[0, 5:7].sum(), torch.tensor(1 / 3))
    torch.testing.assert_close(attention[2, :1].sum(), torch.tensor(1 / 2))


def repeated(windows, times):
    """Every one-window text of the batch, said several times over."""
    return type(windows)(
        windows.states.repeat_interleave(times, 0),
        windows.mask.repeat_interleave(times, 0),
        windows.text_index.repeat_interleave(times),
        windows.num_texts,
    )


def toy(make, seed, rows=200):
    """Texts of one window in which a few tokens out of many carry the label."""
    windows = make.windows([[4 + row % 6] for row in range(rows)], seed=seed)
    labels = torch.arange(rows) % 2
    windows.states[:, 1, 0] += 4.0 * (2 * labels - 1)
    windows.states[:, 3, 1] += 4.0 * (2 * labels - 1)
    return windows, labels


def trained(make, cell="gru"):
    """A head that has learned the toy task from texts of one window."""
    classifier = make.classifier("han", num_classes=2, cell=cell, layers=1)
    windows, labels = toy(make, seed=1)
    optimizer = torch.optim.AdamW(classifier.train().parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(windows.classify(classifier).logits, labels).backward()
        optimizer.step()
    return classifier.eval()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_text_said_five_times_keeps_its_label(make, cell):
    classifier = trained(make, cell)
    unseen, truth = toy(make, seed=2)
    with torch.no_grad():
        once = unseen.classify(classifier).logits.softmax(1)
        five_times = repeated(unseen, 5).classify(classifier).logits.softmax(1)
    assert (once.argmax(1) == truth).float().mean() > 0.9
    kept = once.argmax(1) == five_times.argmax(1)
    # The second level reads the windows in order, so a text on the fence may fall to the other side; no other may.
    assert kept[once.amax(1) > 0.7].all()
    assert kept.float().mean() >= 0.98


def test_the_words_that_carry_the_label_draw_attention(make):
    windows, _ = toy(make, seed=1)
    attention = windows.classify(trained(make)).attention
    share = attention[:, [1, 3]].sum(1).mean()
    even = (2 / windows.mask.sum(1)).mean()
    assert share > even
