"""``senthy train --model joint``: heads that learn together on one encoder, each a whole model afterwards."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import finetune, packing, train
from sentiment_hybrid.commands import test as test_command
from sentiment_hybrid.config.errors import REMOVED
from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.engine.training import joint
from sentiment_hybrid.engine.training.distill import unlabelled
from sentiment_hybrid.engine.training.fingerprint import train_fingerprint
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.errors import ConfigError, DataError, LabelError, ModelError, TrainingError
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime

HEADS = ("lstm", "linear")


def made_joint(project: Any, **changes: Any) -> Any:
    """The project with a section for two heads on an encoder that is trained whole."""
    document = yaml.safe_load(project.file.read_text())
    document["encoder"]["trainable_layers"] = "all"
    small = {"batch_size": 32, "epochs": 2, "learning_rate": 0.01, "encoder_learning_rate": 0.003, "precision": "fp32"}
    document["joint"] = {"models": list(HEADS), "train": {**small, **changes}}
    document["test"]["baseline"] = False
    project.file.write_text(yaml.safe_dump(document))
    return project


@pytest.fixture
def together(project: Any) -> Any:
    return made_joint(project)


def final(project: Any, head: str) -> Path:
    return paths.published_model(project.folder / "models", head)


# --- what it publishes


def test_every_head_is_published_tested_and_in_the_results_and_their_encoders_are_one(together: Any) -> None:
    done = train.run_joint(together.config())
    files = [(final(together, head) / paths.ENCODER_DIR / "model.safetensors").read_bytes() for head in HEADS]
    assert files[0] == files[1]
    infos = [read_info(final(together, head)) for head in HEADS]
    assert [info.head for info in infos] == list(HEADS)
    assert infos[0].encoder_fingerprint == infos[1].encoder_fingerprint
    assert infos[0].run_id == infos[1].run_id
    assert infos[0].train_rows == infos[1].train_rows == 178
    entries = read_results(together.folder / "results" / "model_results.json")
    assert [entry["name"] for entry in entries] == ["LSTMRoBERTa_Joint", "LinearRoBERTa_Joint"]
    for entry, result in zip(entries, done, strict=True):
        assert entry["test"]["accuracy"]["value"] == result.test.scores.accuracy.value
        assert entry["joint"]["models"] == list(HEADS)
        assert entry["joint"]["train"]["epochs"] == 2
    run = Run(done[0].run_dir)
    assert run.id.startswith("joint-")
    assert "finished" in run.meta()
    assert [facts["epoch"] for facts in run.epochs()] == [1, 2]


def test_each_model_works_without_the_other(together: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train.run_joint(together.config(), test=False)
    expected = {head: Predictor(final(together, head)).predict_proba(["a lovely day", "awful film"]) for head in HEADS}
    assert not np.allclose(expected["lstm"], expected["linear"], atol=1e-3)
    for head, other in zip(HEADS, reversed(HEADS), strict=True):
        alone = together.folder / f"alone_{head}"
        shutil.copytree(final(together, head), alone)
        shutil.move(final(together, other), together.folder / "away")
        np.testing.assert_array_equal(Predictor(alone).predict_proba(["a lovely day", "awful film"]), expected[head])
        shutil.move(together.folder / "away", final(together, other))


def test_a_frozen_encoder_is_shared_too(project: Any) -> None:
    made = made_joint(project)
    done = train.run_joint(made.config("encoder.trainable_layers=0"), test=False)
    assert done[0].encoder_passes > 0
    fingerprints = {read_info(final(made, head)).encoder_fingerprint for head in HEADS}
    assert len(fingerprints) == 1
    assert (
        train.run_joint(made.config("encoder.trainable_layers=0", "project.seed=1"), test=False)[0].encoder_passes == 0
    )


def test_each_head_has_the_temperature_that_suits_the_validation_rows(
    together: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LEAST_ERRORS", 0)
    monkeypatch.setattr(metrics, "LEAST_ROWS", 10)
    train.run_joint(together.config(), test=False)
    with open_store(together.config().paths.data_db) as store:
        valid = store.read("valid")
    for head in HEADS:
        heat = read_info(final(together, head)).temperature
        said = np.asarray(Predictor(final(together, head), precision="fp32").predict_proba(valid.texts), dtype=float)
        uncalibrated = said**heat / (said**heat).sum(axis=1, keepdims=True)
        assert metrics.temperature(valid.labels, uncalibrated) == pytest.approx(heat, abs=0.02)
        assert heat != 1.0


def test_too_few_validation_errors_leave_the_temperature_at_1_and_a_sentence_says_so(
    together: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train.run_joint(together.config(), test=False)
    assert {read_info(final(together, head)).temperature for head in HEADS} == {1.0}
    assert "calibration is skipped, and the temperature is 1: there are" in capsys.readouterr().err


def test_the_command_line_trains_the_heads_and_shows_each(together: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--model", "joint", "--config", str(together.file), "--no-test"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for head in HEADS:
        assert str(final(together, head)) in said


@pytest.mark.parametrize("option", [["--seeds", "2"], ["--params", "best.yaml"]], ids=lambda one: one[0])
def test_options_for_one_model_are_refused(
    together: Any, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--model", "joint", "--config", str(together.file), *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err
    assert not (together.folder / "results").exists()


@pytest.mark.parametrize("models", ["[lstm]", "[lstm, lstm]", "[lstm, cnn]"])
def test_fewer_than_two_different_heads_are_refused(together: Any, models: str) -> None:
    with pytest.raises(ConfigError):
        together.config(f"joint.models={models}")


# --- stopped and gone on with

KILLED = """
import os, signal, sys
from sentiment_hybrid.commands import train
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.engine.training import checkpoints
import torch
torch.set_num_threads(1)
real = checkpoints.RunCheckpoints.save
done = 0
def save(self, state, **options):
    global done
    done += 1
    real(self, state, **options)
    if done == 8:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.RunCheckpoints.save = save
train.run_joint(load_config(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_joint_training_killed_and_resumed_equals_one_never_killed_bit_for_bit(
    make_project: Callable[..., Any],
) -> None:
    whole, killed = (made_joint(make_project(name), checkpoint_minutes=0) for name in ("whole", "killed"))
    expected = train.run_joint(whole.config(), test=False)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(killed.file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    result = train.run_joint(killed.config(), Runtime(resume=True), test=False)
    assert all(one.resumed for one in result)
    assert [one.valid for one in result] == [one.valid for one in expected]
    for head in HEADS:
        first, second = (read_info(final(project, head)) for project in (whole, killed))
        assert first.weights_sha256 == second.weights_sha256
        assert first.encoder_fingerprint == second.encoder_fingerprint
        assert first.temperature == second.temperature


def test_a_run_is_resumed_by_the_same_heads_alone(together: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentiment_hybrid.engine.training.checkpoints import RunCheckpoints

    def stop(self: RunCheckpoints, state: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunCheckpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train.run_joint(together.config())
    with pytest.raises(TrainingError, match=r"joint\.models"):
        train.run_joint(together.config("joint.models=[lstm, han]"), Runtime(resume=True))
    with pytest.raises(TrainingError, match="no unfinished lstm run"):
        train.run(together.config(), "lstm", runtime=Runtime(resume=True))


# --- what it is trained on


def further_file(project: Any, config: Config) -> Path:
    """30 new texts of both labels, 10 of neither, and five each that stand in train, valid and test."""
    path = project.folder / "further.csv"
    with open_store(config.paths.data_db) as store:
        old = [row for split in ("train", "valid", "test") for row in store.read(split, with_raw=True).raw[:5]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"a new text number {number}", number % 2 * 2] for number in range(30))
        writer.writerows([f"an indifferent text {number}", 1] for number in range(10))
        writer.writerows([text.upper() + "!", 2] for text in old)
    return path


def further_config(project: Any, *overrides: str) -> Config:
    source = further_file(project, project.config())
    mapped = "joint.further_label_map={0: negative, 2: positive}"
    return project.config(f"joint.further_source={source}", mapped, *overrides)  # type: ignore[no-any-return]


def epoch_of(config: Config) -> SimpleNamespace:
    """Rows of the database, further ones, and what an epoch has of all."""
    with open_store(config.paths.data_db) as store:
        rows, valid = store.read("train"), store.read("valid")
        chosen, held_out = joint.further(config, store)
        more, more_valid = joint.with_further(config, store, rows, valid)
    return SimpleNamespace(rows=rows, valid=valid, chosen=chosen, held_out=held_out, more=more, more_valid=more_valid)


def test_further_texts_are_trained_on_but_for_those_that_validate_or_test(together: Any) -> None:
    config = further_config(together)
    with open_store(config.paths.data_db) as store:
        chosen, held_out = joint.further(config, store)
        valid, test = (store.read(split, with_raw=True).raw[:5] for split in ("valid", "test"))
    texts = chosen.texts + held_out.texts
    assert len(set(texts)) == len(texts) == 35, "30 new ones, and 5 that stand in train"
    assert 0 < len(held_out) < 12
    assert not set(texts) & {f"{text.upper()}!" for text in valid + test}
    labels = dict(zip(texts, [*chosen.labels, *held_out.labels], strict=True))
    new = {f"a new text number {number}": number % 2 for number in range(30)}
    assert {text: label for text, label in labels.items() if text in new} == new


def test_an_epoch_has_the_rows_and_the_further_ones(together: Any) -> None:
    made = epoch_of(further_config(together, "joint.further_repeat=3"))
    assert made.more.texts == made.rows.texts + 3 * made.chosen.texts
    assert made.more.labels.tolist() == [*made.rows.labels, *np.tile(made.chosen.labels, 3)]
    assert made.more_valid.texts == made.valid.texts + made.held_out.texts
    assert made.more.compared is None


@pytest.mark.parametrize("name", ["further_neutral", "further_balanced", "negations", "unknowable"])
def test_settings_that_went_name_what_replaces_them(together: Any, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        together.config(f"joint.{name}=0.1")
    assert REMOVED[f"joint.{name}"].instead in "".join(caught.value.problems)


# --- texts of which not every label was asked


@pytest.fixture
def three(make_project: Any) -> Any:
    return made_joint(make_project(labels=("negative", "neutral", "positive")))


def partial_config(project: Any, *overrides: str) -> Config:
    path = project.folder / "emoticons.csv"
    rows = "".join(f"an emoticon text {number},{('negative', 'positive')[number % 2]}\n" for number in range(30))
    path.write_text(f"text,label\n{rows}")
    return project.config(f"joint.further_source={path}", "joint.further_partial=true", *overrides)  # type: ignore[no-any-return]


def test_partial_rows_are_compared_among_the_labels_that_occur_and_all_are_trained_on(
    three: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = epoch_of(partial_config(three))
    assert len(made.chosen) == 30
    assert made.more_valid.texts == made.valid.texts
    assert made.more.compared[: len(made.rows)].all()
    assert made.more.compared[len(made.rows) :].tolist() == [[True, False, True]] * 30
    assert ", among negative and positive alone; " in " ".join(capsys.readouterr().err.split())


def test_a_partial_source_of_one_label_is_refused(three: Any) -> None:
    path = three.folder / "happy.csv"
    path.write_text("text,label\nso happy,positive\nvery glad,positive\n")
    with pytest.raises(DataError, match=r"every row of .*happy\.csv is positive"):
        train.run_joint(three.config(f"joint.further_source={path}", "joint.further_partial=true"))


def test_a_training_with_partial_rows_publishes_models_that_know_every_label(three: Any) -> None:
    train.run_joint(partial_config(three, "joint.train.class_weights=balanced", "joint.train.label_smoothing=0.1"))
    for head in HEADS:
        assert load_model(final(three, head)).info.labels == ("negative", "neutral", "positive")


def test_other_further_texts_are_another_training(together: Any) -> None:
    config = further_config(together)
    before = train_fingerprint(config, JOINT, "data")
    assert before == train_fingerprint(config, JOINT, "data")
    with Path(config.joint.further_source).open("a") as file:
        file.write("one more,2\n")
    assert train_fingerprint(config, JOINT, "data") != before
    partial = train_fingerprint(together.config("joint.further_partial=true"), JOINT, "data")
    assert partial != train_fingerprint(together.config(), JOINT, "data")


def test_a_test_tells_how_many_of_its_texts_are_further_ones_that_were_trained_on(together: Any) -> None:
    config = further_config(together, "joint.train.epochs=1")
    train.run_joint(config, test=False)
    source = Path(config.joint.further_source)
    how = {"label_map": {"0": "negative", "2": "positive"}, "unknown_labels": "drop"}
    mapped = config.model_copy(update={"data": config.data.model_copy(update=how)})
    answered = test_command.evaluate(mapped, "lstm", data_file=source)
    # 30 new ones and five each that stand in train and valid; those of test were left out.
    assert answered.overlap == {"rows": 40, "of": 45}
    tuned = finetune.run(config, "lstm", data_file=str(together.folder / "texts.csv"))
    kept = final(together, "lstm") / paths.SEEN_TEXTS
    assert (tuned.model_dir / paths.SEEN_TEXTS).read_bytes() == kept.read_bytes()
    kept.write_bytes(b"no filter")
    damaged = test_command.evaluate(mapped, "lstm", data_file=source)
    assert damaged.overlap == {"rows": 10, "of": 45}, "those of the database alone"


def test_further_texts_of_which_none_is_left_to_train_on_are_reported(together: Any) -> None:
    with open_store(together.config().paths.data_db) as store:
        held = store.read("test", with_raw=True).raw[:4]
    source = together.folder / "held.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, "positive") for text in held)])
    with pytest.raises(DataError, match="is left for training"):
        train.run_joint(together.config(f"joint.further_source={source}"))


def test_further_texts_that_stand_in_train_never_validate(together: Any) -> None:
    config = further_config(together, "joint.further_valid_size=0.9")
    with open_store(config.paths.data_db) as store:
        _, held_out = joint.further(config, store)
        trained = {text.casefold() for text in store.read("train", with_raw=True).raw}
    assert len(held_out) > 15
    assert not {text.rstrip("!").casefold() for text in held_out.texts} & trained


# --- going on with packed heads


@pytest.fixture
def pack(together: Any) -> Path:
    train.run_joint(together.config("joint.train.epochs=1"), test=False)
    return packing.run(together.config()).directory


def going_on(together: Any, pack: Path, *overrides: str) -> Config:
    own = (f"joint.heads_from={pack}", f"encoder.name={pack / paths.ENCODER_DIR}", "joint.train.epochs=1")
    return together.config(*own, *overrides)  # type: ignore[no-any-return]


def test_heads_of_a_pack_go_on_from_where_they_stand(together: Any, pack: Path) -> None:
    texts = ["a lovely day", "awful film"]
    before = {head: Predictor(pack / head, precision="fp32").predict_proba(texts) for head in HEADS}
    small = ("joint.train.learning_rate=1e-9", "joint.train.encoder_learning_rate=1e-9", "joint.train.sample_size=40")
    train.run_joint(going_on(together, pack, *small), test=False)
    for head in HEADS:
        packed, after = load_model(pack / head), load_model(final(together, head))
        for name, value in packed.classifier.head.state_dict().items():
            np.testing.assert_allclose(after.classifier.head.state_dict()[name], value, atol=1e-6)
        assert after.info.train_rows == 178, "what the pack was trained on counts too"
        heats = packed.info.temperature / after.info.temperature
        odds = [
            np.log(said[:, 1] / said[:, 0])
            for said in (before[head], Predictor(final(together, head), precision="fp32").predict_proba(texts))
        ]
        np.testing.assert_allclose(odds[1], odds[0] * heats, atol=1e-3)


def test_heads_of_other_sizes_or_labels_or_none_are_reported(together: Any, pack: Path) -> None:
    with pytest.raises(ModelError, match=r"has other sizes than lstm\.head"):
        train.run_joint(going_on(together, pack, "lstm.head.hidden=12"))
    with pytest.raises(ModelError, match=r"joint\.heads_from: there is no pack at .*nowhere"):
        train.run_joint(together.config(f"joint.heads_from={together.folder / 'nowhere'}"))
    shutil.move(pack / "linear", together.folder / "away")
    with pytest.raises(ModelError, match="there is no model"):
        train.run_joint(going_on(together, pack))
    shutil.move(together.folder / "away", pack / "linear")
    for head in HEADS:
        document = json.loads((pack / head / paths.MODEL_JSON).read_text())
        (pack / head / paths.MODEL_JSON).write_text(
            json.dumps({**document, "labels": ["positive", "negative"], "checksum": None})
        )
    with pytest.raises(LabelError, match="has the labels positive, negative, but the data has negative, positive"):
        train.run_joint(going_on(together, pack))


def test_heads_that_learned_from_another_split_are_warned_of(
    together: Any, pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for head in HEADS:
        document = json.loads((pack / head / paths.MODEL_JSON).read_text())
        (pack / head / paths.MODEL_JSON).write_text(
            json.dumps({**document, "split_fingerprint": "another", "checksum": None})
        )
    train.run_joint(going_on(together, pack), test=False)
    assert "may have seen test rows" in " ".join(capsys.readouterr().err.split())


def test_further_texts_without_a_label_of_the_data_are_reported(together: Any) -> None:
    source = together.folder / "odd.csv"
    source.write_text("text,label\nsome words,3\nother words,4\n")
    with pytest.raises(DataError, match=r"odd\.csv has no row with a label of negative, positive"):
        train.run_joint(together.config(f"joint.further_source={source}"))


def test_texts_for_the_teacher_are_none_of_the_further_ones(together: Any) -> None:
    config = further_config(together)
    with open_store(config.paths.data_db) as store:
        chosen, held_out = joint.further(config, store)
        assert len(chosen) and len(held_out)
        more = together.folder / "more.txt"
        more.write_text("\n".join([chosen.texts[0], held_out.texts[0], "a text of its own"]) + "\n")
        taught = further_config(together, "distill.teacher=mini", f"distill.source={more}")
        assert unlabelled(taught, "joint", store).texts == ["a text of its own"]
        assert len(unlabelled(taught, "lstm", store)) == 3, "a single head has no further texts"
