"""What ships in the package answers at once, offline, says so, and is unsure where it cannot know."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sentiment_hybrid import Predictor, paths
from sentiment_hybrid.cli import main
from sentiment_hybrid.commands import data, test, train
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
from sentiment_hybrid.engine.inference.predictor import model_directory
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import max_positions

HEADS = ("lstm", "han")
CLEAR = [
    ("I love this so much, best day ever", "positive"),
    ("thank you, that was wonderful!", "positive"),
    ("what a great film, we laughed a lot", "positive"),
    ("I hate this, worst day ever", "negative"),
    ("so sad and tired, everything hurts", "negative"),
    ("the service was terrible and the food was cold", "negative"),
    ("great", "positive"),
    ("awful", "negative"),
    ("\N{SMILING FACE WITH HEART-SHAPED EYES}", "positive"),
    ("\N{POUTING FACE}", "negative"),
    ("The plane is blue", "neutral"),
    ("The bus to Leeds leaves at half past nine", "neutral"),
    ("not great not terrible", "neutral"),
]
#: Texts in which an English model can find no sentiment.
UNKNOWABLE = [
    "http://t.co/abc",
    "@anna @ben",
    "12345 678",
    "...",
    "今日は会議が三つあります",
    "Сегодня в городе открыли новую библиотеку",
    "xqzt vbnm wrtp",
]


@pytest.fixture(scope="module", params=HEADS)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return Predictor(f"mini-{request.param}", precision="fp32")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_all_of_it_takes_at_most_24_megabytes() -> None:
    assert sum(file.stat().st_size for file in paths.mini_dir().rglob("*") if file.is_file()) <= 24e6


def test_both_heads_stand_on_the_one_encoder() -> None:
    models = [load_model(paths.mini_dir() / head) for head in HEADS]
    fingerprints = {model.info.encoder_fingerprint for model in models}
    assert fingerprints == {load_encoder_dir(paths.mini_dir() / paths.ENCODER_DIR).fingerprint}
    assert [model.info.labels for model in models] == [("negative", "neutral", "positive")] * 2


def test_clear_texts_get_their_label(predictor: Predictor) -> None:
    found = [prediction.label for prediction in predictor.predict([text for text, _ in CLEAR])]
    assert found == [label for _, label in CLEAR]


def test_it_finds_no_sentiment_in_what_it_cannot_read(predictor: Predictor) -> None:
    found = predictor.predict(UNKNOWABLE)
    assert all(one.label == "neutral" or one.score < 0.7 for one in found), found


def test_two_labels_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for head in HEADS:
        predictor = Predictor(f"mini-{head}", labels=("negative", "positive"), precision="fp32")
        clear = [(text, label) for text, label in CLEAR if label != "neutral"]
        assert [one.label for one in predictor.predict([text for text, _ in clear])] == [label for _, label in clear]
        np.testing.assert_allclose(predictor.predict_proba(["The plane is blue"]).sum(), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "   ", "\x00\x07\x1b[31m", "😀" * 300, "so good " * 12_500, "\ud83d", "a" * 100_000]
)
def test_odd_texts_get_an_answer_or_none_but_never_fail(predictor: Predictor, text: str) -> None:
    found = predictor.predict(text)
    assert found.label in {None, "negative", "neutral", "positive"}
    assert found.score is None or 1 / 3 <= found.score <= 1.0


def test_a_model_fine_tuned_from_it_knows_what_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parent's parent counts too; a filter that cannot be read costs a note, not the figures."""
    from dataclasses import asdict, replace

    from sentiment_hybrid.data.splits import hash_raw
    from sentiment_hybrid.files import write_json

    known = [(f"what a day number {number}", ("negative", "neutral", "positive")[number % 3]) for number in range(60)]
    own = tmp_path / "mini"
    for name in (*HEADS, paths.ENCODER_DIR):
        shutil.copytree(paths.mini_dir() / name, own / name)
    SeenTexts.of(hash_raw([text for text, _ in known], 0, version=1)[1], split_seed=0, split_key_version=1).save(
        own / paths.SEEN_TEXTS
    )
    monkeypatch.setattr(paths, "mini_dir", lambda: own)
    child = tmp_path / "child"
    shutil.copytree(own / "han", child)
    shutil.copytree(own / paths.ENCODER_DIR, child / paths.ENCODER_DIR)
    info = read_info(child)
    older = {"path": "away", "weights_sha256": info.weights_sha256, "run_id": "r", "created": "c", "parent": None}
    newer = {**older, "weights_sha256": "another", "parent": older}
    write_json(child / paths.MODEL_JSON, asdict(replace(info, parent=newer)))
    file_of = tmp_path / "texts.csv"
    with file_of.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "target"), *known])
    config = load_config("default", ["test.resamples=100", "test.baseline=false"])
    assert test.evaluate(config, None, load_model_path=child, data_file=file_of).entry["seen_by_mini"] == 60
    capsys.readouterr()
    small = ("--finetune-epochs", "1", "--set", "test.resamples=100", "--set", "test.baseline=false")
    where = ("--save-finetuned-model-path", str(tmp_path / "tuned"), "--set", f"paths.cache_dir={tmp_path / 'cache'}")
    assert run("finetune", "--load-model-path", str(child), "--finetune-data-path", str(file_of), *small, *where) == 0
    assert "were used to train mini" in " ".join(capsys.readouterr().err.split())
    (own / paths.SEEN_TEXTS).write_bytes(b"no filter")
    capsys.readouterr()
    assert test.evaluate(config, None, load_model_path=child, data_file=file_of).entry["seen_by_mini"] is None
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("overrides", [[], ["encoder.max_length=200"], ["encoder.max_length=512"]])
def test_it_stands_for_the_encoder_of_any_configuration(overrides: list[str]) -> None:
    assert load_config("default", ["encoder.name=mini", *overrides]).encoder.max_length == 128
    assert load_config("default", ["encoder.name=mini", "encoder.max_length=32"]).encoder.max_length == 32


def test_an_encoder_can_be_pretrained_on_from_it(tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    with texts.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((f"a day with number {number} in it",) for number in range(300))])
    output = tmp_path / "adapted"
    sizes = ("--set", "pretrain.valid_size=0.1", "--epochs", "1", "--sample-size", "120")
    assert run("pretrain", "--from", "mini", "--data", str(texts), "--output", str(output), *sizes) == 0
    assert load_encoder_dir(output).fingerprint != load_encoder_dir(paths.mini_dir() / paths.ENCODER_DIR).fingerprint
    emoji = tmp_path / "emoji.txt"
    emoji.write_text("🪿\n🫎\n", encoding="utf-8")
    more = ("--set", f"pretrain.added_tokens={emoji}", "--set", "encoder.max_length=256")
    assert run("pretrain", "--from", "mini", "--data", str(texts), "--output", str(output), *sizes, *more) == 0
    grown = load_encoder_dir(output)
    assert len(grown.tokenizer("so 🫎", add_special_tokens=False)["input_ids"]) == 2
    assert max_positions(grown.model) == 256


def test_a_pack_named_as_a_model_tells_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "--load-model-path", str(paths.mini_dir()), "what a day") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "is a pack of several models" in said
    assert "mini/han" in said.replace(" ", "")


def test_it_can_be_exported_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert run("export", "--format", "onnx", "--load-model-path", "mini-han", "--output", str(tmp_path / "onnx")) == 0
    ours = Predictor("mini-han", precision="fp32").predict_proba([text for text, _ in CLEAR])
    exported = Predictor(tmp_path / "onnx").predict_proba([text for text, _ in CLEAR])
    np.testing.assert_allclose(exported, ours, atol=1e-3)


def test_a_directory_of_its_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_directory("mini") == paths.mini_dir() / "han"
    assert model_directory("mini-lstm") == paths.mini_dir() / "lstm"
    assert model_directory("mini-linear") == Path("mini-linear"), "mini has no such head"
    (tmp_path / "mini").mkdir()
    assert model_directory("mini") == Path("mini")


def test_its_temperature_was_fitted() -> None:
    assert all(read_info(paths.mini_dir() / head).temperature != 1.0 for head in HEADS)


def test_predict_without_a_trained_model_uses_it_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "--json", CLEAR[0][0]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["prediction"] == "positive"
    assert "using mini" in err


def test_a_model_named_mini_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "--load-model-path", "mini-lstm", "--json", CLEAR[3][0]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] == "negative"


def test_predictor_without_arguments_is_mini_where_nothing_was_trained() -> None:
    assert Predictor().predict(CLEAR[0][0]).label == "positive"


def test_a_trained_model_comes_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    (tmp_path / "models" / "lstm_roberta_model_final").mkdir(parents=True)
    for name in ("lstm", paths.ENCODER_DIR):
        target = tmp_path / "models" / "lstm_roberta_model_final"
        target = target if name == "lstm" else target / name
        shutil.copytree(paths.mini_dir() / name, target, dirs_exist_ok=True)
    assert run("predict", "--json", CLEAR[0][0]) == 0
    assert "using mini" not in capsys.readouterr().err


def test_the_first_answer_imports_neither_transformers_nor_accelerate(tmp_path: Path) -> None:
    code = (
        "import sys; from sentiment_hybrid.cli import main\n"
        "try: main(['predict', 'what a day'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'transformers', 'accelerate', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_head_on_its_frozen_encoder_keeps_a_copy_because_the_package_may_change(tmp_path: Path) -> None:
    overrides = ["linear.train.epochs=3", "test.resamples=100", "linear.train.precision=fp32"]
    config = load_config("quickstart", overrides)
    data.run(config)
    result = train.run(config, "linear")
    assert read_info(result.model_dir).encoder_name == "mini"
    shipped = read_info(paths.mini_dir() / "han").encoder_fingerprint
    assert load_encoder_dir(result.model_dir / paths.ENCODER_DIR).fingerprint == shipped
    assert result.test is not None
    assert result.test.scores.accuracy.value > 0.7
    assert result.test.entry["seen_by_mini"] == 0


def test_it_knows_the_texts_that_it_was_made_from(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of train by its own split rule; a test on them says so, and one on its test rows does not."""
    from sentiment_hybrid.data import splits

    with gzip.open(next((shared / "data" / "tweets-clean-posneg").glob("*.csv.gz")), "rt", encoding="utf-8") as file:
        names = {"0.0": "negative", "4.0": "positive"}
        rows = [(row["text"], names[row["target"]]) for row, _ in zip(csv.DictReader(file), range(3000), strict=False)]
    hashes, _ = splits.hash_raw([text for text, _ in rows], 0, version=1)
    codes = splits.assign(hashes, test_size=0.05, valid_size=0.02)
    texts = SeenTexts.load(paths.mini_dir() / paths.SEEN_TEXTS)
    seen = texts.contains([text for text, _ in rows])
    # A few rows are in no split: those with both labels.
    assert seen[codes != splits.TEST].mean() > 0.95
    assert seen[codes == splits.TEST].sum() <= 3, "texts that are on both sides but for a name differ in it"
    file_of = tmp_path / "texts.csv"
    with file_of.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "target"), *rows[:300]])
    config = load_config("default", ["test.resamples=100"])
    result = test.evaluate(config, None, load_model_path=Path("mini"), data_file=file_of)
    assert result.entry["seen_by_mini"] > 250
    said = " ".join(capsys.readouterr().err.split())
    assert "were used to train mini" in said
    assert "no check for training texts" not in said, "there is one"
