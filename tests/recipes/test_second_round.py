"""What the second teacher and the second student learn from, and the mean of two packs."""

from __future__ import annotations

import json
from pathlib import Path

import mean
import numpy as np
import pytest
import teachers
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

SHARES = st.tuples(*[st.floats(0.01, 1.0)] * 3).map(lambda some: [one / sum(some) for one in some])


def answers(path: Path, found: dict[str, list[float]]) -> Path:
    rows = [
        {"text": text, **{f"p_{c}": p for c, p in zip(teachers.LABELS, ps, strict=True)}} for text, ps in found.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@given(one=SHARES, other=SHARES)
def test_a_text_gets_the_mean_answer_and_an_emoticon_makes_its_label_likelier(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("answers")
    files = [answers(folder / name, {"plain": p, "tweet :)": p}) for name, p in (("a", one), ("b", other))]
    blended = teachers.blended(files, {"tweet :)": "positive", "unanswered :(": "negative"})
    np.testing.assert_allclose(blended["plain"], np.mean([one, other], axis=0))
    assert blended.keys() == {"plain", "tweet :)"}
    assert blended["tweet :)"].sum() == pytest.approx(1.0)
    assert blended["tweet :)"][2] > blended["plain"][2]
    assert blended["tweet :)"][0] < blended["plain"][0]


def test_a_text_that_one_of_the_models_saw_twice_counts_once(tmp_path: Path):
    twice = answers(tmp_path / "a", {"text": [1.0, 0.0, 0.0]})
    twice.write_text(twice.read_text() * 2)
    blended = teachers.blended([twice, answers(tmp_path / "b", {"text": [0.0, 0.0, 1.0]})], {})
    np.testing.assert_allclose(blended["text"], [0.5, 0.0, 0.5])


def test_rows_keep_quotation_marks(tmp_path: Path):
    (tmp_path / "rows.tsv").write_text('text\tlabel\tset\n"quoted" \tpositive\tx\n', encoding="utf-8")
    assert teachers.rows(tmp_path / "rows.tsv") == [['"quoted" ', "positive", "x"]]


def test_averaged_weights_keep_their_precision_and_share(tmp_path: Path):
    for name, value in (("first", 1.0), ("second", 2.0)):
        tensors = {"weight": torch.full((2, 3), value, dtype=torch.float16), "count": torch.tensor([int(value)])}
        save_file(tensors, tmp_path / name, metadata={"format": "pt"})
    mean.average(tmp_path / "first", tmp_path / "second", 0.75)
    found = load_file(tmp_path / "second")
    assert torch.equal(found["weight"], torch.full((2, 3), 1.75, dtype=torch.float16))
    assert found["count"].item() == 2
