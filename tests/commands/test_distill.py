"""``senthy train --teacher``: a student learns from labels and from a teacher's probabilities."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import cache, dry_run, predict, train
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.engine.training import prepare, teacher, teacher_cache
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.errors import (
    ColumnError,
    ConfigError,
    DataError,
    LabelError,
    ModelError,
    TrainingError,
    UsageError,
)
from sentiment_hybrid.runtime import Runtime

from .test_train_processes import launch


@pytest.fixture
def taught(project: Any) -> Any:
    """A project with a trained teacher in ``teacher/``, which is a linear model of the same labels."""
    train.run(project.config("linear.train.epochs=6"), "linear", test=False)
    published(project).rename(project.folder / "teacher")
    return project


def published(project: Any, head: str = "linear") -> Path:
    return paths.published_model(project.folder / "models", head)


def config_of(project: Any, *overrides: str, teacher: Path | str | None = None) -> Config:
    place = project.folder / "teacher" if teacher is None else teacher
    return project.config(f"distill.teacher={place}", *overrides)  # type: ignore[no-any-return]


def training_texts(config: Config) -> list[str]:
    with open_store(config.paths.data_db) as store:
        return store.read("train").texts


def probabilities(directory: Path, texts: list[str]) -> np.ndarray:
    return Predictor(directory, precision="fp32").predict_proba(texts)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each reading of a teacher has had."""
    readings: list[int] = []
    real = teacher.predict_probabilities

    def spy(classifier: Any, tokenized: Any, **options: Any) -> np.ndarray:
        readings.append(len(tokenized))
        return real(classifier, tokenized, **options)

    monkeypatch.setattr(teacher, "predict_probabilities", spy)
    return readings


# --- what it learns


def test_a_student_of_the_teacher_alone_approaches_its_probabilities(taught: Any) -> None:
    last = train.Purpose(include_valid=True)  # the last epoch is kept: it is not the labels that judge
    texts = training_texts(taught.config())
    expected = probabilities(taught.folder / "teacher", texts)
    gaps = {}
    for weight in (0.0, 1.0):
        config = config_of(taught, f"distill.weight={weight}", "linear.train.epochs=25", "linear.head.dropout=0")
        done = train.run(config, "linear", test=False, purpose=last)
        gaps[weight] = np.abs(probabilities(done.model_dir, texts) - expected).mean()
    assert gaps[1.0] < 0.06, gaps
    assert gaps[1.0] < 0.6 * gaps[0.0], gaps


def test_without_weight_the_teacher_changes_nothing(taught: Any) -> None:
    plain = train.run(taught.config(), "linear", test=False)
    before = (plain.model_dir / paths.MODEL_WEIGHTS).read_bytes()
    again = train.run(config_of(taught, "distill.weight=0"), "linear", test=False)
    assert (again.model_dir / paths.MODEL_WEIGHTS).read_bytes() == before
    other = train.run(config_of(taught, "distill.weight=0.5"), "linear", test=False)
    assert (other.model_dir / paths.MODEL_WEIGHTS).read_bytes() != before


def test_labels_in_another_order_are_mapped(taught: Any) -> None:
    texts = training_texts(taught.config())
    config = config_of(taught)
    with open_store(config.paths.data_db) as store:
        rows = store.read("train", with_raw=True)
        in_order = _answers(config, store.labels, store.normalizer, rows)
        turned = _answers(config, store.labels[::-1], store.normalizer, rows)
    np.testing.assert_array_equal(turned, in_order[:, ::-1])
    np.testing.assert_allclose(in_order, probabilities(taught.folder / "teacher", texts), atol=1e-5)


def _answers(config: Config, labels: tuple[str, ...], normalizer: str, rows: Any) -> np.ndarray:
    from sentiment_hybrid.engine.device import resolve

    return teacher.predictions_of_teacher(
        config, labels, normalizer, rows, compute=resolve("cpu", "fp32"), token_budget=1000, offline=True,
        progress=lambda texts, total=None: None,
    )[0]  # fmt: skip


def test_a_teacher_with_another_normaliser_reads_the_raw_texts(taught: Any) -> None:
    document = taught.folder / "teacher" / paths.MODEL_JSON
    document.write_text(json.dumps(json.loads(document.read_text()) | {"normalizer": "none@1", "checksum": None}))
    config = config_of(taught)
    with open_store(config.paths.data_db) as store:
        rows = store.read("train", with_raw=True)
        rows.raw[0] = "@somebody http://x.y/z GREAT"
        found = _answers(config, store.labels, store.normalizer, rows)
    np.testing.assert_allclose(found, probabilities(taught.folder / "teacher", rows.raw), atol=1e-5)


@pytest.mark.parametrize("head", ["lstm", "han"])
def test_every_head_learns_from_it(taught: Any, head: str) -> None:
    done = train.run(config_of(taught, f"{head}.train.epochs=1"), head, test=False)
    assert done.valid["accuracy"] >= 0.0
    assert "distill" not in (done.model_dir / paths.MODEL_JSON).read_text()


# --- answers are computed once


def test_each_distinct_text_is_read_once_ever(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = counted(monkeypatch)
    texts = training_texts(taught.config())
    train.run(config_of(taught), "linear", test=False)
    train.run(config_of(taught, "project.seed=5"), "lstm", test=False)
    assert readings == [len(set(texts))]
    info = cache.info(taught.config())
    (entry,) = [entry for entry in info.entries if entry.kind == "teachers"]
    assert entry.facts == {"teacher": str(taught.folder / "teacher"), "texts": len(set(texts))}
    cleared = cache.clear(taught.config(), ["teachers"], confirm=lambda found: True)
    assert cleared.bytes > 0
    train.run(config_of(taught), "linear", test=False)
    assert readings == [len(set(texts))] * 2


def test_another_teacher_answers_anew(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train.run(config_of(taught), "linear", test=False)
    readings = counted(monkeypatch)
    document = taught.folder / "teacher" / paths.MODEL_JSON
    document.write_text(json.dumps(json.loads(document.read_text()) | {"temperature": 3.0, "checksum": None}))
    train.run(config_of(taught), "linear", test=False)
    assert len(readings) == 1


def test_a_damaged_chunk_is_computed_again(
    taught: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train.run(config_of(taught), "linear", test=False)
    (file,) = paths.teachers_dir(taught.folder / "cache").glob("*/chunk-*/probabilities.npy")
    file.write_bytes(file.read_bytes()[:-8])
    readings = counted(monkeypatch)
    train.run(config_of(taught), "linear", test=False)
    assert len(readings) == 1
    assert "is damaged and computed again" in caplog.text


def test_a_full_disk_costs_a_note_and_the_training_goes_on(
    taught: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(teacher_cache.np, "save", full)
    done = train.run(config_of(taught), "linear", test=False)
    assert done.model_dir.is_dir()
    assert "cannot be cached" in caplog.text
    assert "the disk is full" in caplog.text
    assert list(paths.teachers_dir(taught.folder / "cache").rglob("*.npy")) == []


def test_a_dry_run_says_that_the_teacher_and_its_further_texts_are_not_in_the_estimate(taught: Any) -> None:
    (found,) = dry_run.run(config_of(taught), ["linear"], "train")
    (note,) = [line for line in found.notes if "a teacher's predictions" in line]
    assert note.startswith("not in the estimate")
    assert "distill.source" in note
    assert not paths.teachers_dir(taught.folder / "cache").exists()


# --- texts without labels


def unlabelled_file(project: Any, *lines: str) -> Path:
    path = project.folder / "more.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_unlabelled_texts_teach_but_for_those_that_validate_or_test(
    taught: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = taught.config()
    with open_store(config.paths.data_db) as store:
        held = [store.read(split, with_raw=True).raw[0] for split in ("valid", "test", "train")]
    source = unlabelled_file(taught, "a new great day", "A new great day!", "an awful film", *(f"{x}!!" for x in held))
    seen: list[Any] = []
    real = prepare.encode
    monkeypatch.setattr(prepare, "encode", lambda *a: seen.append(a[1]) or real(*a))  # type: ignore[func-returns-value]
    done = train.run(config_of(taught, f"distill.source={source}"), "linear", test=False)
    rows = seen[0]
    added = [text for text, label in zip(rows.texts, rows.labels, strict=True) if label == -1]
    assert sorted(added) == ["A new great day!", "an awful film"] or sorted(added) == [
        "a new great day", "an awful film",
    ]  # fmt: skip
    assert read_info(done.model_dir).train_rows == len(rows) - 2
    assert (done.model_dir / paths.SEEN_TEXTS).is_file(), "a test will say that it has seen them"


def test_unlabelled_texts_teach_what_the_teacher_says_of_them(taught: Any) -> None:
    words = ("good", "great", "bad", "awful", "nasty", "lovely")
    source = unlabelled_file(taught, *(f"{word} thing number {number}" for number in range(40) for word in words))
    done = train.run(
        config_of(taught, f"distill.source={source}", "linear.train.class_weights=balanced"), "linear", test=False
    )
    assert done.model_dir.is_dir()


def test_a_source_without_a_text_column_or_with_no_new_text_is_reported(taught: Any) -> None:
    odd = taught.folder / "odd.csv"
    odd.write_text("a,b\n1,2\n")
    with pytest.raises(ColumnError, match="text"):
        train.run(config_of(taught, f"distill.source={odd}"), "linear")
    with open_store(taught.config().paths.data_db) as store:
        known = unlabelled_file(taught, *store.read("test", with_raw=True).raw)
    with pytest.raises(DataError, match="all are in the prepared data"):
        train.run(config_of(taught, f"distill.source={known}"), "linear")


# --- files of probabilities


def probability_file(project: Any, edit: Callable[[list[dict[str, Any]]], Any] = lambda rows: None) -> Path:
    path = project.folder / "said.csv"
    with open_store(project.config().paths.data_db) as store:
        texts = store.read("train", with_raw=True).raw
    rows: list[dict[str, Any]] = [{"text": text, "p_negative": 0.9, "p_positive": 0.1} for text in texts]
    edit(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_what_predict_writes_is_a_teacher(taught: Any) -> None:
    given = probability_file(taught, lambda rows: [row.pop("p_negative") and row.pop("p_positive") for row in rows])
    said = taught.folder / "predictions.csv"
    predict.run(
        predict.Request(config=taught.config(), model_dir=taught.folder / "teacher", input_file=given, output_file=said)
    )
    config = config_of(taught, teacher=said)
    with open_store(config.paths.data_db) as store:
        rows = store.read("train", with_raw=True)
        found = _answers(config, store.labels, store.normalizer, rows)
    np.testing.assert_allclose(found, probabilities(taught.folder / "teacher", rows.texts), atol=1e-4)


def test_rows_without_probabilities_learn_from_their_labels(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = probability_file(project, lambda rows: rows[0].update(p_negative="", p_positive="") or rows.pop())
    count = len(training_texts(project.config()))
    train.run(config_of(project, teacher=said), "linear", test=False)
    assert f"{count - 2} of {count} training texts have predictions of" in " ".join(capsys.readouterr().err.split())


def test_columns_may_be_called_like_the_labels(project: Any) -> None:
    def renamed(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["Positive"], row["negative"] = row.pop("p_positive"), row.pop("p_negative")

    config = config_of(project, teacher=probability_file(project, renamed))
    with open_store(config.paths.data_db) as store:
        found = _answers(config, store.labels, store.normalizer, store.read("train"))
    np.testing.assert_allclose(found, np.tile([0.9, 0.1], (len(found), 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("0.7", "0.2"), "0.7, 0.2 are not the probabilities"),
        (("1.2", "-0.2"), "1.2, -0.2"),
        (("nan", "0.5"), "nan, 0.5"),
        (("0.5", ""), "0.5, nothing"),
        (("high", "low"), "high, low"),
    ],
)
def test_what_is_no_probability_is_reported_with_its_row(project: Any, values: tuple[str, str], told: str) -> None:
    said = probability_file(project, lambda rows: rows[3].update(p_negative=values[0], p_positive=values[1]))
    with pytest.raises(DataError, match=r"said\.csv, line 5, data row 4") as caught:
        train.run(config_of(project, teacher=said), "linear")
    assert told in caught.value.message


def test_rounded_probabilities_are_scaled_to_a_sum_of_1(project: Any) -> None:
    def weights_of(negative: float, positive: float) -> np.ndarray:
        said = probability_file(project, lambda rows: rows[3].update(p_negative=negative, p_positive=positive))
        trained = train.run(config_of(project, teacher=said), "linear", test=False)
        return load_file(trained.model_dir / paths.MODEL_WEIGHTS)["output.weight"]

    rounded = weights_of(0.3334, 0.667)
    np.testing.assert_allclose(rounded, weights_of(0.3334 / 1.0004, 0.667 / 1.0004), atol=1e-6)
    assert not np.allclose(rounded, weights_of(0.4, 0.6), atol=1e-6)


def test_a_file_that_knows_no_text_or_no_label_is_reported(project: Any) -> None:
    path = project.folder / "other.csv"
    path.write_text("text,p_negative,p_positive\nunheard of,0.5,0.5\n")
    with pytest.raises(DataError, match="has no probabilities for any of the"):
        train.run(config_of(project, teacher=path), "linear")
    path.write_text("text,p_negative,p_neutral\nunheard of,0.5,0.5\n")
    with pytest.raises(ColumnError, match="no column of probabilities for each of the labels negative, positive"):
        train.run(config_of(project, teacher=path), "linear")


# --- teachers that cannot teach


def test_a_teacher_with_other_labels_is_refused(make_project: Any, taught: Any) -> None:
    three = make_project("three", labels=("negative", "neutral", "positive"))
    with pytest.raises(
        LabelError, match="has the labels negative, positive, but the data has negative, neutral, positive"
    ):
        train.run(config_of(three, teacher=taught.folder / "teacher"), "linear")
    assert not (three.folder / "results" / "runs").exists()
    assert not (three.folder / "cache").exists(), "nothing is computed"
    with pytest.raises(LabelError):
        dry_run.run(config_of(three, teacher=taught.folder / "teacher"), ["linear"], "train")


def test_another_kind_of_directory_is_refused(taught: Any, tiny_encoder_dir: Path) -> None:
    pack = taught.folder / "pack" / "linear"
    pack.mkdir(parents=True)
    (pack / paths.MODEL_JSON).write_text("{}")
    export = taught.folder / "export"
    export.mkdir()
    (export / paths.ONNX_MODEL).write_bytes(b"")
    (taught.folder / "empty").mkdir()
    for place, told in (
        (tiny_encoder_dir, "is not a model directory"),
        (pack.parent, "is a pack"),
        (export, "it is an export"),
        (taught.folder / "empty", "is not a model directory"),
        (taught.folder / "nowhere", "there is no model at"),
    ):
        with pytest.raises(ModelError, match=told):
            train.run(config_of(taught, teacher=place), "linear")
    assert (
        not (taught.folder / "results" / "runs").exists()
        or len(list((taught.folder / "results" / "runs").iterdir())) == 1
    ), "the teacher's own"


@pytest.mark.parametrize("setting", ["distill.source=sample", "distill.states=0.5"])
def test_settings_without_a_teacher_are_refused(project: Any, setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        project.config(setting)
    assert "need a teacher" in "".join(caught.value.problems)


# --- states


def test_states_are_learned_and_the_map_is_thrown_away(taught: Any) -> None:
    whole = ("encoder.trainable_layers=all", "distill.states=1", "linear.train.epochs=1")
    plain = train.run(config_of(taught, *whole[::2]), "linear", test=False)
    before = (plain.model_dir / paths.ENCODER_DIR / "model.safetensors").read_bytes()
    done = train.run(config_of(taught, *whole), "linear", test=False)
    assert (done.model_dir / paths.ENCODER_DIR / "model.safetensors").read_bytes() != before
    names = set(load_file(done.model_dir / paths.MODEL_WEIGHTS))
    assert names == set(load_file(plain.model_dir / paths.MODEL_WEIGHTS))
    (kept,) = paths.teachers_dir(taught.folder / "cache").glob("*/chunk-*/states.npy")
    assert np.load(kept).dtype == np.float16


def test_states_need_layers_that_are_trained_and_a_model(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "read_rows", None)  # refused before any work
    with pytest.raises(ConfigError, match=r"encoder\.trainable_layers is 0"):
        train.run(config_of(taught, "distill.states=1"), "linear")
    said = probability_file(taught)
    with pytest.raises(UsageError, match="has probabilities, but no states"):
        train.run(config_of(taught, "distill.states=1", "encoder.trainable_layers=all", teacher=said), "linear")


# --- joint, resume, command line


def test_joint_heads_learn_from_it_with_states_and_unlabelled_texts(taught: Any) -> None:
    document = yaml.safe_load(taught.file.read_text())
    document["encoder"]["trainable_layers"] = "all"
    document["joint"] = {"models": ["lstm", "linear"], "train": {"epochs": 1, "precision": "fp32"}}
    taught.file.write_text(yaml.safe_dump(document))
    source = unlabelled_file(taught, "a new great day", "an awful film")
    config = config_of(taught, f"distill.source={source}", "distill.states=0.5")
    done = train.run_joint(config, test=False)
    assert [result.model_dir.is_dir() for result in done] == [True, True]


def test_a_resumed_student_is_bit_equal(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("distill.states=0.5", "encoder.trainable_layers=1", "linear.train.epochs=3")
    whole = train.run(config_of(taught, *settings), "linear", test=False)
    wanted = (whole.model_dir / paths.MODEL_WEIGHTS).read_bytes()
    real = Run.append_epoch

    def stop_after_one(self: Run, facts: Any) -> None:
        real(self, facts)
        if facts["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "append_epoch", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            train.run(config_of(taught, *settings), "linear", test=False)
    with pytest.raises(TrainingError, match=r"other settings: distill.weight was 0\.5 and is 0\.3"):
        train.run(config_of(taught, *settings, "distill.weight=0.3"), "linear", Runtime(resume=True))
    moved = (taught.folder / "teacher").rename(taught.folder / "moved")
    again = train.run(config_of(taught, *settings, teacher=moved), "linear", Runtime(resume=True), test=False)
    assert again.resumed
    assert (again.model_dir / paths.MODEL_WEIGHTS).read_bytes() == wanted


def test_two_processes_learn_from_one_reading(taught: Any) -> None:
    settings = ["distill.states=0.5", "encoder.trainable_layers=all", "linear.train.epochs=1"]
    settings += ["linear.head.dropout=0", "encoder.dropout=0"]  # each process draws its own
    arguments = ["train", "--model", "linear", "--no-test", "--config", str(taught.file)]
    arguments += ["--teacher", str(taught.folder / "teacher"), *(f"--set={setting}" for setting in settings)]
    done = launch((taught.folder, f"codes.append(call({arguments}))"))
    assert done.stderr.count("codes: [0]") == 2, done.stderr
    assert done.stderr.count("training texts have predictions of") == 1, done.stderr
    assert len(list(paths.teachers_dir(taught.folder / "cache").glob("*/chunk-*"))) == 1
    both = load_file(published(taught) / paths.MODEL_WEIGHTS)
    one = load_file(train.run(config_of(taught, *settings), "linear", test=False).model_dir / paths.MODEL_WEIGHTS)
    for name, weights in one.items():
        np.testing.assert_allclose(both[name], weights, atol=1e-3)


def test_the_command_line_names_the_teacher(taught: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["train", "--model", "linear", "--config", str(taught.file), "--no-test", "--teacher",
             str(taught.folder / "teacher")]
        )  # fmt: skip
    assert stop.value.code == 0
    assert "training texts have predictions of" in " ".join(capsys.readouterr().err.split())
