"""Files are whole or not there, and a failed write is told in the user's words."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from sentiment_hybrid import files
from sentiment_hybrid.errors import OutputError


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write x\.bin: the disk is full") as caught, files.written("x.bin"):
        raise OSError(28, "No space left on device")
    assert caught.value.hint


def test_weights_that_do_not_fit_on_the_disk_are_told_as_such() -> None:
    from safetensors import SafetensorError

    # Its words, as they come on a disk that is full: it hands on the system's text and no number.
    words = f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"
    with pytest.raises(OutputError, match="cannot write m: the disk is full"), files.written("m"):
        raise SafetensorError(words)


def test_other_failures_keep_their_type() -> None:
    with pytest.raises(ZeroDivisionError), files.written("x.bin"):
        raise ZeroDivisionError


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as aside:
        aside.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_document_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "facts.json"
    for value in ("ä", "b"):
        files.replace_json(path, {"value": value})
        assert json.loads(path.read_text(encoding="utf-8")) == {"value": value}
    assert list(path.parent.iterdir()) == [path]
