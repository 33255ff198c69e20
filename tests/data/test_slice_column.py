from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.slice_column import marks_of, values_by_row
from sentiment_hybrid.errors import DataError, SourceError


@pytest.fixture
def table(tmp_path: Path) -> str:
    columns = {
        "text": ["good", "bad"],
        "review": ["very good", "very bad"],
        "city": ["Bonn", None],
        "vector": [[1.0, 2.0], [3.0]],
        "image": [b"\xff\xd8", b"\xff\xd9"],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


@pytest.mark.parametrize("texts", [{1: "good", 2: "bad"}, {1: "very good", 2: "very bad"}, {1: "good"}])
def test_the_tested_text_column_is_found_beside_lists_and_bytes(table: str, texts: dict[int, str]) -> None:
    assert values_by_row(table, Data(), "city", marks_of(texts)) == {1: "Bonn"}


def test_a_changed_text_is_an_error_with_the_number_of_rows(table: str) -> None:
    with pytest.raises(DataError, match="1 of 2 tested rows"):
        values_by_row(table, Data(), "city", marks_of({1: "good", 2: "worse"}))


def test_a_slice_column_of_lists_is_an_error(table: str) -> None:
    with pytest.raises(SourceError, match="'vector': a list"):
        values_by_row(table, Data(), "vector", marks_of({1: "good", 2: "bad"}))
