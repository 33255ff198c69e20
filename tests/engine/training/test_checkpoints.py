"""Checkpoints of a run: the last and the best stay, and a stop loses nothing."""

from __future__ import annotations

import pytest
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.engine.training import checkpoints as files
from sentiment_hybrid.engine.training.checkpoints import RunCheckpoints, TrainerState
from sentiment_hybrid.errors import ModelError, OutputError


def snapshot(step: int) -> TrainerState:
    return TrainerState({"model.w": torch.full((3,), float(step))}, {"global_step": step, "epoch": 1})


def test_checkpoints_keep_the_last_and_the_best_and_nothing_else(tmp_path):
    checkpoints = RunCheckpoints(tmp_path / "checkpoints")
    for step, is_best in [(1, True), (2, True), (3, False), (4, False)]:
        checkpoints.save(snapshot(step), is_best=is_best)
    assert checkpoints.load("best").progress["global_step"] == 2
    assert checkpoints.load("last").progress["global_step"] == 4
    assert torch.equal(checkpoints.load("last").tensors["model.w"], torch.full((3,), 4.0))
    assert len([p for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]) == 2


def test_a_failed_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints = RunCheckpoints(tmp_path / "checkpoints")
    checkpoints.save(snapshot(1), is_best=True)

    def full(path, document):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(OutputError, match="the disk is full"):
        checkpoints.save(snapshot(2))
    monkeypatch.undo()
    assert checkpoints.load("last").progress["global_step"] == 1


def test_a_checkpoint_that_is_not_there_or_damaged_is_reported(tmp_path):
    checkpoints = RunCheckpoints(tmp_path / "checkpoints")
    with pytest.raises(ModelError, match="no last checkpoint"):
        checkpoints.load("last")
    checkpoints.save(snapshot(1))
    folder = tmp_path / "checkpoints" / checkpoints.pointers()["last"]
    (folder / paths.CHECKPOINT_STATE).write_bytes(b"junk")
    with pytest.raises(ModelError, match="damaged"):
        checkpoints.load("last")
