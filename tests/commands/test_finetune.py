"""``senthy finetune``: a model goes on with further texts; its parent and its tests stay as they were."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.commands import data, finetune, models, report, test, train
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.splits import hash_raw
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.errors import (
    ConfigError,
    DatabaseError,
    DataError,
    LabelError,
    LockedError,
    ModelError,
    OutputError,
    SourceError,
    TrainingError,
    UsageError,
)
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime

from .conftest import write_toy_csv


def final(project, head="linear"):
    return project.folder / "models" / f"{head}_roberta_model_final"


def new_texts(project, rows=120, **changes):
    return write_toy_csv(project.folder / "new.csv", rows, seed=9, **changes)


def rewritten(path: Path, change) -> Path:
    """The rows of a CSV, each (text, label) as ``change`` gives it; None leaves it out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    kept = [changed for row in rows if (changed := change(*row)) is not None]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *kept])
    return path


def weights(directory):
    return load_model(directory).classifier.head.state_dict()


# --- what it does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "name"), [("lstm", "LSTMRoBERTa"), ("han", "HANRoBERTa"), ("linear", "LinearRoBERTa")]
)
def test_a_fine_tuned_model_is_published_beside_its_parent_with_results_and_lineage(project, head, name):
    config = project.config()
    train.run(config, head, test=False)
    before = read_info(final(project, head))
    result = finetune.run(config, head, data_file=new_texts(project))
    assert result.model_dir == project.folder / "models" / f"{head}_roberta_model_finetuned"
    assert read_info(final(project, head)) == before, "the parent is not changed"
    info = read_info(result.model_dir)
    assert info.parent["weights_sha256"] == before.weights_sha256 != info.weights_sha256
    assert (info.parent["run_id"], info.parent["created"]) == (before.run_id, before.created)
    assert (info.labels, info.normalizer, info.head_config) == (before.labels, before.normalizer, before.head_config)
    run = Run(result.run_dir)
    assert run.meta()["parent"] == info.parent
    assert "finished" in run.meta()
    assert [facts["epoch"] for facts in run.epochs()] == list(range(1, result.epochs + 1))
    assert (run.folder / paths.RUN_CURVES).stat().st_size > 0
    entry = read_results(project.folder / "results" / "model_results.json")[-1]
    assert entry["name"] == f"{name}_Finetune"
    assert entry["parent"]["weights_sha256"] == before.weights_sha256
    assert entry["new_test"]["after"]["accuracy"]["value"] == result.new_test.after.accuracy.value
    assert entry["old_test"]["before"]["accuracy"]["value"] == result.old_test.before.accuracy.value
    for file in result.files.values():
        assert file.stat().st_size > 0


def test_the_temperature_is_that_of_the_new_validation_rows(trained, monkeypatch):
    monkeypatch.setattr(metrics, "LEAST_ERRORS", 0)
    monkeypatch.setattr(metrics, "LEAST_ROWS", 10)
    config = trained.config("finetune.epochs=1")
    document = final(trained) / paths.MODEL_JSON
    document.write_text(json.dumps({**json.loads(document.read_text()), "temperature": 8.5, "checksum": None}))
    result = finetune.run(config, "linear", data_file=new_texts(trained, rows=200))
    info = read_info(result.model_dir)
    assert info.temperature != 8.5
    with open_store(paths.finetune_db(trained.folder / "cache", info.data_fingerprint)) as store:
        valid = store.read("valid")
    said = np.asarray(Predictor(result.model_dir, precision="fp32").predict_proba(valid.texts), dtype=float)
    uncalibrated = said**info.temperature / (said**info.temperature).sum(axis=1, keepdims=True)
    assert metrics.temperature(valid.labels, uncalibrated) == pytest.approx(info.temperature, abs=0.02)


def test_too_few_new_validation_errors_keep_the_temperature_of_the_parent(trained, capsys):
    document = final(trained) / paths.MODEL_JSON
    document.write_text(json.dumps({**json.loads(document.read_text()), "temperature": 1.5, "checksum": None}))
    result = finetune.run(trained.config("finetune.epochs=1"), "linear", data_file=new_texts(trained))
    assert read_info(result.model_dir).temperature == 1.5
    assert "calibration is skipped, and the temperature is 1.5" in capsys.readouterr().err


def test_predict_and_test_work_with_the_result(trained):
    config = trained.config()
    result = finetune.run(config, "linear", data_file=new_texts(trained))
    assert Predictor(result.model_dir).predict("a good day").label in ("negative", "positive")
    tested = test.evaluate(config, load_model_path=result.model_dir)
    assert tested.scores.accuracy.value == result.old_test.after.accuracy.value
    assert tested.rows == result.old_test.rows


def test_reports_and_the_list_of_models_show_the_new_test(trained):
    config = trained.config()
    result = finetune.run(config, "linear", data_file=new_texts(trained))
    content = report.gather(config)
    assert content.notes == []
    (group,) = content.groups
    assert (group.title, group.rows) == ("New test rows of new.csv", result.new_test.rows)
    assert group.models[0].scores.to_dict() == result.new_test.after.to_dict()
    figure = {one.model.id: one.test.get("macro_f1") for one in models.run(config)}[result.run_dir.name]
    assert figure == result.new_test.after.macro_f1.value


def test_before_is_what_the_parent_says_and_after_what_the_new_model_says(trained):
    config = trained.config()
    parent = test.evaluate(config, "linear").scores.accuracy.value
    result = finetune.run(config, "linear", data_file=new_texts(trained))
    assert result.old_test.before.accuracy.value == parent
    assert result.old_test.comparison.accuracy.value == pytest.approx(
        result.old_test.after.accuracy.value - parent, abs=1e-12
    )


def test_what_is_forgotten_on_the_old_test_is_shown(project):
    opposite = {"negative": "positive", "positive": "negative"}
    file = rewritten(new_texts(project, 240), lambda text, label: (text, opposite[label]))
    many = [f"{section}.epochs=10" for section in ("linear.train", "finetune")]
    fast = [f"{section}.encoder_learning_rate=0.005" for section in ("linear.train", "finetune")]
    changes = ("encoder.trainable_layers=all", "linear.train.patience=null", "finetune.patience=null")
    config = project.config(*many, *fast, *changes, "finetune.learning_rate=0.01")
    train.run(config, "linear", test=False)
    result = finetune.run(config, "linear", data_file=file)
    assert result.new_test.comparison.accuracy.value > 0.3
    assert result.old_test.comparison.accuracy.value < -0.3
    assert result.old_test.comparison.better("accuracy") == -1


def test_a_missing_file_is_reported_before_model_and_database(capsys, tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        finetune.run(Config(), load_model_path=tmp_path / "gone", data_file=tmp_path / "gone.csv")
    assert capsys.readouterr().err == ""


def test_settings_come_from_finetune_and_else_from_the_models_own_training(trained):
    config = trained.config("finetune.epochs=1", "finetune.learning_rate=0.003", "linear.train.class_weights=balanced")
    result = finetune.run(config, "linear", data_file=new_texts(trained))
    epochs = Run(result.run_dir).epochs()
    assert len(epochs) == 1
    assert 0 < epochs[0]["learning_rate"] <= 0.003
    assert result.train_rows == pytest.approx(120 * 0.7, abs=15)


def test_a_model_keeps_its_own_sizes_whatever_the_config_says(trained):
    config = trained.config("encoder.max_length=24", "encoder.name=/nowhere", "data.normalizer=none")
    info = read_info(finetune.run(config, "linear", data_file=new_texts(trained)).model_dir)
    assert (info.max_length, info.normalizer) == (16, "tweet@3")


def test_a_trained_encoder_goes_on_being_trained_and_is_inside(project):
    config = project.config("encoder.trainable_layers=1", "finetune.encoder_learning_rate=0.01")
    train.run(config, "linear", test=False)
    parent = load_model(final(project))
    result = finetune.run(config, "linear", data_file=new_texts(project))
    tuned = load_model(result.model_dir)
    assert tuned.info.encoder_inside
    assert tuned.info.trainable_layers == 1
    changed = {
        name
        for name, value in tuned.encoder.model.state_dict().items()
        if not torch.equal(value, parent.encoder.model.state_dict()[name])
    }
    assert changed
    assert all("layer.1." in name for name in changed), "the last layer alone is trained"


def test_more_encoder_layers_can_be_trained_than_before_each_at_its_rate(trained):
    changes = ("trainable_layers=all", "layer_decay=0.5", "encoder_learning_rate=0.01")
    config = trained.config(*(f"finetune.{change}" for change in changes))
    result = finetune.run(config, "linear", data_file=new_texts(trained))
    tuned, parent = load_model(result.model_dir), load_model(final(trained))
    assert tuned.info.encoder_inside
    assert tuned.info.encoder_fingerprint != parent.info.encoder_fingerprint
    moved = {
        place: max(
            float((value - parent.encoder.model.state_dict()[name]).abs().max())
            for name, value in tuned.encoder.model.state_dict().items()
            if f"layer.{place}." in name
        )
        for place in (0, 1)
    }
    assert 0 < moved[0] < moved[1], "the lower layer moved less"


def test_a_model_can_be_fine_tuned_again_and_knows_its_ancestors(trained):
    first = finetune.run(trained.config(), "linear", data_file=new_texts(trained))
    with pytest.raises(UsageError, match="would overwrite the original model"):
        finetune.run(trained.config(), load_model_path=first.model_dir, data_file=new_texts(trained))
    second = finetune.run(
        trained.config(),
        load_model_path=first.model_dir,
        data_file=write_toy_csv(trained.folder / "newer.csv", 120, seed=11),
        save_path=trained.folder / "models" / "second",
    )
    lineage = read_info(second.model_dir).parent
    assert lineage["run_id"] == first.run_dir.name
    assert lineage["parent"]["run_id"] == read_info(final(trained)).run_id


def test_that_no_epoch_was_better_is_said_and_the_best_of_them_published(trained):
    config = trained.config("finetune.learning_rate=1e-12", "finetune.patience=null")
    result = finetune.run(config, "linear", data_file=new_texts(trained))
    assert result.improved is False
    assert result.valid["macro_f1"] == result.valid_before["macro_f1"]
    assert result.model_dir.is_dir()


def test_figures_of_a_run_in_python(trained):
    import sentiment_hybrid

    result = sentiment_hybrid.finetune(trained.config(), "linear", data_file=new_texts(trained))
    assert result.new_test.rows > 0


# --- the new texts ---------------------------------------------------------------------------------------------------


def write_as(kind: str, project) -> Path | str:
    """The new texts in another format, with labels spelt in other ways."""
    file = new_texts(project)
    rows = list(csv.DictReader(file.open(encoding="utf-8", newline="")))
    if kind == "jsonl.gz":
        path = project.folder / "new.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as out:
            out.writelines(json.dumps({"tweet": r["text"], "sentiment": r["label"].upper()}) + "\n" for r in rows)
        return path
    if kind == "sqlite":
        path = project.folder / "new.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE texts (text TEXT, target REAL)")
            connection.executemany(
                "INSERT INTO texts VALUES (?, ?)", [(r["text"], 4.0 * (r["label"] == "positive")) for r in rows]
            )
        return path
    return "sample"


@pytest.mark.parametrize("kind", ["jsonl.gz", "sqlite", "sample"])
def test_any_source_is_taken_and_its_labels_are_mapped(trained, kind):
    result = finetune.run(trained.config("finetune.epochs=1"), "linear", data_file=write_as(kind, trained))
    assert result.labels == ("negative", "positive")
    assert all(sum(row) > 0 for row in result.new_test.after.confusion)


def test_a_label_map_says_what_odd_labels_mean(trained):
    file = rewritten(new_texts(trained), lambda text, label: (text, {"negative": "boo", "positive": "yay"}[label]))
    config = trained.config("data.label_map={yay: positive, boo: negative}")
    result = finetune.run(config, "linear", data_file=file)
    assert result.labels == ("negative", "positive"), "in the model's order"


def keys(path, *splits):
    with open_store(path) as store:
        return np.concatenate([store.key_hashes(split) for split in splits])


def tuning_database(project, result):
    return paths.finetune_db(project.folder / "cache", read_info(result.model_dir).data_fingerprint)


def test_old_test_texts_are_not_trained_on_and_old_training_texts_not_tested_on(trained):
    with (trained.folder / "texts.csv").open(encoding="utf-8") as old, new_texts(trained, 200).open("a") as file:
        file.writelines(line.upper() if number % 2 else line for number, line in enumerate(list(old)[1:]))
    file = rewritten(trained.folder / "new.csv", lambda text, label: (text, label.lower()))
    # Other sizes than those of the old split, so that the same hash falls into another split.
    config = trained.config("finetune.test_size=0.4", "finetune.valid_size=0.3")
    result = finetune.run(config, "linear", data_file=file)
    old_db, new_db = trained.folder / "data" / "tweets.db", tuning_database(trained, result)
    assert not set(keys(old_db, "test")) & set(keys(new_db, "train", "valid"))
    assert not set(keys(old_db, "train", "valid")) & set(keys(new_db, "test"))
    left_out = result.left_out
    assert left_out["text that the model was trained on"] == len(
        [key for key in hash_keys(trained.folder / "texts.csv", 0.0, 0.4) if key in set(keys(old_db, "train", "valid"))]
    )


def hash_keys(path, low, high):
    texts = [row["text"] for row in csv.DictReader(path.open(encoding="utf-8", newline=""))]
    first, second = hash_raw(texts, 0, version=2)
    share = first / 2.0**64
    return second[(share >= low) & (share < high)].tolist()


def test_the_count_of_old_test_texts_is_reported(trained):
    old_db = trained.folder / "data" / "tweets.db"
    with open_store(old_db) as store:
        tested = store.read("test", with_raw=True)
    names = ("negative", "positive")
    with new_texts(trained, 160).open("a", encoding="utf-8") as file:
        file.writelines(f"{raw},{names[label]}\n" for raw, label in zip(tested.raw, tested.labels, strict=True))
    config = trained.config("finetune.test_size=0.01", "finetune.valid_size=0.3")
    result = finetune.run(config, "linear", data_file=trained.folder / "new.csv")
    stay = sum(key in set(keys(old_db, "test")) for key in keys(tuning_database(trained, result), "test"))
    assert result.left_out["text that the model is tested on"] == len(tested) - stay


def test_without_the_old_database_that_is_said_and_the_model_stands_for_its_new_split(trained, capsys):
    (trained.folder / "data" / "tweets.db").unlink()
    result = finetune.run(trained.config(), "linear", data_file=new_texts(trained))
    assert result.old_test is None
    assert "no prepared database" in result.old_test_missing
    assert "not checked" in capsys.readouterr().err
    data.run(trained.config())
    with pytest.raises(DatabaseError, match="trained on another split"):
        test.evaluate(trained.config(), load_model_path=result.model_dir)
    again = finetune.run(trained.config(), "linear", data_file=new_texts(trained))
    assert test.evaluate(trained.config(), load_model_path=again.model_dir).rows == again.old_test.rows


def test_while_the_old_database_is_locked_nothing_is_trained(trained, monkeypatch):
    monkeypatch.setattr("sentiment_hybrid.data.store.LOCK_SECONDS", 0.05)
    other = sqlite3.connect(trained.folder / "data" / "tweets.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LockedError, match="locked by another program"):
        finetune.run(trained.config(), "linear", data_file=new_texts(trained))
    other.close()
    assert not paths.finetuned_model(trained.folder / "models", "linear").exists()


def test_a_file_to_test_on_is_checked_for_the_texts_of_fine_tuning_too(trained):
    file = new_texts(trained)
    result = finetune.run(trained.config(), "linear", data_file=file)
    tested = test.evaluate(trained.config(), load_model_path=result.model_dir, data_file=file)
    assert tested.overlap["of"] == 120
    assert tested.overlap["rows"] == 120 - result.new_test.rows
    parent = test.evaluate(trained.config(), "linear", data_file=file)
    assert parent.overlap["rows"] == 0


# --- other labels ----------------------------------------------------------------------------------------------------


def with_three_labels(project):
    turn = {"good": "joy", "great": "joy", "bad": "anger", "awful": "anger"}

    def relabel(text, label):
        return text, next((name for word, name in turn.items() if word in text.split()), "other")

    return rewritten(new_texts(project, 240), relabel)


def test_other_labels_are_refused_with_both_lists_and_the_way_out(trained):
    with pytest.raises(LabelError, match=r"negative, positive; the column contains 'anger', 'joy', 'other'") as caught:
        finetune.run(trained.config(), "linear", data_file=with_three_labels(trained))
    assert "--new-labels" in caught.value.hint
    assert "--label-map" in caught.value.hint
    assert not (trained.folder / "models" / "linear_roberta_model_finetuned").exists()


@pytest.mark.parametrize("head", ["lstm", "han", "linear"])
def test_new_labels_replace_the_output_layer_and_say_so(project, head, capsys):
    config = project.config()
    train.run(config, head, test=False)
    result = finetune.run(config, head, data_file=with_three_labels(project), new_labels=True)
    assert result.labels == read_info(result.model_dir).labels == ("anger", "joy", "other")
    assert "the output layer is new, for anger, joy, other instead of negative" in capsys.readouterr().err
    assert result.new_test.before is result.old_test is result.improved is None
    assert "labels were negative, positive" in result.old_test_missing
    assert set(Predictor(result.model_dir).predict("a good day").probabilities) == {"anger", "joy", "other"}
    assert read_results(project.folder / "results" / "model_results.json")[-1]["old_test"] is None


def test_new_labels_that_are_the_old_ones_replace_nothing(trained, capsys):
    plain = finetune.run(trained.config(), "linear", data_file=new_texts(trained))
    expected = read_info(plain.model_dir).weights_sha256
    result = finetune.run(trained.config(), "linear", data_file=new_texts(trained), new_labels=True)
    assert read_info(result.model_dir).weights_sha256 == expected
    assert result.labels == result.old_labels
    assert "fresh" not in capsys.readouterr().err


@pytest.mark.parametrize("label", ["negative", "positive"])
def test_data_without_a_class_of_the_model_are_refused(trained, label):
    file = rewritten(new_texts(trained), lambda text, given: (text, given) if given != label else None)
    with pytest.raises(
        LabelError, match=f"no usable row of class {label}, which the model has; they have 60"
    ) as caught:
        finetune.run(trained.config(), "linear", data_file=file)
    assert "unlearns" in caught.value.hint


# --- bad input -------------------------------------------------------------------------------------------------------


def test_texts_that_the_model_is_tested_on_alone_are_no_data(trained):
    with open_store(trained.folder / "data" / "tweets.db") as store:
        tested = store.read("test", with_raw=True)
    file = trained.folder / "new.csv"
    names = ("negative", "positive")
    lines = [f"{raw},{names[label]}\n" for raw, label in zip(tested.raw, tested.labels, strict=True)]
    file.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    config = trained.config("finetune.test_size=0.001", "finetune.valid_size=0.2")
    with pytest.raises(DataError, match="nothing is left to train on"):
        finetune.run(config, "linear", data_file=file)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("text,label\ngood,positive\nbad,negative\n", DataError, "too few"),
        ("text,label\n", DataError, "no rows"),
        ("words,label\ngood,positive\n", DataError, "text column"),
        ("text,label\ngood,\nbad,negative\n", LabelError, "empty label"),
    ],
)
def test_a_file_that_will_not_do_is_refused_and_leaves_nothing(trained, content, error, message):
    file = trained.folder / "new.csv"
    file.write_text(content, encoding="utf-8")
    runs = sorted((trained.folder / "results" / "runs").iterdir())
    with pytest.raises(error, match=message):
        finetune.run(trained.config(), "linear", data_file=file)
    assert sorted((trained.folder / "results" / "runs").iterdir()) == runs
    assert not list((trained.folder / "cache").rglob("finetune/*"))


def test_too_few_rows_name_the_settings_of_fine_tuning(trained):
    file = trained.folder / "few.csv"
    file.write_text("text,label\ngood,positive\nbad,negative\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        finetune.run(trained.config(), "linear", data_file=file)
    assert "finetune.test_size" in caught.value.hint


def test_a_missing_file_and_a_folder_are_reported(trained):
    with pytest.raises(SourceError, match="there is no file"):
        finetune.run(trained.config(), "linear", data_file=trained.folder / "nope.csv")
    (trained.folder / "empty").mkdir()
    with pytest.raises(SourceError, match="there is no file of a known format"):
        finetune.run(trained.config(), "linear", data_file=trained.folder / "empty")


def test_a_sample_above_what_there_is_or_without_a_label_is_refused(trained):
    with pytest.raises(DataError, match="sample size is 1,000"):
        finetune.run(trained.config("finetune.sample_size=1000"), "linear", data_file=new_texts(trained))
    counted = iter(range(1000))
    rare = rewritten(
        new_texts(trained, 240),
        lambda text, label: (text, label) if label == "negative" or next(counted) < 20 else None,
    )
    with pytest.raises(TrainingError, match="do not include all labels") as caught:
        finetune.run(trained.config("finetune.sample_size=2"), "linear", data_file=rare)
    assert "finetune.sample_size" in caught.value.hint


def test_a_model_of_another_head_or_not_ours_is_refused(trained, tmp_path):
    with pytest.raises(ModelError, match="is a linear model, not lstm"):
        finetune.run(trained.config(), "lstm", load_model_path=final(trained), data_file=new_texts(trained))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="never loads pickles"):
        finetune.run(trained.config(), "linear", load_model_path=foreign, data_file=new_texts(trained))
    with pytest.raises(ModelError, match="no model at"):
        finetune.run(trained.config(), "han", data_file=new_texts(trained))


def test_a_place_to_save_where_something_would_be_lost_is_refused(trained, tmp_path):
    config, file = trained.config(), new_texts(trained)
    before = read_info(final(trained))
    for place in (final(trained), final(trained) / "inside", final(trained).parent):
        with pytest.raises((UsageError, OutputError), match="would overwrite the original model"):
            finetune.run(config, "linear", data_file=file, save_path=place)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear diary")
    for place in (mine, mine / "diary.txt"):
        with pytest.raises(OutputError, match="is not a model directory, so it is not overwritten"):
            finetune.run(config, "linear", data_file=file, save_path=place)
    with pytest.raises(OutputError, match="cannot write into"):
        finetune.run(config, "linear", data_file=file, save_path=mine / "diary.txt" / "model")
    assert (mine / "diary.txt").read_text() == "dear diary"
    assert read_info(final(trained)) == before


def test_more_layers_than_the_encoder_has_are_refused(trained):
    with pytest.raises(ConfigError, match="this encoder has 2 layers"):
        finetune.run(trained.config("finetune.trainable_layers=3"), "linear", data_file=new_texts(trained))
    assert len(list((trained.folder / "results" / "runs").glob("linear-finetune-*"))) == 0


def test_several_processes_are_refused(trained, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        finetune.run(trained.config(), "linear", data_file=new_texts(trained))


# --- stopped and resumed ---------------------------------------------------------------------------------------------


def test_a_full_disk_while_publishing_leaves_the_run_to_be_resumed(trained, monkeypatch):
    from sentiment_hybrid import files

    config, file = trained.config(), new_texts(trained)
    first = read_info(finetune.run(config, "linear", data_file=file).model_dir)
    real = files.flush_to_disk

    def full(folder):
        if "model_finetuned" in folder.name:
            raise OSError(28, "No space left on device")
        real(folder)

    changed = trained.config("project.seed=7")
    monkeypatch.setattr(files, "flush_to_disk", full)
    with pytest.raises(OutputError, match="the disk is full"):
        finetune.run(changed, "linear", data_file=file)
    target = trained.folder / "models" / "linear_roberta_model_finetuned"
    assert read_info(target) == first
    monkeypatch.undo()
    result = finetune.run(changed, "linear", data_file=file, runtime=Runtime(resume=True))
    assert result.resumed
    assert read_info(target).run_id == result.run_dir.name != first.run_id


KILLED = """
import os, signal, sys
from sentiment_hybrid.commands import finetune
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.engine.training import checkpoints
import torch
torch.set_num_threads(1)
config, file, saves = sys.argv[1], sys.argv[2], int(sys.argv[3])
real = checkpoints.RunCheckpoints.save
done = 0
def save(self, state, **options):
    global done
    done += 1
    if done == saves:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, state, **options)
checkpoints.RunCheckpoints.save = save
finetune.run(load_config(config), "lstm", data_file=file)
"""


def test_a_fine_tuning_killed_and_resumed_equals_one_never_killed_bit_for_bit(make_project):
    if os.name != "posix":
        pytest.skip("needs POSIX signals")
    whole = make_project()
    text = whole.file.read_text().replace("epochs: 2", "epochs: 2\n    checkpoint_minutes: 0")
    whole.file.write_text(f"{text}\nfinetune: {{layer_decay: 0.7, trainable_layers: 2, learning_rate: 0.01}}\n")
    train.run(whole.config(), "lstm", test=False)
    file = new_texts(whole)
    expected = finetune.run(whole.config(), "lstm", data_file=file, save_path=whole.folder / "models" / "whole")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(whole.file), str(file), "9"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    result = finetune.run(whole.config(), "lstm", data_file=file, runtime=Runtime(resume=True))
    assert result.resumed
    first, second = read_info(expected.model_dir), read_info(result.model_dir)
    assert second.weights_sha256 == first.weights_sha256
    assert second.encoder_fingerprint == first.encoder_fingerprint
    assert result.valid == expected.valid
    assert result.new_test == expected.new_test


def test_resuming_needs_an_unfinished_run_of_the_same_parent_data_and_settings(trained, monkeypatch):
    with pytest.raises(TrainingError, match="no unfinished linear-finetune run"):
        finetune.run(trained.config(), "linear", data_file=new_texts(trained), runtime=Runtime(resume=True))

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(finetune, "_publish", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(trained.config(), "linear", data_file=new_texts(trained))
    with pytest.raises(TrainingError, match="other settings or other data"):
        finetune.run(
            trained.config("finetune.epochs=4"), "linear", data_file=new_texts(trained), runtime=Runtime(resume=True)
        )
    with pytest.raises(TrainingError, match="no unfinished linear run"):
        train.run(trained.config(), "linear", runtime=Runtime(resume=True))
    assert finetune.run(trained.config(), "linear", data_file=new_texts(trained), runtime=Runtime(resume=True)).resumed


def test_a_model_moved_elsewhere_is_fine_tuned_from_there(trained, tmp_path):
    moved = Path(shutil.move(final(trained), tmp_path / "mine"))
    result = finetune.run(trained.config(), load_model_path=moved, data_file=new_texts(trained))
    assert result.parent_dir == moved
    assert result.model_dir.name == "linear_roberta_model_finetuned"
    assert set(result.labels) == {"negative", "positive"}


def test_values_and_column_are_those_of_the_models_training(trained, capsys):
    document = final(trained) / paths.MODEL_JSON
    remembered = {"label_coding": {"8": "negative", "9": "positive"}, "text_column": "text_clean"}
    document.write_text(json.dumps(json.loads(document.read_text()) | remembered | {"checksum": None}))
    with new_texts(trained).open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    file = trained.folder / "numbers.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "text_clean", "label"])
        writer.writerows(
            [f"other {number}", row["text"], 9 if row["label"] == "positive" else 8] for number, row in enumerate(rows)
        )
    result = finetune.run(trained.config("finetune.epochs=1"), "linear", data_file=file)
    said = " ".join(capsys.readouterr().err.split())
    assert "labels are read as 8 = negative, 9 = positive" in said
    assert "column 'text_clean' is read, as in the model's training" in said
    info = read_info(result.model_dir)
    assert (info.label_coding, info.text_column) == tuple(remembered.values())
