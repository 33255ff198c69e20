"""`senthy data`: builds once, warns, and survives being killed at any moment."""

from __future__ import annotations

import csv
import random
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid.commands import data as command
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.sources import fast_csv
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.errors import DatabaseError, DataError, LockedError, SourceError

ALL = ("train", "valid", "test")


def write(path: Path, count: int, *, first: int = 0) -> Path:
    draw = random.Random(0)
    words = ["film", "was", "not", "so", "good", "but", "I", "did", "enjoy", "every", "bad", "minute", "@anna"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for number in range(first, first + count):
            writer.writerow((f"{' '.join(draw.choices(words, k=12))} {number}", number % 2))
    return path


def config(tmp_path: Path, source: Path | str, **settings: Any) -> Config:
    flags = {"data.source": str(source), "paths.data_db": tmp_path / "db" / "tweets.db"}
    return load_config(None, flags=flags | {f"data.{key}": value for key, value in settings.items()})


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    made = config(tmp_path, write(tmp_path / "rows.csv", 300))
    first = command.run(made)
    stamp = first.path.stat().st_mtime_ns
    second = command.run(made)
    assert first.built
    assert not second.built
    assert second.path.stat().st_mtime_ns == stamp
    assert (second.fingerprint, second.report, second.labels, second.source) == (
        first.fingerprint, first.report, first.labels, first.source,
    )  # fmt: skip


def test_refresh_builds_anew_and_gives_the_same(tmp_path: Path) -> None:
    made = config(tmp_path, write(tmp_path / "rows.csv", 300))
    first = command.run(made)
    content = first.path.read_bytes()
    assert command.run(made, refresh=True).built
    assert first.path.read_bytes() == content


@pytest.mark.parametrize("change", [{"split_seed": 3}, {"normalizer": "none"}, {"repeats": "keep"}])
def test_another_setting_builds_anew(change: dict[str, Any], tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", 300)
    first = command.run(config(tmp_path, rows))
    second = command.run(config(tmp_path, rows, **change))
    assert second.built
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize(("version", "key"), [(1, 1), (2, 2)])
def test_a_database_of_older_versions_is_kept_until_it_is_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: int, key: int
) -> None:
    rows = write(tmp_path / "rows.csv", 300)
    with monkeypatch.context() as patch:
        patch.setattr(normalizers, "get_normalizer", lambda name: normalizers.from_id(f"{name}@{version}"))
        first = command.run(config(tmp_path, rows, split_key_version=key))
    capsys.readouterr()
    kept = command.run(config(tmp_path, rows))
    assert not kept.built
    assert f"keeps its normalizer, tweet@{version}," in " ".join(capsys.readouterr().err.split())
    with open_store(kept.path) as store:
        assert (store.normalizer, store.split_keys["split_key_version"]) == (f"tweet@{version}", key)
    renewed = command.run(config(tmp_path, rows), refresh=True)
    assert renewed.fingerprint != first.fingerprint
    with open_store(renewed.path) as store:
        assert (store.normalizer, store.split_keys["split_key_version"]) == ("tweet@3", 2)


def test_a_database_of_a_normalizer_that_is_not_known_is_prepared_again(tmp_path: Path) -> None:
    settings = config(tmp_path, write(tmp_path / "rows.csv", 300))
    made = command.run(settings)
    with sqlite3.connect(made.path) as connection:
        changed = "value = json_set(value, '$.normalizer', 'tweet@99', '$.fingerprint', 'of a later version')"
        connection.execute(f"UPDATE meta SET {changed} WHERE key = 'info'")
        connection.execute("DELETE FROM meta WHERE key = 'checksums'")
    connection.close()
    again = command.run(settings)
    assert (again.built, again.normalizer, again.fingerprint) == (True, made.normalizer, made.fingerprint)


def test_a_database_written_before_there_was_another_split_key_has_version_1(tmp_path: Path) -> None:
    made = command.run(config(tmp_path, write(tmp_path / "rows.csv", 300), split_key_version=1))
    with sqlite3.connect(made.path) as connection:
        connection.execute("UPDATE meta SET value = json_remove(value, '$.split_key_version') WHERE key = 'info'")
        connection.execute("DELETE FROM meta WHERE key = 'checksums'")
    connection.close()
    with open_store(made.path) as store:
        assert store.split_keys == {"split_seed": 0, "split_key_version": 1}


def test_texts_that_differ_behind_a_handle_are_no_conflict(shared: Path, tmp_path: Path) -> None:
    """Case 18: 400 rows of two labels, whose texts stand right behind a handle."""
    result = command.run(config(tmp_path, shared / "cases" / "18-cjk-handle.csv"))
    assert result.report["rows_kept"] == 400


def test_another_content_builds_anew(tmp_path: Path) -> None:
    made = config(tmp_path, write(tmp_path / "rows.csv", 300))
    command.run(made)
    write(tmp_path / "rows.csv", 301)
    result = command.run(made)
    assert result.built
    assert result.report["rows_read"] == 301


def test_a_damaged_database_is_built_anew_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = config(tmp_path, write(tmp_path / "rows.csv", 300))
    path = command.run(made).path
    path.write_bytes(path.read_bytes()[:-4096])
    assert command.run(made).built
    assert "rebuilding" in capsys.readouterr().err


def test_a_locked_database_is_reported_and_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentiment_hybrid.data.store.LOCK_SECONDS", 0.05)
    made = config(tmp_path, write(tmp_path / "rows.csv", 300))
    path = command.run(made).path
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    before = path.stat().st_ino
    for refresh in (False, True):
        with pytest.raises(LockedError, match="locked by another program") as caught:
            command.run(made, refresh=refresh)
        assert caught.value.hint
    other.close()
    assert path.stat().st_ino == before
    assert not command.run(made).built


def test_the_database_of_another_source_is_not_replaced_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write(tmp_path / "one.csv", 300), write(tmp_path / "two.csv", 310)
    command.run(config(tmp_path, first))
    assert "replace" not in capsys.readouterr().err
    command.run(config(tmp_path, second))
    told = capsys.readouterr().err
    assert (
        "contains one.csv, which two.csv will replace once it has been read (--set paths.data_db=FILE keeps both)"
        in told
    )
    command.run(config(tmp_path, second, split_seed=3))
    assert "a setting under `data`" in capsys.readouterr().err
    command.run(config(tmp_path, second, split_seed=3))
    assert capsys.readouterr().err == ""


def test_official_splits_come_from_three_sources(tmp_path: Path) -> None:
    sources = {
        f"data.{name}_source": str(write(tmp_path / f"{name}.csv", count, first=first))
        for name, count, first in (("train", 300, 0), ("valid", 30, 300), ("test", 40, 400))
    }
    result = command.run(load_config(None, flags=sources | {"paths.data_db": tmp_path / "t.db"}))
    with open_store(result.path) as store:
        assert [store.count(name) for name in ALL] == [300, 30, 40]  # type: ignore[arg-type]
    assert not command.run(load_config(None, flags=sources | {"paths.data_db": tmp_path / "t.db"})).built


def test_the_sample_is_prepared_offline(tmp_path: Path) -> None:
    result = command.run(config(tmp_path, "sample"), offline=True)
    assert result.source == "sample"
    assert result.labels == ("negative", "positive")
    assert result.report["warnings"] == []


def test_a_failed_run_loses_nothing(tmp_path: Path) -> None:
    path = command.run(config(tmp_path, write(tmp_path / "rows.csv", 300))).path
    content = path.read_bytes()
    with pytest.raises(SourceError):
        command.run(config(tmp_path, tmp_path / "missing.csv"))
    with pytest.raises(DataError):
        command.run(config(tmp_path, write(tmp_path / "few.csv", 2)))
    assert path.read_bytes() == content


def test_classic_offline_without_nltk_data_is_reported_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(DataError, match="nltk"):
        command.run(config(tmp_path, write(tmp_path / "rows.csv", 300), normalizer="classic"), offline=True)


def test_a_database_that_is_up_to_date_may_be_read_only(tmp_path: Path) -> None:
    made = config(tmp_path, write(tmp_path / "rows.csv", 300))
    path = command.run(made).path
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert not command.run(made).built
        with pytest.raises(DatabaseError, match="read-only"):
            command.run(made, refresh=True)
    finally:
        path.parent.chmod(0o755)


def test_a_warning_about_the_texts_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "rows.csv"
    lines = [f"film {number},{number % 2}" for number in range(900)]
    source.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    made = config(tmp_path, source)
    for _ in range(2):
        command.show(command.run(made))
        assert capsys.readouterr().err.count("negation") == 1


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The files are small for a test; so must be what is read at once, or the larger one alone would fill every buffer.
    monkeypatch.setattr(fast_csv, "BLOCK", 1 << 17)
    peaks, sizes = [], []
    for rows in (15_000, 60_000):
        source = tmp_path / f"{rows}.csv"
        with source.open("w", encoding="utf-8") as file:
            file.write("text,label\n")
            file.writelines(f"{'not a word ' * 40}{number},{number % 2}\n" for number in range(rows))
        sizes.append(source.stat().st_size)
        tracemalloc.start()
        command.run(config(tmp_path, source))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 3


RUN = """
import sys
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.commands.data import run
print("ready", flush=True)
run(load_config(None, [f"data.source={sys.argv[1]}", f"paths.data_db={sys.argv[2]}"]))
print("done", flush=True)
"""


def started(source: Path, target: Path) -> subprocess.Popen[str]:
    command_line = [sys.executable, "-c", RUN, str(source), str(target)]
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def rows_in(path: Path) -> int:
    with open_store(path) as store:
        return sum(len(store.read(name)) for name in ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize("interrupt", ["kill", "ctrl-c"])
def test_a_stopped_run_leaves_the_old_database_or_the_new_one(interrupt: str, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows knows neither of these signals for one process alone")
    target = tmp_path / "tweets.db"
    old, new = write(tmp_path / "old.csv", 300), write(tmp_path / "new.csv", 20_000, first=1000)
    assert started(old, target).wait(60) == 0
    clock = time.perf_counter()
    assert started(new, tmp_path / "other.db").wait(60) == 0
    whole = time.perf_counter() - clock
    draw = random.Random(interrupt)
    for _ in range(6):
        process = started(new, target)
        try:
            process.communicate(timeout=draw.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT if interrupt == "ctrl-c" else signal.SIGKILL)
            process.communicate()
        assert rows_in(target) in (300, 20_000)
        if interrupt == "ctrl-c":
            assert not list(tmp_path.glob(".tweets.db.*"))
    assert started(new, target).wait(60) == 0
    assert rows_in(target) == 20_000
    assert not list(tmp_path.glob(".tweets.db.*"))


def test_classes_stand_in_rows_where_columns_are_too_narrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    airlines = ("American", "Delta", "Southwest", "US Airways", "United", "Virgin America")
    path = tmp_path / "rows.csv"
    rows = [f"text number {number},{airlines[number % 6]}" for number in range(600)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    command.show(command.run(config(tmp_path, path)))
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert set(airlines) <= {cells[0].strip() for cells in shown}


def test_many_classes_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"text number {number},intent {number % 77}" for number in range(3850)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    command.show(command.run(config(tmp_path, path, max_labels=77)))
    said = capsys.readouterr().out
    assert "of 77 classes" in said
    assert "smallest class" in said
