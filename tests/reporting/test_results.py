"""The results file only grows: across processes, kills, damage and values that JSON does not know."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.reporting.results import append_result, read_results

APPEND_MANY = """
import sys
from pathlib import Path
from sentiment_hybrid.reporting.results import append_result
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])):
    append_result(Path(sys.argv[1]), {"worker": sys.argv[2], "number": i, "filler": "x" * 2000})
"""


def start_appender(path: Path, worker: str, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPEND_MANY, str(path), worker, str(number)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def test_entries_come_back_in_the_order_they_were_added(tmp_path: Path) -> None:
    path = tmp_path / "results" / "model_results.json"
    assert read_results(path) == []
    for i in range(3):
        append_result(path, {"model": "LSTMRoBERTa_Train", "number": i})
    assert [entry["number"] for entry in read_results(path)] == [0, 1, 2]
    assert not list(path.parent.glob("*.tmp"))


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    processes = [start_appender(path, str(i), 15) for i in range(4)]
    for process in processes:
        go(process)
    for process in processes:
        assert process.wait(timeout=60) == 0
        close(process)
    found = {(entry["worker"], entry["number"]) for entry in read_results(path)}
    assert found == {(str(worker), number) for worker in range(4) for number in range(15)}


def test_a_kill_while_appending_leaves_a_whole_list_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    kept = 0
    for attempt in range(4):
        process = start_appender(path, str(attempt), 100_000)
        go(process)
        while len(_numbers(path, attempt)) < 3 + attempt:
            assert process.poll() is None
        process.kill()
        process.wait(timeout=30)
        close(process)
        numbers = _numbers(path, attempt)
        assert numbers == list(range(len(numbers)))
        entries = len(read_results(path))
        assert entries >= kept + len(numbers)
        append_result(path, {"worker": "after", "number": attempt})
        kept = entries + 1
    assert len(read_results(path)) == kept


def _numbers(path: Path, worker: int) -> list[int]:
    return [entry["number"] for entry in read_results(path) if entry["worker"] == str(worker)]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", []),
        (b"[{", []),
        (b'{"a": 1}', []),
        (b"\xff\xfe\x00", []),
        (b"null", []),
        (b"[" * 100_000, []),
        (b'[{"a": 1}', [{"a": 1}]),
        (b'[{"a": 1},\n {"b": [2', [{"a": 1}]),
        (b'[{"a": 1}]]', [{"a": 1}]),
        (b'[1, {"a": 1}, 2, {"b": 2}]', [{"a": 1}, {"b": 2}]),
        (b'[{"a": NaN}, {"b": [-Infinity, 2]}]', [{"a": None}, {"b": [None, 2]}]),
        (b'\xef\xbb\xbf[{"a": 1}]', [{"a": 1}]),
        (b'[{"a": "\xff"}]', [{"a": "\ufffd"}]),
    ],
)
def test_what_can_be_read_of_a_damaged_file_stays_in_the_list_and_a_copy_is_named(
    tmp_path: Path, content: bytes, kept: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model_results.json"
    path.write_bytes(content)
    append_result(path, {"number": 1})
    (aside,) = tmp_path.glob("model_results.damaged-*.json")
    assert aside.read_bytes() == content and str(aside) in caplog.text
    assert read_results(path) == [*kept, {"number": 1}]
    append_result(path, {"number": 2})
    assert len(list(tmp_path.glob("*.json"))) == 2, "the list is whole again"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_any_damage_leaves_a_list_that_goes_on_growing(tmp_path: Path, place: int, byte: int, cut: bool) -> None:
    content = json.dumps([{"name": "a", "n": [1, 2.5, None]}, {"name": "é", "of": {"x": "y"}}], indent=2).encode()
    place %= len(content)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    path = folder / "model_results.json"
    path.write_bytes(content[:place] if cut else content[:place] + bytes([byte]) + content[place + 1 :])
    append_result(path, {"number": 1})
    assert read_results(path)[-1] == {"number": 1}


def test_two_damages_in_one_second_keep_both_files(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    for content in ("first", "second", "third"):
        path.write_text(content)
        append_result(path, {})
    asides = list(tmp_path.glob("model_results.damaged-*.json"))
    assert {aside.read_text() for aside in asides} == {"first", "second", "third"}


def test_reading_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    path.write_text("[{")
    with pytest.raises(OutputError, match=r"model_results\.json is damaged") as caught:
        read_results(path)
    assert caught.value.hint


def test_values_that_json_does_not_know_become_plain_ones(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    entry = {
        "nan": math.nan,
        "infinite": [math.inf, 1.5],
        "numpy": np.float32(0.5),
        "numpy nan": np.float64("nan"),
        "array": np.array([[1, 2]]),
        "flag": np.True_,
        "path": Path("a") / "b",
        "label 😀 \ud800": "café \ud800",
        3: (True, None),
    }
    append_result(path, entry)
    content = path.read_text(encoding="utf-8")
    assert "NaN" not in content and "Infinity" not in content
    assert read_results(path) == [
        {
            "nan": None,
            "infinite": [None, 1.5],
            "numpy": 0.5,
            "numpy nan": None,
            "array": [[1, 2]],
            "flag": True,
            "path": str(Path("a") / "b"),
            "label 😀 \\ud800": "café \\ud800",
            "3": [True, None],
        }
    ]


def test_a_folder_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file is in the way")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        append_result(tmp_path / "results" / "model_results.json", {})
    assert "paths.results_dir" in caught.value.hint


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be"):
        append_result(path, {})
    with pytest.raises(OutputError, match="cannot be read"):
        read_results(path)


def test_a_full_disk_keeps_the_old_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model_results.json"
    append_result(path, {"number": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        append_result(path, {"number": 2})
    assert read_results(path) == [{"number": 1}]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_lock_that_is_never_freed_is_an_error_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    path = tmp_path / "model_results.json"
    monkeypatch.setattr("sentiment_hybrid.reporting.results.LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".model_results.json.append.lock"), pytest.raises(OutputError, match="locked by another"):
        append_result(path, {})


def test_the_file_is_readable_json_with_the_entry_spelled_out(tmp_path: Path) -> None:
    path = tmp_path / "model_results.json"
    append_result(path, {"model": "HANRoBERTa_Train", "note": "schön"})
    assert "schön" in path.read_text(encoding="utf-8")
    assert isinstance(json.loads(path.read_text(encoding="utf-8")), list)
