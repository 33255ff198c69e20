"""Rows for people: the least sure and a control sample, read back as accuracies with intervals."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from sentiment_hybrid.commands import data, predict, review
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.data.review import CONTROL, LEAST_SURE, OTHER, SPREAD, SURE_CONTROL, ReviewRows
from sentiment_hybrid.errors import ColumnError, DataError, SenthyError, UsageError

from .conftest import Project


def filled(rows: ReviewRows, path: Path, labels: dict[str, str]) -> Path:
    """A review file in which people have given these texts labels."""
    rows.write(path)
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows({**row, "label": labels.get(row["text"], "")} for row in found)
    return path


def collected(control: int = 4, sure_from: float | None = None) -> ReviewRows:
    rows = ReviewRows(3, control, sure_from=sure_from)
    scores = [0.5 + place / 200 for place in range(100)]
    for start in (0, 50):  # as from a stream
        part = range(start, start + 50)
        rows.add([f"text {at}" for at in part], ["positive"] * 50, [scores[99 - at] for at in part])
    rows.add(["", None], [None, None], [None, None])
    return rows


def test_least_sure_rows_come_first_and_control_rows_are_others(tmp_path: Path) -> None:
    with filled(collected(), tmp_path / "r.csv", {}).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["text"] for row in found[:3]] == ["text 99", "text 98", "text 97"]
    assert [row["part"] for row in found] == [LEAST_SURE] * 3 + [CONTROL] * 4
    assert len({row["text"] for row in found}) == 7
    sure = collected(sure_from=0.9)
    sure.write(tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        assert min(float(row["score"]) for row in csv.DictReader(file) if row["part"] == SURE_CONTROL) >= 0.9


def test_reading_back_gives_the_accuracy_of_each_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"text 99": "Positive", "text 98": "negative"} | {f"text {at}": "positive" for at in range(97)}
    file = filled(collected(), tmp_path / "r.csv", labels)
    found = review.run(load_config("default"), file)
    assert [(one.part, one.rows, one.labelled, one.right) for one in found] == [
        (LEAST_SURE, 3, 2, 1),
        (CONTROL, 4, 4, 4),
    ]
    review.show(found, file)
    shown = capsys.readouterr().out
    assert "100.0 [39.8, 100.0]" in shown and "senthy finetune" in shown


@pytest.mark.parametrize(
    ("sure_from", "part", "of"), [(None, CONTROL, "all answers"), (0.9, SURE_CONTROL, "the sure answers")]
)
def test_it_is_said_which_answers_the_control_rows_stand_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sure_from: float | None, part: str, of: str
) -> None:
    labels = {f"text {at}": "positive" for at in range(100)}
    file = filled(collected(sure_from=sure_from), tmp_path / "r.csv", labels)
    found = review.run(load_config("default"), file)
    assert [one.part for one in found] == [LEAST_SURE, part]
    review.show(found, file)
    assert f"control rows is that of {of}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "safe", "start"), [("r.csv", True, "'=1+1"), ("r.csv", False, "=1+1"), ("r.jsonl", True, '"=1+1')]
)
def test_formulas_are_quoted_on_demand_where_a_spreadsheet_would_compute_them(
    tmp_path: Path, name: str, safe: bool, start: str
) -> None:
    rows = ReviewRows(1, 0)
    rows.add(["=1+1"], ["positive"], [0.5])
    rows.write(tmp_path / name, safe_csv=safe)
    written = (tmp_path / name).read_text(encoding="utf-8")
    assert start in written
    assert ("'" in written) is start.startswith("'")


def test_a_file_without_labels_and_another_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row"):
        review.run(load_config("default"), filled(collected(), tmp_path / "r.csv", {}))
    (tmp_path / "other.csv").write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.raises(ColumnError, match="no review file"):
        review.run(load_config("default"), tmp_path / "other.csv")


def test_a_label_that_no_answer_has_may_be_a_typing_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = filled(collected(), tmp_path / "r.csv", {"text 99": "postive", "text 98": "Positive"})
    found = review.run(load_config("default"), file)
    assert found[0].unknown == {"postive": 1}
    assert (found[0].labelled, found[0].right) == (2, 1)
    review.show(found, file)
    assert "1 row labelled 'postive', which is none of the answers in" in " ".join(capsys.readouterr().err.split())


def test_predict_writes_rows_for_review(trained: Project, tmp_path: Path) -> None:
    request = predict.Request(
        config=trained.config(),
        input_file=trained.folder / "texts.csv",
        output_file=tmp_path / "out.csv",
        review=tmp_path / "people.csv",
        review_rows=8,
    )
    predict.run(request)
    with (tmp_path / "people.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        lowest = sorted(float(row["score"]) for row in csv.DictReader(file))[:8]
    assert [round(float(row["score"]), 5) for row in found[:8]] == pytest.approx(
        [round(one, 5) for one in lowest], abs=1e-4
    )
    assert len(found) == 10
    with pytest.raises(UsageError, match="cannot be combined with --resume"):
        predict.run(dataclasses.replace(request, resume=True))
    with pytest.raises(UsageError, match="rows of a file"):
        predict.run(predict.Request(["a"], config=trained.config(), review=tmp_path / "x.csv"))


def test_the_file_for_people_replaces_no_input_and_no_labels_of_people(tmp_path: Path, trained: Project) -> None:
    source = trained.folder / "texts.csv"
    config = trained.config()

    def label(review_file: Path) -> None:
        request = predict.Request(
            config=config, head="linear", input_file=source, output_file=tmp_path / "o.csv", review=review_file
        )
        predict.run(request)

    before = source.read_bytes()
    for place in (source, tmp_path / "o.csv"):
        with pytest.raises(UsageError, match="--review is the same file as"):
            label(place)
    with pytest.raises(SenthyError, match="foo"):
        label(tmp_path / "people.foo")
    assert source.read_bytes() == before
    assert not (tmp_path / "o.csv").exists(), "nothing was labelled in vain"
    people = tmp_path / "people.csv"
    label(people)
    label(people)  # without labels it may be made again
    rows = list(csv.DictReader(people.open(encoding="utf-8", newline="")))
    people.write_text("text,label\n" + f"{rows[0]['text']},positive\n", encoding="utf-8")
    with pytest.raises(UsageError, match="contains labels that people gave"):
        label(people)


def test_rows_for_people_can_be_spread_over_different_texts(trained: Project, tmp_path: Path) -> None:
    found = {}
    for spread in (False, True):
        file = tmp_path / f"people{spread}.csv"
        request = predict.Request(
            config=trained.config(),
            input_file=trained.folder / "texts.csv",
            output_file=tmp_path / "out.csv",
            review=file,
            review_rows=6,
            spread=spread,
        )
        predict.run(request)
        found[spread] = list(csv.DictReader(file.open(encoding="utf-8", newline="")))
    parts = [row["part"] for row in found[True]]
    assert parts == [SPREAD] * 6 + [CONTROL] * 2
    assert len({row["text"] for row in found[True]}) == 8
    lowest = [row["score"] for row in found[False][:6]]
    assert [row["score"] for row in found[True][:6]] != lowest, "others than the least sure are among them"
    with pytest.raises(UsageError, match="--spread chooses rows for --review"):
        predict.run(predict.Request(config=trained.config(), input_file=trained.folder / "texts.csv", spread=True))
    with pytest.raises(UsageError, match="--review-rows counts rows of --review"):
        predict.run(predict.Request(config=trained.config(), input_file=trained.folder / "texts.csv", review_rows=9))


def half_labelled(path: Path) -> Path:
    texts = {f"text {at}": ("positive", "negative")[at % 2] for at in range(100)}
    rows = ReviewRows(60, 15)
    rows.add(list(texts), ["positive"] * 100, [0.5 + at / 1000 for at in range(100)])
    return filled(rows, path, {text: label for text, label in texts.items() if int(text[5:]) < 40})


def test_a_half_filled_file_is_learned_from_as_it_is(tmp_path: Path) -> None:
    file = half_labelled(tmp_path / "people.csv")
    config = load_config("default", overrides=[f"paths.data_db={tmp_path / 'd.db'}", f"data.source={file}"])
    report = data.run(config).report
    assert report["dropped"]["no label yet"] == 35
    text = file.read_text(encoding="utf-8").replace(",negative", ",negatve", 1)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SenthyError, match="negatve"):  # a typing error is not a row without a label
        data.run(config, refresh=True)


def test_a_file_that_nobody_has_begun_with_cannot_be_learned_from(tmp_path: Path) -> None:
    file = filled(collected(), tmp_path / "people.csv", {})
    config = load_config("default", overrides=[f"paths.data_db={tmp_path / 'd.db'}", f"data.source={file}"])
    with pytest.raises(DataError, match=r"no row of people\.csv has a label yet"):
        data.run(config)


def test_a_file_that_nobody_has_begun_with_has_nothing_to_review(tmp_path: Path) -> None:
    config, rows = load_config("default"), collected()
    rows.write(tmp_path / "people.json")
    for name, hint in (("people.csv", "Fill in its column label"), ("people.json", "export the project")):
        if name.endswith(".csv"):
            filled(rows, tmp_path / name, {})
        with pytest.raises(DataError, match="has a label yet") as caught:
            review.run(config, tmp_path / name)
        assert hint in caught.value.hint
    with pytest.raises(UsageError, match="is a directory"):
        review.run(config, tmp_path)


def test_rows_that_were_not_asked_for_count_for_no_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = filled(collected(), tmp_path / "r.csv", {f"text {at}": "positive" for at in range(100)})
    with file.open("a", encoding="utf-8") as more:
        more.write("my own,,,,negative\nanother,positive,0.9,elsewhere,positive\n")
    found = review.run(load_config("default"), file)
    assert (found[-1].part, found[-1].rows, found[-1].labelled) == (OTHER, 2, 2)
    assert [one.right for one in found[:-1]] == [3, 4]
    review.show(found, file)
    shown = capsys.readouterr()
    assert "2 rows not from predict --review" in " ".join(shown.err.split())
    assert "9 rows can be learned from" in " ".join(shown.out.split())


def test_tasks_for_label_studio_are_written_and_kept_once_they_have_labels(trained: Project, tmp_path: Path) -> None:
    people = tmp_path / "people.json"

    def label() -> None:
        source = trained.folder / "texts.csv"
        request = predict.Request(
            config=trained.config(), input_file=source, output_file=tmp_path / "o.csv", review=people, review_rows=4
        )
        predict.run(request)

    label()
    tasks = json.loads(people.read_text(encoding="utf-8"))
    assert len(tasks) == 5
    label()  # without labels it may be made again
    for one in tasks:
        (answer,) = one["predictions"]
        one["annotations"] = [{"result": answer["result"]}]
    people.write_text(json.dumps(tasks), encoding="utf-8")
    with pytest.raises(UsageError, match="contains labels that people gave"):
        label()
    assert [one.right for one in review.run(trained.config(), people)] == [4, 1]
