"""``senthy test``: the model's own labels, normaliser and encoder, on rows that it never saw."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from sentiment_hybrid.commands import data, models, report, test, train
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.inference import predictor, testing
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import DatabaseError, DataError, LabelError, ModelError, OutputError
from sentiment_hybrid.reporting.predictions import read_predictions
from sentiment_hybrid.reporting.results import read_results

from .conftest import write_toy_csv

FORMAT = "project.figure_format"
THREE = ("negative", "neutral", "positive")


def test_scores_belong_to_the_test_split_and_to_the_written_predictions(trained):
    config = trained.config()
    result = test.run(config, "linear")
    from sentiment_hybrid.data.store import open_store

    with open_store(config.paths.data_db) as store:
        examples = store.read("test")
    said = read_predictions(result.files["predictions"], result.labels)
    assert said.rows.tolist() == examples.rows.tolist()
    assert said.labels.tolist() == examples.labels.tolist()
    assert (said.predicted == said.labels).mean() == pytest.approx(result.scores.accuracy.value)
    assert (said.baseline == said.labels).mean() == pytest.approx(result.baseline.accuracy.value)
    assert read_results(trained.folder / "results" / "model_results.json")[-1]["name"] == "LinearRoBERTa_Test"


def test_the_predictions_file_holds_text_label_and_a_probability_per_label(trained):
    result = test.evaluate(trained.config(), "linear")
    with result.files["predictions"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "row", "text", "label", "prediction", "score", "p_negative", "p_positive", "baseline",
    ]  # fmt: skip
    for row in rows:
        assert float(row["p_negative"]) + float(row["p_positive"]) == pytest.approx(1, abs=1e-5)
        assert float(row["score"]) == max(float(row["p_negative"]), float(row["p_positive"]))


def test_another_sample_size_still_tests_on_test_rows_alone(trained):
    from sentiment_hybrid.data.store import open_store

    config = trained.config("test.sample_size=10", "linear.train.sample_size=20")
    result = test.evaluate(config, "linear")
    with open_store(config.paths.data_db) as store:
        of_test = set(store.read("test").rows.tolist())
    rows = read_predictions(result.files["predictions"], result.labels).rows.tolist()
    assert len(rows) == 10
    assert set(rows) <= of_test


def test_a_model_of_another_split_is_refused(trained):
    config = trained.config("data.split_seed=5")
    data.run(config)
    with pytest.raises(DatabaseError, match="trained on another split"):
        test.evaluate(config, "linear")


def test_another_normaliser_in_the_database_leaves_the_split_and_the_result_alone(trained):
    before = test.evaluate(trained.config("test.baseline=false"), "linear")
    changed = trained.config("data.normalizer=none", "test.baseline=false")
    data.run(changed)
    after = test.evaluate(changed, "linear")
    assert after.scores.accuracy == before.scores.accuracy, "the model's own normaliser was used"


def test_data_with_other_labels_is_refused_with_both_lists(trained):
    config = trained.config("data.label_map={negative: sad, positive: glad}")
    data.run(config)
    with pytest.raises(LabelError, match="labels sad, glad, but the model has negative, positive"):
        test.evaluate(config, "linear")


def test_a_model_of_another_head_than_asked_for_is_refused(trained):
    directory = trained.folder / "models" / "linear_roberta_model_final"
    with pytest.raises(ModelError, match="is a linear model, not lstm"):
        test.evaluate(trained.config(), "lstm", load_model_path=directory)


def test_sizes_come_from_the_model_and_not_from_the_config(project):
    train.run(project.config(), "lstm", test=False)
    result = test.evaluate(project.config("lstm.head.hidden=64", "encoder.max_length=24"), "lstm")
    assert result.rows > 0


def test_the_baseline_is_fitted_once_per_training_set(trained, monkeypatch):
    from sentiment_hybrid.engine.evaluation import baseline

    first = test.evaluate(trained.config(), "linear")
    monkeypatch.setattr(baseline, "fit", lambda *a, **k: pytest.fail("fitted again"))
    again = test.evaluate(trained.config(), "linear")
    assert again.baseline.accuracy == first.baseline.accuracy


def test_a_file_of_ones_own_is_tested_and_its_overlap_with_training_reported(trained):
    fresh = write_toy_csv(trained.folder / "fresh.csv", 40, seed=9)
    result = test.evaluate(trained.config(), "linear", data_file=fresh)
    assert result.rows == 40
    assert result.overlap == {"rows": 0, "of": 40}
    assert "fresh" in result.files["predictions"].name
    seen = test.evaluate(trained.config(), "linear", data_file=trained.folder / "texts.csv")
    assert seen.overlap["rows"] == pytest.approx(0.8 * 240, abs=30), "train and valid, but not test"


def test_files_of_one_stem_and_models_of_one_head_keep_their_own_figures_and_predictions(project):
    train.run(project.config(), "han", test=False)
    for folder in ("a", "b"):
        (project.folder / folder).mkdir()
        write_toy_csv(project.folder / folder / "tweets.csv", 12, seed=ord(folder))
    own = {"split": test.evaluate(project.config("test.baseline=false"), "han")}
    own |= {f: test.evaluate(project.config(), "han", data_file=project.folder / f / "tweets.csv") for f in ("a", "b")}
    mini = test.evaluate(
        project.config(), load_model_path=predictor.mini("han"), data_file=project.folder / "a" / "tweets.csv"
    )
    files = [path for result in (*own.values(), mini) for path in result.files.values()]
    assert len(set(files)) == len(files) == 16
    for result, rows in zip((*own.values(), mini), (None, 12, 12, 12), strict=True):
        said = read_predictions(result.files["predictions"], result.labels)
        assert len(said.rows) == (rows or result.rows)
        assert (said.predicted == said.labels).mean() == pytest.approx(result.scores.accuracy.value)


def test_labels_of_a_file_are_read_as_senthy_data_would(trained):
    file = trained.folder / "stars.csv"
    file.write_text("text,label\na good day,4.0\na bad day,0.0\na nasty day,0\n", encoding="utf-8")
    result = test.evaluate(trained.config(), "linear", data_file=file)
    assert np.array(result.scores.confusion).sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("text,label\nfine,glad\nmeh,neutral\nbad,sad\n", DataError, "contains 'glad', 'neutral', 'sad'"),
        ("text,label\n,positive\n  ,negative\n", DataError, "has no texts"),
        ("words,label\nfine,positive\n", DataError, "text"),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused(trained, content, error, message):
    file = trained.folder / "own.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message):
        test.evaluate(trained.config(), "linear", data_file=file)


def test_a_file_with_one_class_only_can_be_tested(trained):
    file = trained.folder / "own.csv"
    file.write_text("text,label\na good day,Positive\na fine film,positive\n", encoding="utf-8")
    result = test.evaluate(trained.config(), "linear", data_file=file)
    assert result.rows == 2


def test_rows_that_a_model_cannot_answer_are_counted_and_the_others_tested(trained, capsys):
    file = trained.folder / "own.csv"
    file.write_text("text,label\nfine,positive\nmeh,neutral\nbad,negative\nso so,Neutral\nwell,\n", encoding="utf-8")
    result = test.run(trained.config(), "linear", data_file=file)
    assert result.rows == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "3 rows skipped" in said
    assert "neutral (1), Neutral (1), empty (1)" in said
    entry = read_results(trained.folder / "results" / "model_results.json")[-1]
    assert entry["unanswered"] == {"neutral": 1, "Neutral": 1, "": 1}


@pytest.fixture
def of_three(make_project):
    project = make_project(labels=THREE)
    train.run(project.config(), "linear", test=False)
    return project


def test_a_model_of_three_labels_answers_rows_of_two_among_these(of_three, capsys):
    two = write_toy_csv(of_three.folder / "two.csv", 40, seed=9)
    result = test.run(of_three.config(), "linear", data_file=two)
    assert result.labels == ("negative", "positive")
    assert np.array(result.scores.confusion).shape == (2, 2)
    assert result.baseline is not None
    assert "only the labels negative, positive occur" in " ".join(capsys.readouterr().err.split())
    with result.files["predictions"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    among = Predictor(result.model_dir, precision="fp32", labels=result.labels)
    expected = among.predict_proba([row["text"] for row in rows])
    assert [name for name in rows[0] if name.startswith("p_")] == ["p_negative", "p_positive"]
    np.testing.assert_allclose([float(row["p_positive"]) for row in rows], expected[:, 1], atol=1e-4)
    entry = read_results(of_three.folder / "results" / "model_results.json")[-1]
    assert (entry["labels"], entry["model_labels"]) == (["negative", "positive"], ["negative", "neutral", "positive"])


def test_a_model_of_three_labels_answers_a_file_of_one_among_all(of_three):
    file = of_three.folder / "own.csv"
    file.write_text("text,label\na good day,positive\na fine film,positive\n", encoding="utf-8")
    assert test.evaluate(of_three.config(), "linear", data_file=file).labels == ("negative", "neutral", "positive")


@pytest.mark.parametrize("labels", [THREE[::2], THREE])
def test_a_database_of_fewer_or_more_labels_is_tested_among_those_in_common(make_project, capsys, labels):
    model = make_project(labels=THREE if len(labels) == 2 else THREE[::2])
    train.run(model.config(), "linear", test=False)
    config = model.config(f"paths.data_db={make_project('other', labels=labels).config().paths.data_db}")
    document = model.folder / "models" / "linear_roberta_model_final" / "model.json"
    with open_store(config.paths.data_db) as store:
        facts = json.loads(document.read_text()) | {"split_fingerprint": store.split_fingerprint, "checksum": None}
        in_test = store.count("test")
    document.write_text(json.dumps(facts))
    result = test.evaluate(config, "linear")
    assert result.labels == ("negative", "positive")
    assert result.baseline is None, "it would be trained on other rows than the model"
    said = " ".join(capsys.readouterr().err.split())
    if labels == THREE:
        assert 0 < result.rows < in_test
        assert f"{in_test - result.rows:,} rows skipped" in said
    else:
        assert result.rows == in_test
        assert "only the labels negative, positive occur" in said


def test_a_file_has_no_baseline_where_the_database_has_other_labels(of_three):
    document = of_three.folder / "models" / "linear_roberta_model_final" / "model.json"
    merged = of_three.config("data.label_map={negative: negative, neutral: negative, positive: positive}")
    data.run(merged, refresh=True)
    with open_store(merged.paths.data_db) as store:
        assert store.labels == ("negative", "positive")
        facts = json.loads(document.read_text()) | {"split_fingerprint": store.split_fingerprint, "checksum": None}
    document.write_text(json.dumps(facts))
    fresh = write_toy_csv(of_three.folder / "fresh.csv", 40, seed=9)
    assert test.evaluate(of_three.config(), "linear", data_file=fresh).baseline is None


def test_a_missing_model_says_what_to_type(project):
    with pytest.raises(ModelError) as caught:
        test.evaluate(project.config(), "han")
    assert "senthy train" in caught.value.hint


def test_figures_are_written_in_the_format_that_is_set_and_tested_again_for_another(trained):
    tested = test.run(trained.config("project.figure_format=svg"), "linear")
    assert {name: path.suffix for name, path in tested.files.items()} == {
        "predictions": ".csv",
        "confusion_matrix": ".svg",
        "reliability": ".svg",
        "risk_coverage": ".svg",
    }
    assert all(path.is_file() for path in tested.files.values())
    info = read_info(tested.model_dir)
    kept = [testing.kept_result(trained.config(*more), tested.model_dir, info) for more in ((), (f"{FORMAT}=svg",))]
    assert [one is not None for one in kept] == [False, True]


def test_a_damaged_results_file_is_named_and_goes_on_growing(trained, caplog):
    results = trained.folder / "results" / "model_results.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text('[{"name": "old", "loss": NaN}, {"name": "cut')
    test.run(trained.config(), "linear")
    assert f"the results file {results} was damaged: 1 entry could be read and was kept" in caplog.text
    assert [entry["name"] for entry in read_results(results)] == ["old", "LinearRoBERTa_Test"]


@pytest.mark.parametrize("lost", ["test", "files", "comparison_with_baseline", "predictions_sha256"])
def test_an_incomplete_entry_is_no_test_that_could_be_kept(trained, lost):
    tested = test.run(trained.config(), "linear")
    info = read_info(tested.model_dir)
    assert testing.kept_result(trained.config(), tested.model_dir, info).scores == tested.scores
    path = trained.folder / "results" / "model_results.json"
    for damaged in ({}, {lost: "x"}, {lost: 5}, {lost: [1]}):
        (entry,) = read_results(path)
        path.write_text(json.dumps([{key: value for key, value in entry.items() if key != lost} | damaged]))
        assert testing.kept_result(trained.config(), tested.model_dir, info) is None
        path.write_text(json.dumps([entry]))


def test_a_model_directory_moved_elsewhere_is_tested_from_there(trained, tmp_path):
    moved = shutil.move(trained.folder / "models" / "linear_roberta_model_final", tmp_path / "mine")
    from pathlib import Path

    assert test.evaluate(trained.config(), load_model_path=Path(moved)).model == "LinearRoBERTa"


def test_a_file_is_tested_though_the_database_is_damaged(trained):
    database = trained.folder / "data" / "tweets.db"
    database.write_bytes(b"junk")
    fresh = write_toy_csv(trained.folder / "fresh.csv", 40, seed=9)
    result = test.evaluate(trained.config(), "linear", data_file=fresh)
    assert result.baseline is None
    assert result.overlap is None


def test_a_results_folder_that_cannot_be_written_is_reported(trained):
    blocked = trained.folder / "blocked"
    blocked.write_text("a file in the way")
    with pytest.raises(OutputError):
        test.run(trained.config(f"paths.results_dir={blocked}"), "linear")


def test_a_test_sample_above_what_there_is_is_refused(trained):
    with pytest.raises(DataError, match=r"100,?000"):
        test.evaluate(trained.config("test.sample_size=100000"), "linear")


def test_a_sample_leaves_the_files_and_figures_of_the_whole_test(trained):
    whole = test.run(trained.config(), "linear")
    sample = test.run(trained.config("test.sample_size=10"), "linear")
    assert sample.files["predictions"].name == "test_10_predictions.csv"
    content = report.gather(trained.config())
    assert content.notes == []
    assert sorted(group.rows for group in content.groups) == [10, whole.rows]
    assert [one.test["macro_f1"] for one in models.run(trained.config())] == [whole.scores.macro_f1.value]


def test_a_sample_of_a_sorted_file_keeps_the_shares_of_the_classes_and_is_nested(trained):
    fresh = write_toy_csv(trained.folder / "fresh.csv", 80, seed=9)
    header, *lines = fresh.read_text(encoding="utf-8").splitlines()
    kept = sorted(lines, key=lambda line: line.endswith("positive"))[:60]  # 40 negative, then 20 positive
    fresh.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    chosen = []
    for size in (6, 12):
        result = test.evaluate(trained.config(f"test.sample_size={size}"), "linear", data_file=fresh)
        assert np.array(result.scores.confusion).sum(axis=1).tolist() == [size * 2 // 3, size // 3]
        chosen.append(set(read_predictions(result.files["predictions"], result.labels).rows.tolist()))
    assert chosen[0] < chosen[1]


def write_rows(path, rows, *, values, column="text"):
    """Toy rows of two or three labels, each label written as its value; the other text column misleads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", column, "label"] if column != "text" else ["text", "label"])
        for number, row in enumerate(rows):
            text = [row["text"]] if column == "text" else [f"the day was it {number}", row["text"]]
            out.writerow([*text, values[row["label"]]])
    return path


def toy_rows(project, count=60, *, labels=THREE):
    with write_toy_csv(project.folder / "toy.csv", count, seed=5, labels=labels).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_mean_what_they_meant_in_training_though_a_class_is_absent(make_project, capsys):
    project = make_project(prepare=False)
    values = {"negative": "0", "neutral": "1", "positive": "2"}
    write_rows(project.folder / "texts.csv", toy_rows(project, 240), values=values)
    data.run(project.config())
    train.run(project.config(), "linear", test=False)
    without = [row for row in toy_rows(project) if row["label"] != "positive"]
    result = test.run(
        project.config(), "linear", data_file=write_rows(project.folder / "01.csv", without, values=values)
    )
    assert result.labels == ("negative", "neutral")
    assert "labels are read as 0 = negative, 1 = neutral" in " ".join(capsys.readouterr().err.split())
    odd = write_rows(project.folder / "odd.csv", toy_rows(project), values=dict(zip(THREE, "024", strict=True)))
    with pytest.raises(LabelError, match="'0', '2', '4', whose usual meaning is not that of the model's"):
        test.run(project.config(), "linear", data_file=odd)


def test_a_model_reads_the_column_that_it_was_trained_on_and_says_so(make_project, capsys):
    project = make_project(prepare=False)
    values = dict(zip(THREE, THREE, strict=True))
    both = write_rows(project.folder / "texts.csv", toy_rows(project, 240), values=values, column="text_clean")
    data.run(project.config("data.text_column=text_clean"))
    train.run(project.config(), "linear", test=False)
    test.run(project.config(), "linear", data_file=both)
    assert "texts.csv: column 'text_clean' is read, as in the model's training" in " ".join(
        capsys.readouterr().err.split()
    )
    raw = write_rows(project.folder / "raw.csv", toy_rows(project), values=values)
    test.run(project.config(), "linear", data_file=raw)
    assert "column 'text' is read, but the model was trained on 'text_clean'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_model_of_an_older_version_that_remembers_nothing_still_works(trained):
    document = trained.folder / "models" / "linear_roberta_model_final" / "model.json"
    facts = json.loads(document.read_text())
    del facts["checksum"]
    assert facts.pop("text_column") == "text"
    assert facts.pop("label_coding") == {"negative": "negative", "positive": "positive"}
    document.write_text(json.dumps(facts))
    file = trained.folder / "stars.csv"
    file.write_text("text,label\na good day,4\na bad day,0\n", encoding="utf-8")
    assert test.evaluate(trained.config(), "linear", data_file=file).rows == 2
