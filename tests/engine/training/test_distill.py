"""The loss of distillation, and the answers of teachers on the disk."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Distill
from sentiment_hybrid.engine.training.distill import TeacherTargets, distillation_loss, state_loss, targets_from
from sentiment_hybrid.engine.training.teacher_cache import TeacherCache, count_texts, text_keys

THREE_LOGITS = st.tuples(*[st.floats(-6, 6)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    student=THREE_LOGITS, teacher=THREE_LOGITS, temperature=st.sampled_from([1.0, 2.0, 5.0]),
    weight=st.sampled_from([0.0, 0.3, 1.0]), target=st.integers(-1, 2),
)  # fmt: skip
def test_a_row_mixes_both_losses_as_hinton_does(
    student: tuple[float, ...], teacher: tuple[float, ...], temperature: float, weight: float, target: int
) -> None:
    logits, wanted = (torch.tensor([values], dtype=torch.float64) for values in (student, teacher))
    given_targets = TeacherTargets(np.arange(1), wanted.softmax(-1).numpy().astype(np.float32), None)
    soft = given_targets.soften(temperature)
    targets = torch.tensor([target])
    hard = F.cross_entropy(logits, targets.clamp(min=0), reduction="none")
    found = distillation_loss(
        hard, logits, targets, torch.from_numpy(soft), Distill(temperature=temperature, weight=weight)
    )
    q, p = (wanted / temperature).softmax(-1), (logits / temperature).softmax(-1)
    divergence = float((q * (q / p).log()).sum()) * temperature**2
    share = 1.0 if target < 0 else weight
    assert float(found[0]) == pytest.approx((1 - share) * float(hard[0]) + share * divergence, abs=2e-4)


def test_it_is_least_where_student_and_teacher_agree_and_a_row_without_an_answer_has_its_label_alone() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0]], requires_grad=True)
    soft = torch.cat([(logits[:1].detach() / 2).softmax(-1), torch.full((1, 3), torch.nan)])
    hard = F.cross_entropy(logits, torch.tensor([1, 1]), reduction="none")
    losses = distillation_loss(hard, logits, torch.tensor([-1, 1]), soft, Distill(weight=0.9))
    losses.sum().backward()
    assert float(losses[0].detach()) == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0], torch.zeros(3), atol=1e-6)
    assert float(losses[1].detach()) == pytest.approx(float(hard[1].detach()))


def test_the_loss_is_finite_for_probabilities_of_0() -> None:
    soft = TeacherTargets(np.arange(1), np.array([[1.0, 0.0]], dtype=np.float32), None).soften(3.0)
    logits = torch.tensor([[50.0, -80.0]])
    loss = distillation_loss(torch.zeros(1), logits, torch.tensor([-1]), torch.from_numpy(soft), Distill())
    assert float(loss) == pytest.approx(0.0, abs=1e-4)


def test_states_cost_their_mean_squared_distance() -> None:
    assert state_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]], dtype=torch.float16)).tolist() == [2.5]


def test_rows_without_label_and_prediction_are_left_out() -> None:
    class Rows:
        labels = np.array([-1, -1, 1])

    half = np.array([[0.5, 0.5], [np.nan] * 2, [np.nan] * 2], dtype=np.float32)
    assert targets_from("half", (half, None), Rows()).kept.tolist() == [0, 2]  # type: ignore[arg-type]


# --- on the disk


def kept(folder: Path, texts: list[str], *, states: int | None = None) -> np.ndarray:
    random = np.random.default_rng(len(texts))
    probabilities = random.dirichlet(np.ones(3), len(texts)).astype(np.float32)
    array = None if states is None else random.random((len(texts), states)).astype(np.float16)
    TeacherCache(folder, 3).add(text_keys(texts), probabilities, array, teacher="t")
    return probabilities


def test_answers_are_found_by_text_in_any_order_and_number_of_chunks(tmp_path: Path) -> None:
    first, second = kept(tmp_path, ["a", "b", "c"]), kept(tmp_path, ["d", "é"])
    found, states = TeacherCache(tmp_path, 3).find(text_keys(["é", "x", "b", "a"]), states=False)
    np.testing.assert_array_equal(found[[0, 2, 3]], [second[1], first[1], first[0]])
    assert np.isnan(found[1]).all()
    assert states is None
    assert count_texts(tmp_path) == 5


def test_answers_without_states_are_missing_where_states_are_wanted(tmp_path: Path) -> None:
    kept(tmp_path, ["a", "b"])
    kept(tmp_path, ["b", "c", "d"], states=4)
    found, states = TeacherCache(tmp_path, 3).find(text_keys(["a", "b", "c"]), states=True)
    assert np.isnan(found).any(axis=1).tolist() == [True, False, False]
    assert states is not None
    assert states.shape == (3, 4)
    assert states.dtype == np.float16


@pytest.mark.parametrize("damage", ["cut", "gone", "other width", "no probabilities", "flipped bit", "absurd size"])
def test_a_damaged_chunk_is_removed_and_its_texts_are_missing(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path, ["a", "b"])
    (file,) = tmp_path.glob("chunk-*/probabilities.npy")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-3])
    elif damage == "flipped bit":
        content[-2] ^= 1
        file.write_bytes(content)
    elif damage == "absurd size":
        (file.parent / "sha256.json").unlink()
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)})
        file.write_bytes(header.getvalue() + bytes(24))
    elif damage == "gone":
        file.unlink()
    else:
        np.save(file, np.zeros((2, 2 if damage == "other width" else 3), dtype=np.float32))
    whole = kept(tmp_path, ["c"])
    found, _ = TeacherCache(tmp_path, 3).find(text_keys(["a", "c"]), states=False)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], whole[0])
    assert damage == "gone" or "is damaged" in caplog.text


#: Stores predictions, but ends, as by kill -9, when the chunk is to get its name.
_KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from sentiment_hybrid.engine.training.teacher_cache import TeacherCache, text_keys
real = Path.rename
Path.rename = lambda self, to: os._exit(9) if self.name.endswith(".partial") else real(self, to)
answers = np.full((1, 3), 1 / 3, dtype=np.float32)
TeacherCache(Path(sys.argv[1]), 3).add(text_keys(["z"]), answers, None, teacher="t")
"""


def test_predictions_whose_storing_was_killed_are_missing_and_leave_nothing(tmp_path: Path) -> None:
    whole = kept(tmp_path, ["a"])
    assert subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False).returncode == 9
    assert len(list(tmp_path.glob(".chunk-*.partial"))) == 1
    found, _ = TeacherCache(tmp_path, 3).find(text_keys(["a", "z"]), states=False)
    np.testing.assert_array_equal(found[0], whole[0])
    assert np.isnan(found[1]).all()
    assert not list(tmp_path.glob(".chunk-*"))


def test_a_low_temperature_keeps_the_probabilities_above_0() -> None:
    given = np.array([[0.34, 0.33, 0.33], [np.nan] * 3], dtype=np.float32)
    soft = TeacherTargets(np.arange(2), given, None).soften(0.005)
    np.testing.assert_allclose(soft[0].sum(), 1.0, rtol=1e-6)
    assert soft[0, 0] > 0.99
    assert np.isnan(soft[1]).all(), "a row without an answer stays without"
