"""The prepared database: what decides a row's split and place, what is left out, and what it refuses to open."""

from __future__ import annotations

import csv
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data import splits
from sentiment_hybrid.data.build import Part, Plan, build
from sentiment_hybrid.data.normalizers import get_normalizer
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.store import Examples, Store, open_store
from sentiment_hybrid.errors import DatabaseError, DataError, LabelError, OutputError, SourceError

ALL = ("train", "valid", "test")
Row = tuple[str, ...]


def write(path: Path, rows: Iterable[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(count: int = 300, *, positive: float = 0.5) -> list[Row]:
    draw = random.Random(0)
    words = ["film", "was", "not", "so", "good", "but", "I", "did", "enjoy", "every", "bad", "minute", "evening"]
    return [
        (f"{' '.join(draw.choices(words, k=8))} {n}", "positive" if draw.random() < positive else "negative")
        for n in range(count)
    ]


def make(tmp_path: Path, source: Iterable[Sequence[str]] | Path, *, name: str = "t.db", **options: Any) -> Path:
    header = options.pop("header", ("text", "label"))
    path = source if isinstance(source, Path) else write(tmp_path / f"{name}.csv", source, header)
    return make_parts(tmp_path / name, {None: path}, **options)


def make_parts(target: Path, sources: dict[int | None, Path], **options: Any) -> Path:
    data = Data(**options)
    parts = [Part(open_source(str(path), data), code) for code, path in sources.items()]
    build(target, Plan(parts, data, get_normalizer(data.normalizer)))
    return target


def everything(path: Path) -> dict[str, Examples]:
    with open_store(path) as store:
        return {name: store.read(name, with_raw=True) for name in ALL}  # type: ignore[arg-type]


def placed(path: Path) -> dict[str, str]:
    """Raw text -> split."""
    return {raw: name for name, part in everything(path).items() for raw in part.raw or []}


def dropped(path: Path) -> dict[str, int]:
    with open_store(path) as store:
        return {reason: count for reason, count in store.report["dropped"].items() if count}


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_store_knows_what_it_holds(tmp_path: Path) -> None:
    given_rows = rows()
    with open_store(make(tmp_path, given_rows)) as store:
        assert store.labels == ("negative", "positive")
        assert store.normalizer == "tweet@3"
        assert store.report["rows_read"] == store.report["rows_kept"] == 300
        assert sum(store.count(name) for name in ALL) == 300  # type: ignore[arg-type]
        for name in ALL:
            part = store.read(name, with_raw=True)  # type: ignore[arg-type]
            counted = Counter(store.labels[label] for label in part.labels.tolist())
            assert store.report["splits"][name] == counted
            for row, raw, label in zip(part.rows.tolist(), part.raw or [], part.labels.tolist(), strict=True):
                assert given_rows[row - 1] == (raw, store.labels[label])


def test_texts_are_cleaned_and_raw_ones_kept(tmp_path: Path) -> None:
    path = make(tmp_path, [*rows(), ("@anna  loved &amp; hated it", "positive")])
    parts = everything(path).values()
    pairs = {raw: text for part in parts for raw, text in zip(part.raw or [], part.texts, strict=True)}
    assert pairs["@anna  loved &amp; hated it"] == "@user loved & hated it"


def test_a_sample_beyond_the_split_is_refused(tmp_path: Path) -> None:
    with open_store(make(tmp_path, rows())) as store:
        count = store.count("train")
        assert len(store.read("train", count)) == count
        with pytest.raises(DataError, match=f"sample size is {count + 1}") as caught:
            store.read("train", count + 1)
        assert str(count) in caught.value.hint


def test_key_hashes_find_texts_that_were_trained_on(tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    train = everything(path)["train"].raw or []
    with open_store(path) as store:
        known = set(store.key_hashes("train").tolist())
        again = store.hash_raw([f"  {text.upper()}!!! " for text in train])[1]
        assert set(again.tolist()) == known
        assert not set(store.hash_raw(["never seen before"])[1].tolist()) & known


# --- what decides a split -------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["good", "BAD", "@a", "@bc", "http://x.y", "!", "é", "😀", "&amp;"])
MESSY = st.lists(
    st.tuples(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), st.sampled_from(["0", "1"])), max_size=60
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messy=MESSY, draw=st.randoms(use_true_random=False))
def test_row_order_normalizer_and_seed_of_training_move_no_row(
    messy: list[Row], draw: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    base = [(text, "1" if label == "positive" else "0") for text, label in rows(150)] + messy
    shuffled = draw.sample(base, len(base))
    one = make(folder, base, name="one.db")
    other = make(folder, shuffled, name="other.db", normalizer="none", repeats="keep")
    first, second = placed(one), placed(other)
    assert all(second.get(raw, name) == name for raw, name in first.items())
    with open_store(one) as a, open_store(other) as b:
        assert a.split_fingerprint == b.split_fingerprint
        assert a.fingerprint != b.fingerprint
    for path in (one, other):
        seen: dict[str, str] = {}
        for name, part in everything(path).items():
            for raw in part.raw or []:
                assert seen.setdefault(splits.split_key(raw, version=2), name) == name


def test_the_trained_column_moves_no_row(tmp_path: Path) -> None:
    table = [(f"The Film {n} was NOT good!", f"film {n} good", label) for n, (_, label) in enumerate(rows(400))]
    header = ("text", "text_clean", "label")
    one = make(tmp_path, table, name="one.db", header=header)
    other = make(tmp_path, table, name="other.db", header=header, text_column="text_clean")
    assert placed(one) == placed(other)
    with open_store(one) as a, open_store(other) as b:
        assert a.split_fingerprint == b.split_fingerprint


def test_more_rows_move_no_row(tmp_path: Path) -> None:
    few, many = placed(make(tmp_path, rows(200), name="few.db")), placed(make(tmp_path, rows(400), name="many.db"))
    assert all(many[raw] == name for raw, name in few.items())


def test_another_split_seed_or_size_is_another_split(tmp_path: Path) -> None:
    prints = set()
    for number, options in enumerate(({}, {"split_seed": 1}, {"test_size": 0.3}, {"valid_size": 0.2})):
        with open_store(make(tmp_path, rows(), name=f"{number}.db", **options)) as store:
            prints.add(store.split_fingerprint)
    assert len(prints) == 4


# --- what is left out -----------------------------------------------------------------------------------------------


def test_rows_are_left_out_and_counted_by_reason(tmp_path: Path) -> None:
    extra = [
        ("Same text!", "positive"),
        ("Same text!", "negative"),
        ("twice the same", "positive"),
        ("twice  the same", "positive"),
        ("", "positive"),
        ("   ", "negative"),
        ("&nbsp;", "negative"),
        ("odd one out", "mixed"),
    ]
    path = make(tmp_path, [*rows(), *extra], unknown_labels="drop")
    assert dropped(path) == {
        "unknown label": 1, "empty text": 2, "empty after cleaning": 1, "conflicting labels": 2, "repeated text": 1,
    }  # fmt: skip
    with open_store(path) as store:
        report = store.report
    assert report["rows_read"] == report["rows_kept"] + sum(report["dropped"].values())


def test_conflicts_and_repeats_can_be_kept(tmp_path: Path) -> None:
    extra = [
        ("Same text", "positive"),
        ("Same text", "negative"),
        ("same twice", "positive"),
        ("same twice", "positive"),
    ]
    path = make(tmp_path, [*rows(), *extra], conflicts="keep", repeats="keep")
    assert dropped(path) == {}
    path = make(tmp_path, [*rows(), *extra], name="b.db", conflicts="keep")
    assert dropped(path) == {"repeated text": 1}


def test_no_cleaned_text_stands_twice_or_in_two_splits(tmp_path: Path) -> None:
    """Different raw texts, so different keys, that come to the same cleaned one."""
    table = [(f"raw number {n}", f"cleaned {n // 2}", ("negative", "positive")[n // 2 % 2]) for n in range(400)]
    options: dict[str, Any] = {"header": ("text", "text_clean", "label"), "text_column": "text_clean"}
    for number, repeats in enumerate(("drop", "keep")):
        path = make(tmp_path, table, name=f"{number}.db", repeats=repeats, test_size=0.4, valid_size=0.3, **options)
        homes: dict[str, set[str]] = {}
        for name, part in everything(path).items():
            for text in part.texts:
                homes.setdefault(text, set()).add(name)
            assert repeats == "keep" or len(set(part.texts)) == len(part.texts)
        assert all(len(names) == 1 for names in homes.values())


def test_unreadable_rows_are_counted_when_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", rows())
    path.write_bytes(path.read_bytes() + b"caf\xe9,positive\na,b,c\n")
    with pytest.raises(SourceError, match=r"row 30[12]"):
        make(tmp_path, path, encoding="utf-8")
    with open_store(make(tmp_path, path, bad_rows="skip", encoding="utf-8")) as store:
        assert store.report["dropped"]["unreadable"] == 2
        assert store.report["rows_read"] == 302


def test_a_text_of_nearly_a_megabyte_is_kept_whole(tmp_path: Path) -> None:
    long = "what a long day it was " * 40_000
    path = make(tmp_path, [*rows(50), (long, "positive")])
    kept = [text for part in everything(path).values() for text in part.texts]
    assert max(map(len, kept)) == len(long.strip())
    assert len(long) > 900_000


def test_a_column_without_negation_is_warned_of(tmp_path: Path) -> None:
    table = [(f"this is not film {n}", f"film {n}", label) for n, (_, label) in enumerate(rows(900))]
    header = ("text", "text_clean", "label")
    with open_store(make(tmp_path, table, header=header)) as store:
        assert store.report["warnings"] == []
    with open_store(make(tmp_path, table, name="b.db", header=header, text_column="text_clean")) as store:
        (warning,) = store.report["warnings"]
    assert "negation" in warning
    assert "--text-column text" in warning


def test_official_splits_are_kept_and_overlap_is_left_out_of_train(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", [*rows(200), ("In the TEST too", "positive"), ("in valid", "positive")])
    valid = write(tmp_path / "valid.csv", [("in valid!", "positive"), ("in both", "positive"), ("v", "negative")])
    test = write(tmp_path / "test.csv", [("in the test, too", "negative"), ("in both", "positive"), ("t", "negative")])
    path = make_parts(tmp_path / "t.db", {splits.TRAIN: train, splits.VALID: valid, splits.TEST: test})
    parts = everything(path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 200, "valid": 2, "test": 3}
    assert dropped(path) == {"text of another split": 3}


def test_without_an_official_valid_split_a_part_of_train_serves(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.csv", rows(300)), write(tmp_path / "test.csv", rows(340)[300:])
    path = make_parts(tmp_path / "t.db", {splits.TRAIN: train, splits.TEST: test})
    with open_store(path) as store:
        assert store.count("test") == 40
        assert 15 <= store.count("valid") <= 50
        assert store.count("train") + store.count("valid") == 300


@pytest.mark.parametrize(
    ("given_rows", "error", "message"),
    [
        ([], DataError, "has no rows"),
        ([("a", "positive"), ("b", "positive")], LabelError, "only one class"),
        ([("", "positive"), (" ", "negative")], DataError, "no row is left of 2"),
        ([("same", "positive"), ("same", "negative")], DataError, "no row is left"),
        ([("a", "x"), ("b", "y"), ("", "z")], DataError, "fewer than the 3 classes"),
        ([("a", "positive"), ("b", "negative")], DataError, "too few"),
        ([*rows(20), ("a b", "maybe")], LabelError, "line 22, data row 21: unknown label 'maybe'"),
    ],
)
def test_unusable_rows_are_an_error_and_the_old_database_stays(
    given_rows: list[Row], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = make(tmp_path, rows())
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        make(tmp_path, given_rows)
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["t.db", "t.db.csv"]


def test_a_source_that_changes_while_it_is_read_replaces_nothing(tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    before = path.read_bytes()
    source = write(tmp_path / "growing.csv", rows(400))
    plan = Plan([Part(open_source(str(source), Data()))], Data(), get_normalizer("tweet"))

    def grow(_: int) -> None:
        write(source, rows(401))

    with pytest.raises(SourceError, match=r"growing\.csv changed while it was read"):
        build(path, plan, on_rows=grow)
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["growing.csv", "t.db", "t.db.csv"]


def test_real_airline_tweets_make_three_classes(shared: Path, tmp_path: Path) -> None:
    with open_store(make(tmp_path, shared / "data/airline/Tweets.csv")) as store:
        assert store.labels == ("negative", "neutral", "positive")
        assert store.report["rows_read"] == 11_706
        assert store.report["warnings"] == []


def test_real_official_splits_with_numbers_in_one_and_names_in_the_other(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/semeval"
    path = make_parts(tmp_path / "t.db", {splits.TRAIN: folder / "train.tsv", splits.TEST: folder / "valid.tsv"})
    with open_store(path) as store:
        assert store.labels == ("negative", "neutral", "positive")
        assert store.report["rows_read"] == 47_439 + 2_000
        assert store.report["splits"]["test"]["neutral"] > store.report["splits"]["test"]["negative"]


# --- files that are refused -----------------------------------------------------------------------------------------


def damage(path: Path, kind: str) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "overwritten":
        content = bytearray(path.read_bytes())
        content[2 * 16_384 : 4 * 16_384] = os.urandom(2 * 16_384)
        path.write_bytes(bytes(content))
    elif kind == "foreign":
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (a)")
        connection.close()
    elif kind == "text":
        path.write_text("no database")
    elif kind == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    elif kind == "directory":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no prepared database"),
        ("truncated", "damaged"),
        ("overwritten", "t.db"),
        ("foreign", "not a database prepared by senthy"),
        ("text", "not a database prepared by senthy"),
        ("newer", "format 99"),
        ("directory", "directory"),
    ],
)
def test_a_database_that_cannot_be_used_says_why(kind: str, message: str, tmp_path: Path) -> None:
    path = make(tmp_path, rows(2000))
    damage(path, kind)
    with pytest.raises(DatabaseError) as caught:
        everything(path)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_locked_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentiment_hybrid.data.store.LOCK_SECONDS", 0.05)
    path = make(tmp_path, rows())
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseError, match="locked"):
        everything(path)
    other.close()


def test_a_read_only_database_can_be_read_but_is_not_replaced(tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    path.chmod(0o444)
    assert len(everything(path)["train"])
    with pytest.raises(DatabaseError, match="read-only"):
        make(tmp_path, rows(400))
    path.chmod(0o644)


@pytest.mark.parametrize("kind", ["foreign", "text", "directory"])
def test_what_is_not_ours_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    damage(path, kind)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DatabaseError):
        make(tmp_path, rows())
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize("kind", ["truncated", "overwritten", "newer"])
def test_a_damaged_database_of_ours_can_be_built_anew(kind: str, tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    damage(path, kind)
    make(tmp_path, rows())
    assert sum(len(part) for part in everything(path).values()) == 300


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((OutputError, DatabaseError), match="file"):
        make_parts(tmp_path / "file" / "t.db", {None: write(tmp_path / "rows.csv", rows())})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_an_output_error(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="closed"):
        make_parts(folder / "t.db", {None: write(tmp_path / "rows.csv", rows())})


FULL_DISK = """
import resource, sys
from pathlib import Path
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.commands.data import run
from sentiment_hybrid.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    run(load_config(None, [f"data.source={sys.argv[1]}", f"paths.data_db={sys.argv[2]}"]))
except OutputError as error:
    print("OutputError:", error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on file sizes needs POSIX")
def test_a_full_disk_is_an_output_error_and_the_old_database_stays(tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    before = path.read_bytes()
    source = write(tmp_path / "many.csv", rows(20_000))
    command = [sys.executable, "-c", FULL_DISK, str(source), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "OutputError" in done.stdout, done.stderr
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["many.csv", "t.db", "t.db.csv"]


#: Builds a database, but ends, as by kill -9, when the new one is to be put in place of the old one.
KILLED = """
import os, sys
from pathlib import Path
from sentiment_hybrid.commands.data import run
from sentiment_hybrid.config.load import load_config
Path.replace = lambda self, to: os._exit(9)
run(load_config(None, [f"data.source={sys.argv[1]}", f"paths.data_db={sys.argv[2]}"]))
"""


def test_a_build_killed_before_its_rename_leaves_the_old_database_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = make(tmp_path, rows())
    before = path.read_bytes()
    source = write(tmp_path / "other.csv", rows(400))
    assert subprocess.run([sys.executable, "-c", KILLED, str(source), str(path)], check=False).returncode == 9
    assert path.read_bytes() == before
    assert len(list(tmp_path.glob(".t.db.*.partial"))) == 1
    make(tmp_path, rows(400))
    assert sum(len(part) for part in everything(path).values()) == 400
    assert not list(tmp_path.glob(".*"))


def test_the_public_facts_are_typed(tmp_path: Path) -> None:
    with open_store(make(tmp_path, rows())) as store:
        assert isinstance(store, Store)
        part = store.read("train", 10)
    assert part.labels.dtype == np.int64
    assert part.rows.dtype == np.int64
    assert part.raw is None
    assert len(part) == 10


def test_settings_of_how_files_are_written_keep_older_databases_and_count_where_they_are_set(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", rows(10))

    def wanted(**options: Any) -> str:
        data = Data(**options)
        return Plan([Part(open_source(str(path), data))], data, get_normalizer("tweet")).fingerprint

    prints = [
        wanted(),
        wanted(encoding="utf-8"),
        wanted(encoding="cp1252"),
        wanted(delimiter=","),
        wanted(quoting="none"),
    ]
    assert len(set(prints)) == len(prints)


# --- damage ---------------------------------------------------------------------------------------------------------


def test_blocks_of_checksums_leave_every_sample_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentiment_hybrid.data.store._BLOCK", 7)
    with open_store(make(tmp_path, rows(60))) as store:
        for name in ALL:
            whole = store.read(name, with_raw=True)  # type: ignore[arg-type]
            assert len(store.key_hashes(name)) == len(whole)  # type: ignore[arg-type]
            for size in range(len(whole) + 1):
                assert store.read(name, size).texts == whole.texts[:size]  # type: ignore[arg-type]


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    path = make(tmp_path, rows(60))
    whole, before, keys = path.read_bytes(), everything(path), key_hashes(path)
    draw, noticed = random.Random(0), 0
    for place in [*draw.sample(range(len(whole)), 150), *(whole.find(text.encode()) for text in before["test"].texts)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            after = everything(path)
            assert [(e.texts, e.raw, e.labels.tolist(), e.rows.tolist()) for e in after.values()] == [
                (e.texts, e.raw, e.labels.tolist(), e.rows.tolist()) for e in before.values()
            ]
            assert key_hashes(path) == keys
        except DatabaseError as error:
            noticed += 1
            assert "senthy data" in error.hint or "paths.data_db" in error.hint
    assert noticed >= len(before["test"])


def key_hashes(path: Path) -> list[list[int]]:
    with open_store(path) as store:
        return [store.key_hashes(name).tolist() for name in ALL]  # type: ignore[arg-type]


def test_a_database_of_an_older_version_without_checksums_is_read(tmp_path: Path) -> None:
    path = make(tmp_path, rows(60))
    before = everything(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'checksums'")
    connection.close()
    assert everything(path)["train"].texts == before["train"].texts


def test_a_validation_split_of_one_class_is_warned_of(tmp_path: Path) -> None:
    many = rows(120)
    sources = {
        splits.TRAIN: write(tmp_path / "train.csv", many[:80]),
        splits.VALID: write(tmp_path / "valid.csv", [row for row in many[80:100] if row[1] == "positive"]),
        splits.TEST: write(tmp_path / "test.csv", many[100:]),
    }
    with open_store(make_parts(tmp_path / "t.db", dict(sources))) as store:
        assert store.report["warnings"] == ["the valid split has only one class, 'positive': figures on it say little"]


def test_a_class_that_is_called_like_a_missing_value_is_warned_of(tmp_path: Path) -> None:
    given = [(text, "NaN" if label == "negative" else label) for text, label in rows(60)]
    with open_store(make(tmp_path, given)) as store:
        (warning,) = store.report["warnings"]
    assert warning.startswith("'NaN' in the label column is a class")
    assert "data.unknown_labels=drop --label-map positive=positive" in warning


def test_a_store_remembers_the_column_and_the_meaning_of_values(tmp_path: Path) -> None:
    numbers = [(text, {"negative": "0.0", "positive": "4"}[label]) for text, label in rows(60)]
    with open_store(make(tmp_path, numbers, header=("tweet", "label"))) as store:
        assert store.text_column == "tweet"
        assert store.label_coding == {"0": "negative", "4": "positive"}
