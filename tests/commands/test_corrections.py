"""`senthy data --corrections`: labels that people changed and rows that they left out."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid import tables
from sentiment_hybrid.commands import data, test
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.data.corrections import COLUMNS, read_corrections, row_id
from sentiment_hybrid.data.store import Examples, open_store
from sentiment_hybrid.errors import DataError, LabelError

from .conftest import Project, write_toy_csv

Decide = Callable[..., Path]


@pytest.fixture
def bare(make_project: Callable[..., Project]) -> Project:
    """A prepared project; no encoder is loaded."""
    return make_project(rows=120)


def rows_of(project: Project, split: Any = "train") -> Examples:
    with open_store(project.config().paths.data_db) as store:
        return store.read(split, with_raw=True)


def decide(path: Path, lines: list[tuple[int, str, str, str]], *, split: str = "train", delimiter: str = ",") -> Path:
    """A file of decisions: row, text, label and correction of each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", delimiter=delimiter)
        writer.writeheader()
        for row, text, label, correction in lines:
            writer.writerow(
                {"row": row, "text": text, "label": label, "correction": correction, "split": split, "id": row_id(text)}
            )
    return path


def lines_of(project: Project, corrections: list[str], *, split: Any = "train") -> list[tuple[int, str, str, str]]:
    """The first rows of a split, with these corrections."""
    rows = rows_of(project, split)
    assert rows.raw is not None
    names = ("negative", "positive")
    return [(int(rows.rows[at]), rows.raw[at], names[rows.labels[at]], what) for at, what in enumerate(corrections)]


def corrected(project: Project, path: Path, *more: str) -> data.DataResult:
    return data.run(project.config(f"data.corrections={path}", *more))


def test_labels_change_rows_go_and_what_was_kept_is_counted(bare: Project, tmp_path: Path) -> None:
    lines = lines_of(bare, ["positive", "negative", "drop", "keep", ""])
    before = dict(zip(rows_of(bare).rows.tolist(), rows_of(bare).labels.tolist(), strict=True))
    result = corrected(bare, decide(tmp_path / "c.csv", lines))
    after = dict(zip(rows_of(bare).rows.tolist(), rows_of(bare).labels.tolist(), strict=True))
    assert result.corrections is not None
    expected = dict(before)
    del expected[lines[2][0]]
    expected[lines[0][0]], expected[lines[1][0]] = 1, 0
    assert after == expected
    changed = sum(before[row] != expected[row] for row in expected)
    assert result.corrections["changed"] == changed
    assert (result.corrections["dropped"], result.corrections["kept"]) == (1, 3 - changed)
    assert result.report["dropped"]["dropped by a correction"] == 1


def test_the_split_of_no_row_moves(bare: Project, tmp_path: Path) -> None:
    with open_store(bare.config().paths.data_db) as store:
        before = store.split_fingerprint
    corrected(bare, decide(tmp_path / "c.csv", lines_of(bare, ["drop", "positive", "negative"])))
    with open_store(bare.config().paths.data_db) as store:
        assert store.split_fingerprint == before


def test_original_labels_are_still_known(bare: Project, tmp_path: Path) -> None:
    before = rows_of(bare)
    corrected(bare, decide(tmp_path / "c.csv", lines_of(bare, ["positive", "negative", "positive", "negative"])))
    with open_store(bare.config().paths.data_db) as store:
        after = store.read("train")
        original = store.original_labels(after)
    assert after.labels.tolist() != original.tolist()
    assert dict(zip(after.rows.tolist(), original.tolist(), strict=True)) == dict(
        zip(before.rows.tolist(), before.labels.tolist(), strict=True)
    )


def test_a_second_run_does_nothing_until_a_decision_changes(bare: Project, tmp_path: Path) -> None:
    lines = lines_of(bare, ["positive", "drop"])
    path = decide(tmp_path / "c.csv", lines)
    assert corrected(bare, path).built
    assert not corrected(bare, path).built
    decide(path, [*lines[::-1], *lines_of(bare, ["", "", ""])[2:]])  # order and undecided rows do not count
    assert not corrected(bare, path).built
    decide(path, lines[:1])
    assert corrected(bare, path).built
    assert data.run(bare.config()).built


def test_a_file_without_decisions_changes_nothing_and_says_so(
    bare: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = corrected(bare, decide(tmp_path / "c.csv", lines_of(bare, ["", "", " "])))
    assert not result.built
    assert result.corrections is None
    assert "nothing is corrected in" in capsys.readouterr().err


def test_copies_of_a_corrected_text_are_corrected_too(tmp_path: Path) -> None:
    source = write_toy_csv(tmp_path / "texts.csv", 120)
    with source.open("a", encoding="utf-8") as file:
        file.write("an odd text about it all,negative\n" * 3)
    config = load_config(None, [f"data.source={source}", f"paths.data_db={tmp_path / 'd.db'}", "data.test_size=0.1"])
    data.run(config)
    with open_store(config.paths.data_db) as store:
        ((split, row),) = (
            (name, int(examples.rows[examples.texts.index("an odd text about it all")]))
            for name in ("train", "valid", "test")
            if "an odd text about it all" in (examples := store.read(name)).texts
        )
    line = (row, "an odd text about it all", "negative")
    for correction, left in (("positive", [1]), ("drop", [])):
        path = decide(tmp_path / f"{correction}.csv", [(*line, correction)], split=split)
        data.run(config.model_copy(update={"data": config.data.model_copy(update={"corrections": path})}))
        with open_store(config.paths.data_db) as store:
            parts = [store.read(name) for name in ("train", "valid", "test")]
        found = [
            int(label)
            for part in parts
            for text, label in zip(part.texts, part.labels, strict=True)
            if text == "an odd text about it all"
        ]
        assert found == left


def test_each_decision_about_copies_is_counted_and_each_row_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_toy_csv(tmp_path / "texts.csv", 60)
    with source.open("a", encoding="utf-8") as file:
        file.write("an odd text about it all,negative\n" * 3)
    config = load_config(None, [f"data.source={source}", f"paths.data_db={tmp_path / 'd.db'}"])
    lines = [(row, "an odd text about it all", "negative") for row in (61, 62)]
    for correction, counts in (("positive", (2, 0, 0)), ("drop", (0, 2, 0)), ("negative", (0, 0, 2))):
        path = decide(tmp_path / f"{correction}.csv", [(*line, correction) for line in lines])
        result = data.run(config.model_copy(update={"data": config.data.model_copy(update={"corrections": path})}))
        found = result.corrections
        assert found is not None
        assert (found["changed"], found["dropped"], found["kept"]) == counts
        if correction == "drop":
            assert result.report["dropped"]["dropped by a correction"] == 3
            data.show(result)
            assert "2 rows dropped (3 with their copies)" in capsys.readouterr().out


def test_two_decisions_about_a_row_are_refused_whatever_their_split(bare: Project, tmp_path: Path) -> None:
    ((row, text, label, _),) = lines_of(bare, ["drop"])
    path = decide(tmp_path / "c.csv", [(row, text, label, "positive")])
    other = decide(tmp_path / "d.csv", [(row, text, label, "drop")], split="valid")
    twice = path.read_text(encoding="utf-8") + other.read_text(encoding="utf-8").split("\n", 1)[1]
    path.write_text(twice, encoding="utf-8")
    with pytest.raises(DataError, match=f"two different corrections of row {row} .train: positive, valid: drop"):
        corrected(bare, path)
    path.write_text(twice.replace(",drop,", ",positive,"), encoding="utf-8")
    assert corrected(bare, path).corrections is not None


def test_two_decisions_about_a_row_of_a_split_are_refused(bare: Project, tmp_path: Path) -> None:
    lines = lines_of(bare, ["drop"])
    path = decide(tmp_path / "c.csv", [*lines, (*lines[0][:3], "keep")])
    with pytest.raises(DataError, match=f"two different corrections of row {lines[0][0]}"):
        corrected(bare, path)


@pytest.mark.parametrize(
    ("decisions", "contradict"),
    [(("positive", "drop"), True), (("keep", "drop"), True), (("keep", "negative"), False), (("drop", "drop"), False)],
)
def test_copies_with_different_decisions_are_refused_unless_copies_are_kept(
    tmp_path: Path, decisions: tuple[str, str], contradict: bool
) -> None:
    source, text = write_toy_csv(tmp_path / "texts.csv", 120), "an odd text about it all"
    with source.open("a", encoding="utf-8") as file:
        file.write(f"{text},negative\n" * 2)
    settings = [f"data.source={source}", f"paths.data_db={tmp_path / 'd.db'}", "data.repeats=keep"]
    config = load_config(None, settings)
    data.run(config)
    with open_store(config.paths.data_db) as store:
        found = [
            (int(row), name)
            for name in ("train", "valid", "test")
            for some in [store.read(name)]
            for row, known in zip(some.rows, some.texts, strict=True)
            if known == text
        ]
    lines = [(row, text, "negative", what) for (row, _), what in zip(found, decisions, strict=True)]
    path = decide(tmp_path / "c.csv", lines, split=found[0][1])
    kept = load_config(None, [*settings, f"data.corrections={path}"])
    assert data.run(kept).corrections is not None
    dropped = load_config(None, [*settings, "data.repeats=drop", f"data.corrections={path}"])
    if contradict:
        with pytest.raises(DataError, match=f"different corrections of rows {found[0][0]} and {found[1][0]}"):
            data.run(dropped)
    else:
        assert data.run(dropped).corrections is not None


def test_rows_that_changed_since_are_refused(bare: Project, tmp_path: Path) -> None:
    good, other, label = lines_of(bare, ["drop", "drop", "drop"])
    before = bare.config().paths.data_db.read_bytes()
    wrong = {"negative": "positive", "positive": "negative"}[label[2]]
    lines = [
        good,
        (other[0], other[1] + "!", *other[2:]),
        (*label[:2], wrong, "drop"),
        (99_999, "no", "negative", "drop"),
    ]
    with pytest.raises(DataError, match=r"3 corrected rows of .* changed since") as caught:
        corrected(bare, decide(tmp_path / "c.csv", lines))
    message = caught.value.message
    assert f"row {other[0]} has another text" in message
    assert f"row {label[0]} does not have the label {wrong!r}" in message
    assert "row 99999 is missing" in message
    assert bare.config().paths.data_db.read_bytes() == before


def test_corrections_of_other_data_are_refused(bare: Project, tmp_path: Path) -> None:
    path = decide(tmp_path / "c.csv", [(1, "a text from elsewhere", "negative", "drop")])
    with pytest.raises(DataError, match="contains corrections of other data: row 1 has another text"):
        corrected(bare, path)


def test_a_correction_that_is_no_label_names_the_labels(bare: Project, tmp_path: Path) -> None:
    path = decide(tmp_path / "c.csv", lines_of(bare, ["postive"]))
    with pytest.raises(LabelError, match="'postive', which is not a label") as caught:
        corrected(bare, path)
    assert "negative, positive, keep or drop" in caught.value.hint


def test_labels_of_other_case_and_semicolons_of_spreadsheets_are_read(bare: Project, tmp_path: Path) -> None:
    result = corrected(
        bare, decide(tmp_path / "c.csv", lines_of(bare, ["Positive", "NEGATIVE", "DROP"]), delimiter=";")
    )
    assert result.corrections is not None
    assert result.corrections["dropped"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text,label\nfine,positive\n", "no column 'row', 'correction', 'split', 'id'"),
        ("row,label,correction,split,id\nx,a,drop,train,t0\n", "'x' is not a row number"),
    ],
)
def test_a_file_that_is_none_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_corrections(path)


def test_a_split_that_is_none_is_refused(bare: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'dev' is not a split"):
        corrected(bare, decide(tmp_path / "c.csv", lines_of(bare, ["drop"]), split="dev"))


def test_official_splits_are_told_apart_by_the_column_split(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "valid", "test")):
        write_toy_csv(tmp_path / f"{name}.csv", 40, seed=number)
    config = load_config(
        None,
        [f"data.{name}_source={tmp_path / f'{name}.csv'}" for name in ("train", "valid", "test")]
        + [f"paths.data_db={tmp_path / 'd.db'}"],
    )
    data.run(config)
    with open_store(config.paths.data_db) as store:
        valid = store.read("valid", with_raw=True)
    assert valid.raw is not None
    line = (int(valid.rows[0]), valid.raw[0], ("negative", "positive")[valid.labels[0]], "drop")
    path = decide(tmp_path / "c.csv", [line], split="valid")
    data.run(config.model_copy(update={"data": config.data.model_copy(update={"corrections": path})}))
    with open_store(config.paths.data_db) as store:
        assert [store.count(name) for name in ("train", "valid", "test")] == [40, 39, 40]


def test_rows_dropped_from_the_test_split_are_still_known(bare: Project, tmp_path: Path) -> None:
    line = lines_of(bare, ["drop"], split="test")[0]
    corrected(bare, decide(tmp_path / "c.csv", [line], split="test"))
    with open_store(bare.config().paths.data_db) as store:
        gone = store.dropped_from_test()
    assert gone is not None
    assert (gone.rows.tolist(), gone.raw, gone.labels.tolist()) == ([line[0]], [line[1]], [line[2] == "positive"])


def test_a_model_is_tested_on_labels_before_and_after_corrections_of_test_rows(
    trained: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained.config("test.baseline=false")
    before = test.evaluate(config, "linear")
    assert before.before_corrections is None
    lines = lines_of(trained, ["drop", "negative", "positive", "drop", "positive", "negative"], split="test")
    path = decide(tmp_path / "c.csv", lines, split="test")
    applied = corrected(trained, path).corrections
    assert applied is not None
    after = test.evaluate(config, "linear")
    assert after.rows == before.rows - 2
    assert after.before_corrections is not None
    original, changed, dropped = after.before_corrections
    assert (changed, dropped) == (applied["changed"], 2)
    assert original.rows == before.rows
    assert original.accuracy.value == pytest.approx(before.scores.accuracy.value)
    assert original.macro_f1.value == pytest.approx(before.scores.macro_f1.value)
    tables.test(after)
    assert "and dropped 2 rows of this split" in capsys.readouterr().out
