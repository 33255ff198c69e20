"""Sheets of Excel workbooks are read like any table."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import excel, kind_of, open_source
from sentiment_hybrid.errors import SenthyError, SourceError

RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def cell(place: str, value: Any) -> str:
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f'<c r="{place}"><v>{value}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def write_xlsx(path: Path, sheets: dict[str, Sequence[Sequence[Any]]]) -> Path:
    """A workbook as small as Excel would open it; None is an empty cell."""
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r" Type="{DOCUMENT}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{DOCUMENT}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{RELATIONS}">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{DOCUMENT}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
    }
    for number, rows in enumerate(sheets.values(), 1):
        body = ""
        for y, row in enumerate(rows, 1):
            cells = "".join(cell(f"{chr(65 + x)}{y}", value) for x, value in enumerate(row) if value is not None)
            body += f'<row r="{y}">{cells}</row>'
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{MAIN}"><sheetData>{body}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return path


def read(path: Path, *, native: bool = False, **options: Any) -> list[tuple[Any, ...]]:
    source = open_source(str(path), Data(**options), offline=True)
    return [row for batch in source.batches(native=native) for row in zip(*batch.columns.values(), strict=True)]


TABLE = [
    [None, None, None],
    [" text ", "label", "share"],
    ["I love it 😍\nreally", 4, 0.5],
    [None, None, None],
    ["<worst> & \"last\"", 0, None],
    [True, 1, 12],
]  # fmt: skip


def test_a_sheet_is_a_table_of_texts(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "in.xlsx", {"Sheet1": TABLE})
    expected = [("I love it 😍\nreally", "4", "0.5"), ('<worst> & "last"', "0", None), ("True", "1", "12")]
    assert open_source(str(path), Data(), offline=True).columns == ["text", "label", "share"]
    assert read(path) == expected
    assert read(path, native=True)[0] == ("I love it 😍\nreally", 4, 0.5)


def test_a_workbook_is_known_by_its_content(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "in.csv", {"Sheet1": TABLE})
    assert kind_of(path) == "excel"
    assert len(read(path)) == 3


def test_a_sheet_is_named_where_several_have_rows(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "in.xlsx", {"notes": [], "one": TABLE, "two": TABLE[1:3]})
    with pytest.raises(SourceError, match="holds the sheets one, two") as caught:
        read(path)
    assert "--table NAME" in caught.value.hint
    assert len(read(path, table="two")) == 1
    with pytest.raises(SourceError, match="no sheet 'three'; it has the sheets notes, one, two"):
        read(path, table="three")
    assert len(read(write_xlsx(tmp_path / "one.xlsx", {"notes": [], "one": TABLE}))) == 3


def test_a_cell_beyond_the_header_is_an_error_or_skipped(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "in.xlsx", {"Sheet1": [["text"], ["good"], ["bad", "note"]]})
    with pytest.raises(SourceError, match="data row 2: a cell to the right of the header"):
        read(path)
    assert read(path, bad_rows="skip") == [("good",)]


@pytest.mark.parametrize("kind", ["empty", "archive", "cut", "large", "broken"])
def test_a_damaged_workbook_is_reported(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_xlsx(tmp_path / "in.xlsx", {"Sheet1": [] if kind == "empty" else TABLE})
    if kind == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("in.csv", "text\n")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "large":
        monkeypatch.setattr(excel, "LARGEST", 100)
    elif kind == "broken":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("xl/workbook.xml", "<workbook")
    with pytest.raises(SenthyError, match=r"in\.xlsx") as caught:
        open_source(str(path), Data(), offline=True).columns  # noqa: B018
    assert caught.value.hint


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_xlsx(tmp_path / "in.xlsx", {"Sheet1": TABLE})
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(SourceError, match="needs one more package") as caught:
        read(path)
    assert 'pip install ".[excel]"' in caught.value.hint


def test_the_size_of_a_sheet_says_how_many_rows_there_are(tmp_path):
    rows = [["text"], *([f"text {number}"] for number in range(50))]
    source = open_source(str(write_xlsx(tmp_path / "many.xlsx", {"Tweets": rows})), Data())
    assert [source.total for _ in source.batches(size=20)] == [50.0] * 3
    assert source.total == 50
