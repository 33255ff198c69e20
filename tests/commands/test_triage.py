"""Answers that are not to be trusted become unsure, by a probability or by an accuracy that validation rows promise."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from sentiment_hybrid import cli, paths, tables
from sentiment_hybrid.commands import predict, test, train
from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation.triage import Calibration
from sentiment_hybrid.engine.inference import testing, thresholds
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.training.fingerprint import train_facts
from sentiment_hybrid.errors import ModelError, UsageError, promised_by

from .conftest import Project


def labelled(project: Project, tmp_path: Path, **changes: object) -> list[dict[str, str]]:
    request = predict.Request(
        config=project.config(), input_file=project.folder / "texts.csv", output_file=tmp_path / "out.csv", **changes
    )
    predict.run(request)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_answers_below_a_probability_are_unsure_and_keep_their_score(trained: Project, tmp_path: Path) -> None:
    rows = labelled(trained, tmp_path)
    middle = sorted(float(row["score"]) for row in rows)[len(rows) // 2]
    again = labelled(trained, tmp_path, abstain_below=middle)
    assert [row["score"] for row in again] == [row["score"] for row in rows]
    for before, after in zip(rows, again, strict=True):
        assert after["prediction"] == (before["prediction"] if float(before["score"]) >= middle else "unsure")
    (one,) = predict.run(predict.Request(["a good day"], config=trained.config(), abstain_below=1.0)).predictions
    assert (one.label, one.score is not None) == ("unsure", True)


def test_a_test_reports_coverage_and_keeps_thresholds_beside_the_model(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(testing, "_FEWEST_CALIBRATED", 1)
    config = trained.config()
    result = test.run(config, "linear")
    found = result.entry["triage"]
    assert set(found["coverage"]) == {"0.95", "0.98"}
    assert found["validation"]["rows"] > 0
    assert result.files["risk_coverage"].is_file()
    tables.test(result)
    assert "possible coverage" in capsys.readouterr().out
    directory = paths.published_model(config.paths.models_dir, "linear")
    kept = thresholds.load_calibration(directory, read_info(directory))
    assert kept.rows == found["validation"]["rows"]


def test_an_explained_answer_below_a_probability_is_unsure(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for below, first in ((1.0, "unsure ("), (None, "")):
        request = predict.Request(["a good day"], config=trained.config(), abstain_below=below, explain=True)
        result = predict.run(request)
        (one,) = result.explanations
        predict.show(result)
        assert capsys.readouterr().out.startswith(f"{first}{one.label} {one.score:.3f}")


@pytest.mark.parametrize("fresh", [True, False])
def test_a_promise_by_rows_that_selected_the_epoch_says_so(
    trained: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], fresh: bool
) -> None:
    directory = paths.published_model(trained.config().paths.models_dir, "linear")
    calibration = Calibration.of([0.9] * 500, [True] * 500, fresh=fresh)
    thresholds.save_calibration(directory, read_info(directory), calibration)
    labelled(trained, tmp_path, target_accuracy=0.95)
    assert ("also selected the epoch" in " ".join(capsys.readouterr().err.split())) is not fresh


def test_a_target_accuracy_takes_the_threshold_that_promises_it(trained: Project, tmp_path: Path) -> None:
    directory = paths.published_model(trained.config().paths.models_dir, "linear")
    scores = [float(row["score"]) for row in labelled(trained, tmp_path)]
    middle = sorted(scores)[len(scores) // 2]
    calibration = Calibration.of(scores * 20, [score >= middle for score in scores] * 20)
    thresholds.save_calibration(directory, read_info(directory), calibration)
    rows = labelled(trained, tmp_path, target_accuracy=0.95)
    threshold = calibration.threshold(0.95)
    assert threshold is not None
    sure = [row for row in rows if row["prediction"] != "unsure"]
    assert 0 < len(sure) < len(rows)
    assert min(float(row["score"]) for row in sure) >= threshold.value
    with pytest.raises(UsageError, match=r"99\.999 %") as caught:
        labelled(trained, tmp_path, target_accuracy=0.99999)
    assert "best that can be promised" in caught.value.hint


def validation(project: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bool | None]:
    """How many rows gave the thresholds of the published model, and whether they are fresh."""
    monkeypatch.setattr(testing, "_FEWEST_CALIBRATED", 1)
    found = test.run(project.config("test.baseline=false"), "linear").entry["triage"]["validation"]
    directory = paths.published_model(project.config().paths.models_dir, "linear")
    assert thresholds.load_calibration(directory, read_info(directory)).fresh is found["fresh"]
    return found["rows"], found["fresh"]


def test_rows_that_are_set_aside_neither_select_nor_calibrate_and_give_the_thresholds(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train.run(project.config("train.promise_size=0.4"), "linear", test=False)
    info = read_info(result.model_dir)
    with open_store(project.config().paths.data_db) as store:
        rows = store.count("valid")
    assert info.set_aside == math.ceil(0.4 * rows)
    assert info.valid_rows == rows - info.set_aside
    assert validation(project, monkeypatch) == (info.set_aside, True)


def test_whether_rows_selected_the_epoch_is_known_or_reported_as_unknown(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = paths.published_model(trained.config().paths.models_dir, "linear")
    rows = read_info(directory).valid_rows
    assert validation(trained, monkeypatch) == (rows, False)
    place = directory / paths.MODEL_JSON
    document = json.loads(place.read_text(encoding="utf-8"))
    for changed in ({"valid_rows": None}, {"data_fingerprint": "of a database prepared otherwise"}):
        place.unlink()  # a copy of the model has the same file
        place.write_text(json.dumps({**document, "checksum": None, **changed}), encoding="utf-8")
        assert validation(trained, monkeypatch) == (rows, None)


def test_rows_that_a_search_used_are_not_set_aside(project: Project) -> None:
    with open_store(project.config().paths.data_db) as store:
        rows = store.count("valid")
    purpose = train.Purpose("Optimize", searched=None)
    result = train.run(project.config("train.valid_sample_size=4"), "linear", test=False, purpose=purpose)
    assert read_info(result.model_dir).valid_rows == rows


@pytest.mark.parametrize(("fresh", "words"), [(True, "without"), (False, "also selected"), (None, "may also have")])
def test_the_promise_says_which_rows_it_is_by(fresh: bool | None, words: str) -> None:
    assert words in promised_by(1200, fresh)
    assert promised_by(1200, fresh).startswith("1,200 validation rows")


def test_models_of_before_the_setting_count_as_trained_with_it_unused() -> None:
    assert "promise_size" not in train_facts(Train())
    assert "promise_size" in train_facts(Train(promise_size=0.1))


def test_without_thresholds_it_says_how_to_get_them(trained: Project, tmp_path: Path) -> None:
    directory = paths.published_model(trained.config().paths.models_dir, "linear")
    (directory / paths.TRIAGE_JSON).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no thresholds") as caught:
        labelled(trained, tmp_path, target_accuracy=0.9)
    assert "senthy test" in caught.value.hint
    (directory / paths.TRIAGE_JSON).write_text('{"model": ["another"]}', encoding="utf-8")
    with pytest.raises(ModelError, match="another model"):
        labelled(trained, tmp_path, target_accuracy=0.9)


@pytest.mark.parametrize(("text", "share"), [("95%", 0.95), ("95", 0.95), ("0.9", 0.9), ("99.5 %", 0.995)])
def test_accuracies_can_be_written_as_percent_or_share(text: str, share: float) -> None:
    assert cli._share(text, "--target-accuracy", least=0.5, most=0.9999) == pytest.approx(share)


@pytest.mark.parametrize("text", ["much", "100%", "1", "20%", "-3"])
def test_other_accuracies_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a share from 50%"):
        cli._share(text, "--target-accuracy", least=0.5, most=0.9999)
