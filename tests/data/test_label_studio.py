"""JSON arrays as sources: records, and exports of Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.review import CONTROL, LEAST_SURE, OTHER, ReviewRows, read_review
from sentiment_hybrid.data.sources import json_tasks, open_source
from sentiment_hybrid.errors import SourceError


def annotation(*choices: str, question: str = "label", **more: Any) -> dict[str, Any]:
    result = {"id": "x", "from_name": question, "to_name": "text", "type": "choices", "value": {"choices": [*choices]}}
    return {"id": 1, "completed_by": 3, "was_cancelled": False, "ground_truth": False, "result": [result], **more}


def task(text: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"text": text, **data}, "annotations": list(annotations), "predictions": [], "drafts": []}


def rows(path: Path, items: Any, **options: Any) -> list[dict[str, Any]]:
    path.write_text(json.dumps(items), encoding="utf-8")
    source = open_source(str(path), Data(**options))
    found = []
    for batch in source.batches():
        found += [dict(zip(batch.columns, row, strict=True)) for row in zip(*batch.columns.values(), strict=True)]
    return found


def test_a_task_is_a_row_with_the_choice_of_its_annotators(tmp_path: Path) -> None:
    items = [
        task("a", annotation("positive")),
        task("b", annotation("positive"), annotation("negative"), annotation("negative")),
        task("c", annotation("positive", ground_truth=True), annotation("negative"), annotation("negative")),
        task("d", annotation("positive", was_cancelled=True), annotation("negative")),
        task("e"),
    ]
    found = rows(tmp_path / "e.json", items)
    assert [row["label"] for row in found] == ["positive", "negative", "positive", "negative", None]


def test_annotators_who_disagree_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    items = [task("a", annotation("x")), task("b", annotation("x"), annotation("y")), task("c", annotation("x", "y"))]
    with pytest.raises(SourceError, match=r"task 2: annotators disagree: x 1, y 1 \(id 7\)") as caught:
        rows(tmp_path / "e.json", items)
    assert "data.bad_rows=skip" in caught.value.hint
    assert [row["text"] for row in rows(tmp_path / "e.json", items, bad_rows="skip")] == ["a"]
    with pytest.raises(SourceError, match="several labels: x, y"):
        rows(tmp_path / "e.json", items[2:])


def test_a_question_of_another_name_is_a_column_of_that_name(tmp_path: Path) -> None:
    assert rows(tmp_path / "e.json", [task("a", annotation("x", question="mood"))]) == [{"text": "a", "mood": "x"}]


def test_an_array_of_records_is_a_table(tmp_path: Path) -> None:
    items = [{"text": "a", "label": 1}, {"text": "b", "label": None}]
    assert rows(tmp_path / "e.json", items) == [{"text": "a", "label": "1"}, {"text": "b", "label": None}]


@settings(max_examples=25, deadline=None)
@given(
    items=st.lists(st.dictionaries(st.sampled_from(["text", "b"]), st.text(max_size=5).filter(str.isprintable))),
    indent=st.sampled_from([None, 2]),
    block=st.integers(1, 40),
)
def test_it_is_read_as_json_reads_it_wherever_a_block_ends(
    tmp_path_factory: pytest.TempPathFactory, items: list[dict[str, str]], indent: int | None, block: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "e.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
    source = open_source(str(path), Data())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tasks, "_READ", block)
        assert list(source._items()) == items  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "cut off"),
        ('{"text": "a"}', "array of objects"),
        ('[{"text": "a"}', "cut off"),
        ('[{"text": "a"', "Expecting"),
        ("[" * 5000, "recursion"),
        ('[{"text": "a"} 5 x]', "Expecting"),
    ],
)
def test_what_is_damaged_or_no_array_says_so(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "e.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=f"not a sound JSON array.*{problem}"):
        list(open_source(str(path), Data()).batches(["text"]))


def test_elements_that_are_no_objects_are_bad_rows(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="object 2: no JSON object: 5"):
        rows(tmp_path / "e.json", [{"text": "a"}, 5])
    assert len(rows(tmp_path / "e.json", [{"text": "a"}, 5, "x"], bad_rows="skip")) == 1


def test_tasks_for_people_come_back_from_label_studio_as_a_review(tmp_path: Path) -> None:
    review = ReviewRows(2, 1, model="han-1")
    review.add(["a", "b\ud83d", "c", "d"], ["pos", "neg", "pos", "pos"], [0.5, 0.6, 0.9, 0.95])
    path = tmp_path / "people.json"
    assert review.write(path) == 3
    tasks = json.loads(path.read_text(encoding="utf-8"))
    answer = tasks[0]["predictions"][0]
    assert (answer["model_version"], answer["score"]) == ("han-1", 0.5)
    assert answer["result"][0]["value"] == {"choices": ["pos"]}
    assert tasks[0]["data"] == {"text": "a", "prediction": "pos", "score": 0.5, "part": LEAST_SURE}
    assert {one.labelled for one in read_review(path, Data())} == {0}, "nobody has labelled anything yet"
    for one, label in zip(tasks, ("pos", "pos", "pos"), strict=True):
        one["annotations"] = [annotation(label)]
    tasks.append(task("of somebody else", annotation("pos")))
    path.write_text(json.dumps(tasks), encoding="utf-8")
    found = {one.part: (one.rows, one.labelled, one.right) for one in read_review(path, Data())}
    assert found == {LEAST_SURE: (2, 2, 1), CONTROL: (1, 1, 1), OTHER: (1, 1, 0)}
