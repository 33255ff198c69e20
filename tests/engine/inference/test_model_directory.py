"""Model directories: what is saved is what is loaded, a stop loses nothing, and damage is reported."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.engine.inference import model_directory
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, load_model, read_info, save_model
from sentiment_hybrid.engine.inference.predictor import published
from sentiment_hybrid.errors import EncoderError, ModelError, OutputError

from ...conftest import model_info

TEXTS = ["good day", "a bad bad day", "it was so and then we all " * 4]


def describe(session, head: str) -> ModelInfo:
    return model_info(
        session.encoder,
        head,
        head_config={"hidden": 8, "layers": 1} if head != "linear" else {},
        max_length=16,
        max_windows=32,
        encoder_name=session.encoder.name,
        encoder_inside=False,
    )


def save(session, directory: Path, head: str = "lstm", *, bundle: bool = True) -> None:
    save_model(
        directory,
        classifier=session.classifier,
        encoder=session.encoder,
        info=describe(session, head),
        bundle=bundle,
    )


def probabilities(classifier, session) -> np.ndarray:
    return predict_probabilities(classifier, session.tokenize(TEXTS), compute=session.compute, token_budget=500)


@pytest.mark.parametrize("head", ["lstm", "han", "linear"])
@pytest.mark.parametrize("bundle", [True, False])
def test_a_saved_model_gives_the_same_probabilities_after_loading(make_session, tmp_path, head, bundle):
    session = make_session(head)
    save(session, tmp_path / "model", head, bundle=bundle)
    loaded = load_model(tmp_path / "model")
    assert loaded.info.encoder_inside is bundle
    assert np.array_equal(probabilities(loaded.classifier, session), probabilities(session.classifier, session))
    assert not list(tmp_path.glob(".*")), "nothing is left beside the model"


def test_who_may_read_one_file_of_a_model_may_read_all(make_session, tmp_path):
    save(make_session("lstm"), tmp_path / "model")
    modes = {path.stat().st_mode for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_a_bundled_model_needs_no_other_file(make_session, tmp_path, small_config):
    session = make_session("lstm")
    save(session, tmp_path / "model")
    moved = shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    info = json.loads((Path(moved) / paths.MODEL_JSON).read_text())
    info |= {"encoder_name": "/gone", "checksum": None}
    (Path(moved) / paths.MODEL_JSON).write_text(json.dumps(info))
    assert load_model(Path(moved)).info.labels == ("negative", "positive")


@pytest.mark.processor(needs="bf16")
def test_weights_trained_in_bf16_load_as_float32_on_the_cpu(make_session, tmp_path):
    session = make_session("lstm", precision="bf16")
    save(session, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert {p.dtype for p in loaded.classifier.parameters()} == {torch.float32}
    assert {p.device.type for p in loaded.classifier.parameters()} == {"cpu"}


def test_an_encoder_that_changed_since_training_is_refused(make_session, tmp_path, tiny_encoder_dir):
    from sentiment_hybrid.models.encoder.hub import load_encoder_dir, save_encoder

    session = make_session("lstm")
    save(session, tmp_path / "model", bundle=False)
    other = load_encoder_dir(tiny_encoder_dir)
    with torch.no_grad():
        next(other.model.parameters()).add_(0.01)
    save_encoder(other.model, other.tokenizer, tmp_path / "other")
    with pytest.raises(EncoderError, match=r"not the one that .* was trained on"):
        load_model(tmp_path / "model", encoder=tmp_path / "other")
    assert load_model(tmp_path / "model", encoder=tiny_encoder_dir).info.head == "lstm"


def test_publishing_stopped_between_its_two_renames_is_recovered(make_session, tmp_path, monkeypatch):
    if os.name != "posix":
        pytest.skip("needs fork")
    session = make_session("lstm")
    directory = tmp_path / "model"
    save(session, directory)
    before = read_info(directory)
    real = Path.rename

    def stop_before_second(self, target):
        if self.name.endswith(".partial"):
            os._exit(9)
        return real(self, target)

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(Path, "rename", stop_before_second)
        save(session, directory)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert not directory.exists()
    assert read_info(directory) == before
    save(session, directory)
    assert not list(tmp_path.glob(".*")), "the next save clears what the stopped one left"


def test_a_reader_between_the_two_renames_waits_for_the_new_model(make_session, tmp_path, monkeypatch):
    session, directory = make_session("lstm"), tmp_path / "model"
    save(session, directory)
    real, seen = Path.rename, []
    reader = threading.Thread(target=lambda: seen.append(read_info(directory)))

    def read_in_between(self, target):
        if self.name.endswith(".partial"):
            reader.start()
            reader.join(0.1)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", read_in_between)
    save_model(
        directory,
        classifier=session.classifier,
        encoder=session.encoder,
        info=replace(describe(session, "lstm"), run_id="new"),
        bundle=True,
    )
    reader.join()
    assert seen[0].run_id == "new"
    assert not list(tmp_path.glob(".*"))


def test_a_model_keeps_the_tokenizer_that_it_was_trained_with(make_session, tmp_path, tiny_encoder_dir):
    session = make_session("lstm")
    save(session, tmp_path / "model", bundle=False)
    other = shutil.copytree(tiny_encoder_dir, tmp_path / "other")
    document = json.loads((other / "tokenizer.json").read_text())
    document["normalizer"] = {"type": "Replace", "pattern": {"String": "o"}, "content": "a"}
    (other / "tokenizer.json").write_text(json.dumps(document))
    loaded = load_model(tmp_path / "model", encoder=other)
    wanted = session.encoder.tokenizer
    assert loaded.encoder.tokenizer.backend_tokenizer.to_str() == wanted.backend_tokenizer.to_str()
    text = "a good </s> day"
    assert loaded.encoder.tokenizer(text)["input_ids"] == wanted(text)["input_ids"]


def forget_checksums(directory: Path) -> None:
    """As a model of an earlier version, which noted none of its small files."""
    document = directory / paths.MODEL_JSON
    facts = json.loads(document.read_text())
    del facts["files"], facts["checksum"]
    document.write_text(json.dumps(facts))


@pytest.mark.parametrize("bundle", [True, False])
def test_one_flipped_bit_in_any_file_that_decides_an_answer_is_noticed(make_session, tmp_path, bundle):
    save(make_session("lstm"), tmp_path / "model", bundle=bundle)
    small = [file for file in (tmp_path / "model").rglob("*.json") if file.name != paths.MODEL_JSON]
    assert {file.name for file in small} >= {"tokenizer.json", "tokenizer_config.json"} | (
        {"config.json"} if bundle else set()
    )
    for file in small:
        whole = file.read_bytes()
        file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(ModelError, match=rf"{file.name} of .* is not the file that was saved"):
            load_model(tmp_path / "model")
        file.write_bytes(whole)
    load_model(tmp_path / "model")


def test_a_flipped_bit_in_model_json_changes_nothing_or_is_noticed(make_session, tmp_path):
    save(make_session("lstm"), tmp_path / "model", bundle=False)
    document, before = tmp_path / "model" / paths.MODEL_JSON, read_info(tmp_path / "model")
    whole, noticed = document.read_bytes(), 0
    for place in range(0, len(whole), 7):
        document.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert read_info(tmp_path / "model") == before
        except ModelError as error:
            assert error.hint
            noticed += 1
    assert noticed > 100


def test_a_damaged_tokenizer_of_a_model_is_reported(make_session, tmp_path):
    save(make_session("lstm"), tmp_path / "model", bundle=False)
    forget_checksums(tmp_path / "model")
    (tmp_path / "model" / paths.TOKENIZER_DIR / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderError, match=r"the tokenizer in .* cannot be loaded") as caught:
        load_model(tmp_path / "model")
    assert caught.value.hint


def test_a_full_disk_while_saving_keeps_the_old_model(make_session, tmp_path, monkeypatch):
    session = make_session("lstm")
    directory = tmp_path / "model"
    save(session, directory)
    before = read_info(directory)

    def full(path, document):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_directory, "write_json", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save(session, directory)
    monkeypatch.undo()
    assert read_info(directory) == before
    assert load_model(directory).info == before
    assert not list(tmp_path.glob(".*"))


def damage(directory: Path, kind: str) -> None:
    weights, document = directory / paths.MODEL_WEIGHTS, directory / paths.MODEL_JSON
    if kind == "no such directory":
        shutil.rmtree(directory)
    elif kind == "truncated weights":
        os.truncate(weights, weights.stat().st_size // 2)
    elif kind == "flipped weights":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 255
        weights.write_bytes(bytes(content))
    elif kind == "broken json":
        document.write_text('{"format_version": 1, ')
    elif kind == "missing field":
        facts = json.loads(document.read_text())
        del facts["labels"]
        document.write_text(json.dumps(facts))
    elif kind == "newer format":
        document.write_text(json.dumps({**json.loads(document.read_text()), "format_version": 99}))
    elif "=" in kind:
        name, _, value = kind.partition("=")
        changes = {name: json.loads(value), "checksum": None}
        document.write_text(json.dumps(json.loads(document.read_text()) | changes))
    elif kind == "no encoder weights":
        (directory / paths.ENCODER_DIR / "model.safetensors").unlink()
    elif kind == "truncated encoder":
        os.truncate(directory / paths.ENCODER_DIR / "model.safetensors", 200)
    elif kind == "broken tokenizer":
        forget_checksums(directory)
        (directory / paths.ENCODER_DIR / "tokenizer.json").write_text("{")
    elif kind == "pickle":
        weights.unlink()
        document.unlink()
        (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    elif kind == "pickle beside json":
        weights.rename(directory / "model.pt")
    elif kind == "a file":
        shutil.rmtree(directory)
        directory.write_text("hello")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no such directory", "there is no model at"),
        ("truncated weights", "damaged"),
        ("flipped weights", "not the file that was saved"),
        ("broken json", "damaged"),
        ("missing field", "labels: Field required"),
        ("newer format", "model format 99"),
        ('head="cnn"', "cnn"),
        ("labels=3", "labels"),
        ('labels=["negative"]', "two or more"),
        ('labels=["a", "a"]', "two or more"),
        ('max_length="x"', "max_length"),
        ("max_windows=0", "max_windows"),
        ("max_windows=1000000000", "max_windows"),
        ("max_length=1000000000", "max_length"),
        ("max_length=8192", "max_length is 8192, but its encoder reads at most"),
        ("train_rows=1e30", "train_rows"),
        ("trainable_layers=1000000000", "trainable_layers"),
        ('head_config={"hidden": 1000000000}', "hidden"),
        ("temperature=0.0", "temperature"),
        ("temperature=-2", "temperature"),
        ("temperature=1e-300", "temperature"),
        ("temperature=1e999", "temperature"),
        ('temperature="warm"', "temperature"),
        ('versions=["1"]', "versions"),
        ('head_config={"hidden": "wide"}', "hidden"),
        ("no encoder weights", "has no weights"),
        ("truncated encoder", "cannot be loaded"),
        ("broken tokenizer", "cannot be loaded"),
        ("pickle", "never loads pickles"),
        ("pickle beside json", "never loads pickles"),
        ("a file", "not a model directory"),
    ],
)
def test_a_directory_that_is_no_sound_model_is_refused(make_session, tmp_path, kind, message):
    directory = tmp_path / "model"
    save(make_session("lstm"), directory)
    damage(directory, kind)
    with pytest.raises(
        EncoderError if kind.endswith(("encoder weights", "encoder", "tokenizer")) else ModelError
    ) as caught:
        load_model(directory)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_model_published_before_lineage_and_temperature_were_kept_still_loads(make_session, tmp_path):
    session = make_session("lstm")
    save(session, tmp_path / "model")
    document = tmp_path / "model" / paths.MODEL_JSON
    facts = json.loads(document.read_text())
    for name in ("parent", "temperature", "checksum"):
        del facts[name]
    document.write_text(json.dumps(facts))
    loaded = load_model(tmp_path / "model")
    assert loaded.info.parent is None
    assert loaded.info.temperature == loaded.classifier.temperature == 1.0


def test_a_loaded_model_divides_its_logits_by_its_temperature(make_session, tmp_path):
    session = make_session("lstm")
    for name, temperature in (("plain", 1.0), ("warm", 2.5)):
        save_model(
            tmp_path / name,
            classifier=session.classifier,
            encoder=session.encoder,
            info=replace(describe(session, "lstm"), temperature=temperature),
            bundle=True,
        )
    plain, warm = (probabilities(load_model(tmp_path / name).classifier, session) for name in ("plain", "warm"))
    expected = plain ** (1 / 2.5)
    np.testing.assert_allclose(warm, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    assert not np.allclose(warm, plain, atol=1e-3)
    assert np.array_equal(warm.argmax(axis=1), plain.argmax(axis=1))


def test_a_missing_model_is_reported_with_the_trained_ones_beside_it(tmp_path: Path) -> None:
    paths.published_model(tmp_path, "han").mkdir()
    with pytest.raises(ModelError) as caught:
        read_info(paths.published_model(tmp_path, "lstm"))
    assert "Use the trained han model (--model han), or train one (senthy train --model lstm)" in str(caught.value.hint)
    with pytest.raises(ModelError) as same:
        published(tmp_path, "lstm")
    assert (same.value.message, same.value.hint) == (caught.value.message, caught.value.hint)
    with pytest.raises(ModelError) as caught:
        read_info(tmp_path / "another")
    assert "--model han" not in str(caught.value.hint)


def test_weights_that_are_not_numbers_are_never_published(make_session, tmp_path):
    session = make_session("lstm")
    with torch.no_grad():
        next(session.classifier.head.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite numbers"):
        save(session, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
