"""``senthy export --format pack``: models of one encoder in half the room, that know which texts they have seen."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import packing
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.splits import hash_raw
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.engine.inference.model_directory import load_model, save_model
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import EncoderError, ModelError, UsageError
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import load_encoder_dir, save_encoder
from sentiment_hybrid.models.encoder.module import Encoder

from ..conftest import model_info

HEADS = ("lstm", "han")
TEXTS = ["a good film", "bad, bad food", "what a day 😀", "not very good " * 30]


def write_model(directory: Path, encoder_dir: Path, head: str, **changes: Any) -> None:
    """A published model with random weights; the encoder is inside."""
    torch.manual_seed(5)
    encoder = load_encoder_dir(encoder_dir)
    config = Config.model_validate(
        {"lstm": {"head": {"hidden": 16, "layers": 1}}, "han": {"head": {"hidden": 16}}}
    ).model(head)
    shared = Encoder(encoder.model, 0)
    module = build_head(head, config.head, input_size=shared.hidden_size, num_classes=2)
    info = model_info(
        encoder,
        head,
        **{
            "head_config": config.head.model_dump(mode="json"),
            "trainable_layers": "all",
            "temperature": 1.7,
            **changes,
        },
    )
    save_model(directory, classifier=Classifier(shared, module), encoder=encoder, info=info, bundle=True)


@pytest.fixture
def make(tmp_path: Path, tiny_encoder_dir: Path) -> Callable[..., Config]:
    """Publish both heads and give the config that finds them: ``make(**changes of model.json)``."""
    torch.set_num_threads(1)

    def published(data_db: Path = tmp_path / "none.db", joint: dict[str, Any] | None = None, **changes: Any) -> Config:
        for head in HEADS:
            write_model(paths.published_model(tmp_path / "models", head), tiny_encoder_dir, head, **changes)
        own = {"models_dir": tmp_path / "models", "data_db": data_db, "cache_dir": tmp_path / "cache"}
        return Config.model_validate({"paths": own, "joint": {"models": HEADS, **(joint or {})}})

    return published


def published(config: Config, head: str) -> Path:
    return paths.published_model(config.paths.models_dir, head)


# --- what is in it


def test_packed_models_say_what_the_originals_say(make: Callable[..., Config]) -> None:
    config = make()
    done = packing.run(config)
    assert done.directory == config.paths.models_dir / "packed"
    assert done.heads == HEADS
    for head in HEADS:
        original, packed = (
            Predictor(place, precision="fp32") for place in (published(config, head), done.directory / head)
        )
        expected, found = original.predict_proba(TEXTS), packed.predict_proba(TEXTS)
        np.testing.assert_allclose(found, expected, atol=2e-3)
        before, after = load_model(published(config, head)).info, load_model(done.directory / head).info
        assert (after.labels, after.normalizer, after.temperature) == (before.labels, before.normalizer, 1.7)


def test_the_encoder_is_there_once_and_weights_take_half_the_room(make: Callable[..., Config]) -> None:
    config = make()
    done = packing.run(config)
    assert {entry.name for entry in done.directory.iterdir()} == {"encoder", *HEADS}
    for place in (done.directory / "encoder" / "model.safetensors", done.directory / "lstm" / "model.safetensors"):
        assert {value.dtype for value in load_file(place).values()} == {torch.float16}
    weights = {
        place: sum(file.stat().st_size for file in place.rglob("*.safetensors"))
        for place in (done.directory, *(published(config, head) for head in HEADS))
    }
    encoder = (published(config, "lstm") / "encoder" / "model.safetensors").stat().st_size
    packed, *whole = weights.values()
    assert packed == pytest.approx((sum(whole) - encoder) / 2, rel=0.1)
    assert done.bytes == sum(file.stat().st_size for file in done.directory.rglob("*") if file.is_file())


def test_a_pack_can_be_moved_and_a_head_needs_the_encoder_beside_it(
    make: Callable[..., Config], tmp_path: Path
) -> None:
    done = packing.run(make(), output=tmp_path / "mine" / "pack")
    assert done.directory == tmp_path / "mine" / "pack"
    moved = tmp_path / "moved"
    shutil.move(done.directory, moved)
    assert Predictor(moved / "han").predict("good").label in ("negative", "positive")
    shutil.rmtree(moved / "encoder")
    with pytest.raises(EncoderError):
        load_model(moved / "han")


def test_an_encoder_beside_that_is_another_is_refused(make: Callable[..., Config], tiny_encoder_dir: Path) -> None:
    done = packing.run(make())
    shutil.rmtree(done.directory / "encoder")
    shutil.copytree(tiny_encoder_dir, done.directory / "encoder")
    with pytest.raises(EncoderError, match="not the one that"):
        load_model(done.directory / "lstm")


def test_the_command_line_packs_and_tells_where(
    make: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make()
    settings = [f"paths.models_dir={config.paths.models_dir}", f"paths.data_db={tmp_path / 'none.db'}"]
    arguments = ["export", "--format", "pack", *(part for one in settings for part in ("--set", one))]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    said = capsys.readouterr()
    assert "lstm, han" in said.out
    assert "does not record the training texts" in " ".join(said.err.split())
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--model", "lstm"])
    assert stop.value.code == 2
    assert "--model" in capsys.readouterr().err


# --- what is refused


def test_models_of_different_encoders_are_refused(
    make: Callable[..., Config], tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    config = make()
    loaded = load_encoder_dir(tiny_encoder_dir)
    with torch.no_grad():
        next(loaded.model.parameters()).add_(0.1)
    save_encoder(loaded.model, loaded.tokenizer, tmp_path / "other")
    shutil.rmtree(published(config, "han"))
    write_model(published(config, "han"), tmp_path / "other", "han")
    with pytest.raises(ModelError, match="do not share an encoder") as caught:
        packing.run(config)
    assert "--model joint" in caught.value.hint
    assert not (config.paths.models_dir / "packed").exists()
    assert not list(config.paths.models_dir.glob(".*"))


def test_a_missing_model_is_reported(make: Callable[..., Config]) -> None:
    config = make()
    shutil.rmtree(published(config, "han"))
    with pytest.raises(ModelError, match="han"):
        packing.run(config)


def test_a_pack_replaces_a_pack_and_nothing_else(make: Callable[..., Config], tmp_path: Path) -> None:
    config = make()
    file, diary = tmp_path / "file", tmp_path / "diary"
    file.write_text("hello")
    diary.mkdir()
    (diary / "today.txt").write_text("dear diary")
    with_encoder = tmp_path / "with encoder"
    shutil.copytree(published(config, "lstm") / "encoder", with_encoder / "encoder")
    (with_encoder / "notes.txt").write_text("mine")
    for place in (file, diary, with_encoder, published(config, "lstm"), config.paths.models_dir):
        with pytest.raises(UsageError, match="--output"):
            packing.run(config, output=place)
    assert (diary / "today.txt").read_text() == "dear diary"
    assert load_model(published(config, "lstm")).info.head == "lstm"
    empty = tmp_path / "empty"
    empty.mkdir()
    for _ in range(2):
        packing.run(config, output=empty)
    assert Predictor(empty / "lstm").predict("good").label


# --- which texts its models have seen


def store_facts(project: Any, **changes: Any) -> dict[str, Any]:
    """What model.json says of models that were trained on the project's database."""
    database = project.config().paths.data_db
    with open_store(database) as store:
        facts = {"split_fingerprint": store.split_fingerprint, "train_rows": store.count("train")}
    return {"data_db": database, **facts, **changes}


def raw(project: Any, split: Any) -> list[str]:
    with open_store(project.config().paths.data_db) as store:
        found: list[str] = store.read(split, with_raw=True).raw
    return found


def test_it_knows_the_texts_of_training_and_validation_and_not_those_of_the_test(
    project: Any, make: Callable[..., Config]
) -> None:
    done = packing.run(make(**store_facts(project)))
    seen = SeenTexts.load(done.directory / paths.SEEN_TEXTS)
    assert done.seen_texts == seen.count == 198
    assert seen.contains(raw(project, "train")).all()
    assert seen.contains([text.upper() for text in raw(project, "valid")]).all()
    test = raw(project, "test")
    assert len(test) == 42
    assert seen.contains(test).sum() <= 3, "within chance"


def test_of_a_sample_only_the_sample_was_seen(project: Any, make: Callable[..., Config]) -> None:
    done = packing.run(make(**store_facts(project, train_rows=50)))
    seen = SeenTexts.load(done.directory / paths.SEEN_TEXTS)
    assert seen.count == 50 + 20
    assert seen.contains(raw(project, "train")[:50]).all()
    assert seen.contains(raw(project, "train")[50:]).mean() < 0.1


def test_further_texts_were_seen_but_for_those_that_were_left_out(project: Any, make: Callable[..., Config]) -> None:
    path = project.folder / "further.csv"
    test = raw(project, "test")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("text", "label"),
                *((f"a new text {number}", "positive") for number in range(40)),
                *((text, "negative") for text in test),
                *((f"an indifferent text {number}", "neutral") for number in range(30)),
            ]
        )
    joint: dict[str, Any] = {
        "further_source": str(path),
        "further_label_map": {"positive": "positive", "negative": "negative"},
    }
    done = packing.run(make(joint=joint, **store_facts(project)))
    seen = SeenTexts.load(done.directory / paths.SEEN_TEXTS)
    assert seen.count == 198 + 40
    assert seen.contains([f"a new text {number}" for number in range(40)]).all()
    neutral = [f"an indifferent text {number}" for number in range(30)]
    assert not seen.contains(neutral).any()
    assert seen.contains(test).sum() <= 3


def test_models_that_had_other_further_texts_than_the_configuration_names_are_refused(
    project: Any, make: Callable[..., Config], tmp_path: Path
) -> None:
    path = tmp_path / "further.csv"
    path.write_text("text,label\n" + "".join(f"a new text {number},positive\n" for number in range(20)))
    config = make(joint={"further_source": str(path)}, **store_facts(project))
    for head in HEADS:
        SeenTexts.of(
            hash_raw([f"a new text {number}" for number in range(20)], 0, version=2)[1],
            split_seed=0,
            split_key_version=2,
        ).save(published(config, head) / paths.SEEN_TEXTS)
    assert packing.run(config).seen_texts == 198 + 20
    path.write_text("text,label\n" + "".join(f"another text {number},positive\n" for number in range(20)))
    with pytest.raises(UsageError, match=r"not on those that joint\.further_source"):
        packing.run(config)
    other = config.model_copy(update={"joint": config.joint.model_copy(update={"further_source": None})})
    with pytest.raises(UsageError, match="was trained on further texts too") as caught:
        packing.run(other)
    assert "joint.further_source=FILE" in str(caught.value.hint)


def test_without_the_database_of_its_models_it_knows_nothing_and_says_so(
    project: Any, make: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    done = packing.run(make(**store_facts(project, split_fingerprint="another")))
    assert done.seen_texts == 0
    assert not (done.directory / paths.SEEN_TEXTS).exists()
    assert "is not the training database" in " ".join(capsys.readouterr().err.split())
    packing.run(make())
    assert "there is no prepared database" in " ".join(capsys.readouterr().err.split())
