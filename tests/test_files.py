"""Files are whole or not there, and a failed write is reported in the user's words."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sentiment_hybrid import files
from sentiment_hybrid.errors import OutputError


def test_a_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write x\.bin: the disk is full") as caught, files.written("x.bin"):
        raise OSError(28, "No space left on device")
    assert caught.value.hint == "Free some disk space, or choose another directory."


@pytest.mark.parametrize(
    ("number", "reason", "hint"),
    [
        (errno.EDQUOT, "the disk quota is used up", "Free some disk space, or choose another directory."),
        (errno.EACCES, "Permission denied", "Change the permissions, or choose another directory."),
        (errno.EROFS, "Read-only file system", "Choose another directory."),
        (errno.ENAMETOOLONG, "File name too long", "Choose another directory."),
        (errno.EIO, "Input/output error", "Choose another directory."),
    ],
)
def test_the_hint_of_a_failed_write_fits_its_reason(number: int, reason: str, hint: str) -> None:
    for error in (OSError(number, os.strerror(number)), RuntimeError(f"I/O error: x (os error {number})")):
        assert files.remedy(error) == hint
    with pytest.raises(OutputError, match=reason) as caught, files.written("x.bin"):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint == hint


def test_weights_that_do_not_fit_on_the_disk_are_reported_as_such() -> None:
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


#: Ends at once, as by kill -9, when the first argument's file or folder is half written or half put in place.
_KILLED = """
import os, sys
from pathlib import Path
from sentiment_hybrid import files
path, moment = Path(sys.argv[1]), sys.argv[2]
if moment == "renamed":
    real = Path.rename
    Path.rename = lambda self, to: os._exit(9) if self.name.endswith(".partial") else real(self, to)
with (files.atomic_dir if sys.argv[3] == "dir" else files.atomic_file)(path) as aside:
    (aside / "new" if sys.argv[3] == "dir" else aside).write_text("new")
    if moment == "written":
        os._exit(9)
"""


def killed(path: Path, moment: str, kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path), moment, kind], check=False)
    assert done.returncode == 9


@contextmanager
def written_by_another(path: Path) -> Iterator[None]:
    """Within the block, another process has the lock of ``path``."""
    code = "import sys; from pathlib import Path; from sentiment_hybrid.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print(flush=True), sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.communicate()


@pytest.mark.parametrize("name", ["plain", "with [a] and *?"])
def test_what_a_killed_writer_left_is_shown_and_goes_with_the_next_write(tmp_path: Path, name: str) -> None:
    path, beside = tmp_path / name, tmp_path / f".x{name}.0123abcd.partial"
    beside.write_text("another's", encoding="utf-8")
    killed(path, "written", "file")
    assert [found.name.startswith(f".{name}.") for found in files.leftovers(tmp_path)].count(True) == 1
    with files.atomic_file(path) as aside:
        aside.write_text("next", encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == sorted([path, beside])


def test_a_partial_file_of_a_living_process_is_no_leftover_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    partial = tmp_path / ".o.csv.0123abcd.partial"
    with written_by_another(path):
        partial.write_text("half", encoding="utf-8")
        assert files.leftovers(tmp_path) == []
        with (
            pytest.raises(OutputError, match=r"another process is writing .*o\.csv"),
            files.atomic_file(path, wait=False),
        ):
            pass
        assert partial.is_file()
    assert files.leftovers(tmp_path) == [partial]


@pytest.mark.parametrize("write", [files.atomic_file, files.atomic_dir])
def test_several_writers_of_one_name_come_one_after_the_other(tmp_path: Path, write: Callable[..., object]) -> None:
    code = (
        "import sys; from pathlib import Path; from sentiment_hybrid import files\n"
        "for turn in range(20):\n"
        f"    with files.{write.__name__}(Path(sys.argv[1])) as aside:\n"
        "        (aside / 'x' if aside.is_dir() else aside).write_text(sys.argv[2])\n"
    )
    path = tmp_path / "one"
    run = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen([*run, str(number)], stderr=subprocess.PIPE) for number in range(3)]
    said = [process.communicate()[1] for process in processes]
    assert said == [b""] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_replacement_was_killed_between_two_renames_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with files.atomic_dir(path) as aside:
        (aside / "old").touch()
    killed(path, "renamed", "dir")
    assert not path.exists()
    assert tmp_path / ".model.old" not in files.leftovers(tmp_path), "it is the only one"
    assert (files.recover(path) / "old").is_file()
    killed(path, "renamed", "dir")
    assert (files.recover(path / "old")).is_file(), "the folder that it is in is recovered, too"
    with files.atomic_dir(path) as aside:
        (aside / "new").touch()
    assert [place.name for place in (*tmp_path.iterdir(), *path.iterdir())] == ["model", "new"]


def test_where_the_file_system_has_no_locks_nothing_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_lock", lambda descriptor, *, wait: False)
    partial = tmp_path / ".o.csv.0123abcd.partial"
    partial.touch()
    files.replace_json(tmp_path / "o.csv", {"written": "all the same"})
    assert files.leftovers(tmp_path) == []
    assert partial.is_file()
    assert (tmp_path / "o.csv").is_file()
