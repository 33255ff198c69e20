"""`senthy check`: what it finds in a project with planted defects, and how its file is corrected."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid.commands import check, data
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.states import store
from sentiment_hybrid.errors import DatabaseError, EncoderError, OutputError
from sentiment_hybrid.runtime import Runtime

from .conftest import Project, write_toy_csv

Lines = list[dict[str, str]]
#: Source rows with a planted defect, counted from 1 as in the file of texts.
FLIPPED = range(7, 400, 19)


@pytest.fixture
def flawed(make_project: Callable[..., Project]) -> Project:
    """A prepared project: 21 wrong labels, a pair with two labels, a text in another language."""
    project = make_project(rows=400, prepare=False)
    source = project.folder / "texts.csv"
    with source.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    for row in FLIPPED:
        rows[row - 1][1] = {"positive": "negative", "negative": "positive"}[rows[row - 1][1]]
    rows += [
        ["we all went to see that old film with a friend of mine one day, good", "positive"],
        ["We all went to see that old film with a friend of mine one day; good!!", "negative"],
        ["je ne comprends pas pourquoi les gens aiment tellement cette histoire", "negative"],
    ]
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    data.run(project.config())
    return project


def checked(project: Project, output: Path, **more: object) -> tuple[check.CheckResult, Lines]:
    options = {"features": "tfidf"} | more
    result = check.run(project.config(), Runtime(offline=True), output=output, **options)  # type: ignore[arg-type]
    with output.open(encoding="utf-8", newline="") as file:
        return result, list(csv.DictReader(file))


def fill_in(path: Path, corrections: dict[str, str]) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["correction"] = corrections.get(line["row"], line["correction"])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def learned_rows(project: Project) -> set[int]:
    with open_store(project.config().paths.data_db) as store:
        return {row for name in ("train", "valid") for row in store.read(name).rows.tolist()}


def test_planted_defects_are_flagged_best_first(flawed: Project, tmp_path: Path) -> None:
    result, lines = checked(flawed, tmp_path / "check.csv")
    rows = learned_rows(flawed)
    wrong = {str(row) for row in FLIPPED if row in rows}
    errors = [line for line in lines if "label error" in line["why"]]
    assert len(wrong & {line["row"] for line in errors}) >= 0.8 * len(wrong)
    assert {line["row"] for line in errors[:8]} <= wrong
    assert all(line["likely_label"] != line["label"] for line in errors)
    assert all(float(line["confidence"]) >= 0.5 for line in errors)
    assert {line["split"] for line in lines} <= {"train", "valid"}
    assert {int(line["row"]) for line in lines} <= rows
    if 403 in rows:
        assert "another language" in next(line["why"] for line in lines if line["row"] == "403")
    if {401, 402} <= rows:
        assert "near-duplicate with another label" in next(line["why"] for line in lines if line["row"] == "401")
    assert result.report["flagged"] == len(lines)


def test_the_json_file_has_counts_splits_artefacts_and_examples(flawed: Project, tmp_path: Path) -> None:
    result, lines = checked(flawed, tmp_path / "check.csv")
    report = json.loads(result.json.read_text(encoding="utf-8"))
    assert report == json.loads(json.dumps(result.report))
    assert report["flagged"] == len(lines)
    assert report["counts"]["label error"] == sum("label error" in line["why"] for line in lines)
    assert sum(of["rows"] for of in report["splits"].values()) == 403 - sum(report["dropped"].values())
    assert report["language"] == "en"
    assert report["features"] == "TF-IDF"
    assert {"good", "bad"} <= {one["token"] for one in report["artefacts"]}
    assert report["examples"]["label error"][0]["text"] in {line["text"] for line in lines}


def test_corrected_rows_are_applied_and_not_flagged_again(flawed: Project, tmp_path: Path) -> None:
    output = tmp_path / "check.csv"
    _, lines = checked(flawed, output)
    errors = [line for line in lines if line["why"] == "label error"]
    fill_in(output, {errors[0]["row"]: errors[0]["likely_label"], errors[1]["row"]: "drop", errors[2]["row"]: "keep"})
    applied = data.run(flawed.config(f"data.corrections={output}"))
    assert applied.corrections is not None
    assert [applied.corrections[name] for name in ("changed", "dropped", "kept")] == [1, 1, 1]

    result, again = checked(flawed, output)
    assert result.kept_decisions == 3
    assert [line["correction"] for line in again[:3]] == [errors[0]["likely_label"], "drop", "keep"]
    assert not {line["row"] for line in errors[:3]} & {line["row"] for line in again[3:]}
    # The file still fits the source: given labels are those of the source, not the corrected ones.
    assert not data.run(flawed.config(f"data.corrections={output}")).built


def test_a_labelled_file_is_checked_without_a_database(
    make_project: Callable[..., Project], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(prepare=False)
    source = write_toy_csv(tmp_path / "other.csv", 90)
    lines = source.read_text(encoding="utf-8").splitlines()
    lines[2:90:12] = [line.replace(",positive", ",negative") for line in lines[2:90:12]]
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result, _ = checked(project, tmp_path / "check.csv", data_file=str(source), splits=("train", "valid", "test"))
    assert result.report["rows"] == 90
    check.show(result)
    told = capsys.readouterr().out
    assert f"senthy data --source {source} --corrections {tmp_path / 'check.csv'}" in told
    assert "label error" in told
    assert not project.config().paths.data_db.exists()
    assert not [path for path in (project.folder / "cache").iterdir() if path.name.startswith("check-")]


def test_test_rows_are_flagged_only_when_asked_for(flawed: Project, tmp_path: Path) -> None:
    _, lines = checked(flawed, tmp_path / "test.csv", splits=("test",))
    errors = {int(line["row"]) for line in lines if line["why"] == "label error"}
    assert errors & set(FLIPPED)
    assert not errors & learned_rows(flawed)
    assert {line["split"] for line in lines} == {"test"}


def test_the_encoder_finds_label_errors_and_counts_tokens(flawed: Project, tmp_path: Path) -> None:
    result, lines = checked(flawed, tmp_path / "check.csv", features="encoder")
    assert result.report["features"] == flawed.config().encoder.name
    assert result.report["splits"]["train"]["lengths"]["tokens"][0] > 0
    assert result.report["cross_validated_accuracy"] > 0.5
    assert any("label error" in line["why"] for line in lines)


def test_an_encoder_that_cannot_be_loaded_is_done_without_unless_demanded(
    flawed: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = flawed.config("encoder.name=no/such-encoder")
    result = check.run(config, Runtime(offline=True), output=tmp_path / "check.csv")
    assert result.report["features"] == "TF-IDF"
    assert "looked for with TF-IDF instead" in capsys.readouterr().err
    with pytest.raises(EncoderError):
        check.run(config, Runtime(offline=True), output=tmp_path / "check.csv", features="encoder")


def test_a_file_of_something_else_is_not_overwritten(flawed: Project, tmp_path: Path) -> None:
    other = tmp_path / "mine.csv"
    other.write_text("text,label\nfine,positive\n", encoding="utf-8")
    with pytest.raises(OutputError, match="has not written it"):
        checked(flawed, other)
    assert other.read_text(encoding="utf-8").startswith("text,label")


def test_corrections_of_other_data_are_not_mixed_with_new_ones(
    flawed: Project, make_project: Callable[..., Project], tmp_path: Path
) -> None:
    output = tmp_path / "check.csv"
    _, lines = checked(flawed, output)
    fill_in(output, {lines[0]["row"]: "keep"})
    other = make_project("other", prepare=False)
    write_toy_csv(other.folder / "texts.csv", 90, seed=9)
    data.run(other.config())
    with pytest.raises(OutputError, match="1 correction of other data"):
        checked(other, output)


def test_texts_that_look_like_formulas_are_quoted_on_demand_and_still_apply(
    make_project: Callable[..., Project], tmp_path: Path
) -> None:
    project = make_project(rows=200, prepare=False)
    source = project.folder / "texts.csv"
    content = source.read_text(encoding="utf-8").splitlines()
    content[3:3] = ['"=1+1 the day was good and we all saw it",negative'] * 1
    source.write_text("\n".join(content) + "\n", encoding="utf-8")
    data.run(project.config())
    output = tmp_path / "check.csv"
    everything = ("train", "valid", "test")
    _, lines = checked(project, output, safe_csv=True, splits=everything)
    line = next(line for line in lines if "1+1" in line["text"])
    assert line["text"].startswith("'=1+1")
    fill_in(output, {line["row"]: "positive"})
    _, again = checked(project, output, safe_csv=True, splits=everything)
    assert again[0]["text"] == line["text"]  # no second '
    raw = output.read_text(encoding="utf-8").replace("'=1+1", "=1+1")
    output.write_text(raw, encoding="utf-8")
    _, again = checked(project, output, safe_csv=True, splits=everything)
    assert again[0] == {**line, "correction": "positive"}
    applied = data.run(project.config(f"data.corrections={output}"))
    assert applied.corrections is not None
    assert applied.corrections["changed"] == 1


def test_a_missing_database_says_what_to_type(make_project: Callable[..., Project], tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no prepared database"):
        checked(make_project(prepare=False), tmp_path / "check.csv")


class Killed(BaseException):
    """Stands for a kill: nothing but what is on the disk outlives it."""


def test_a_check_that_was_killed_is_repeated_without_encoding_again_to_the_same_file(
    flawed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SHARD_BYTES", 1)  # a shard for each batch
    encode = store.StateStore._encode
    encoded: list[int] = []
    most = 100

    def encoding(states: store.StateStore, tokenized: Any, windows: Any) -> Any:
        if len(encoded) == most:
            raise Killed
        encoded.append(len(windows))
        return encode(states, tokenized, windows)

    def run(cache: str, output: Path) -> None:
        config = flawed.config("linear.train.token_budget=1024", f"paths.cache_dir={tmp_path / cache}")
        check.run(config, Runtime(offline=True), output=output, features="encoder")

    monkeypatch.setattr(store.StateStore, "_encode", encoding)
    run("a", tmp_path / "whole.csv")
    whole, batches = sum(encoded), len(encoded)
    encoded.clear()
    most = batches - 1
    output = tmp_path / "check.csv"
    with pytest.raises(Killed):
        run("b", output)
    assert not output.exists()
    before, most = sum(encoded), 100
    encoded.clear()
    run("b", output)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert before + sum(encoded) == whole > sum(encoded)
