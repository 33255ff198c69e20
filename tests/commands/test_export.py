"""`senthy export`: the same model in one graph, refused when it is not, and used by predict without torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.commands import export, predict
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference import onnx_export as engine
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info, save_model
from sentiment_hybrid.engine.inference.onnx_runtime import graph_inputs
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import ModelError, OutputError, UsageError
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder

from ..conftest import model_info

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

LABELS = ("negative", "neutral", "positive")
#: The last one is longer than all windows together.
TEXTS = ["good film", "bad", "", "ça 😀 food </s>", "what a very good day " * 9, "not good " * 100, "good film"]


def write_model(directory: Path, encoder_dir: Path, head: str, **changes: Any) -> Path:
    torch.manual_seed(5)
    encoder = load_encoder_dir(encoder_dir)
    config = Config.model_validate(
        {"lstm": {"head": {"hidden": 8, "attention_heads": 2}}, "han": {"head": {"hidden": 8}}}
    ).model(head)
    shared = Encoder(encoder.model, 0)
    module = build_head(head, config.head, input_size=shared.hidden_size, num_classes=len(LABELS))
    with torch.no_grad():
        for weights in module.parameters():
            weights.mul_(2.0)
    info = model_info(
        encoder, head, **{"head_config": config.head.model_dump(mode="json"), "labels": LABELS, **changes}
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    save_model(directory, classifier=Classifier(shared, module), encoder=encoder, info=info, bundle=True)
    return directory


@pytest.fixture(scope="module")
def models_dir(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for head in HEADS:
        write_model(paths.published_model(folder, head), tiny_encoder_dir, head)
    return folder


@pytest.fixture(scope="module")
def export_dir(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export, of the lstm, for all tests that only read it."""
    torch.set_num_threads(1)
    config = Config.model_validate({"paths": {"models_dir": models_dir, "data_db": models_dir / "none.db"}})
    return export.run(config, "lstm", output=tmp_path_factory.mktemp("exports") / "lstm", rows=60).directory


@pytest.fixture
def config(models_dir: Path, tmp_path: Path) -> Config:
    torch.set_num_threads(1)
    own = {"models_dir": models_dir, "data_db": tmp_path / "none.db", "cache_dir": tmp_path / "cache"}
    return Config.model_validate({"paths": own})


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_labels_as_the_original(head: str, quantize: Any, config: Config, tmp_path: Path) -> None:
    done = export.run(config, head, output=tmp_path / "export", quantize=quantize, rows=100)
    original = Predictor(paths.published_model(config.paths.models_dir, head), device="cpu", precision="fp32")
    exported = Predictor(done.directory)
    expected, found = original.predict_proba(TEXTS), exported.predict_proba(TEXTS)
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found, expected, atol=1e-4 if quantize is None else 0.05)
    assert (exported.empty, exported.truncated) == (original.empty, original.truncated) == (1, 1)
    assert exported.labels == original.labels
    assert (done.kind, done.checked_on) == (quantize or "fp32", "the sample")
    assert done.check.rows >= 100
    assert set(done.speed) >= {"torch fp32", f"onnx {quantize or 'fp32'}"}


def test_an_export_is_as_sure_as_the_original(tiny_encoder_dir: Path, config: Config, tmp_path: Path) -> None:
    models = {
        heat: write_model(tmp_path / str(heat), tiny_encoder_dir, "linear", temperature=heat) for heat in (1.0, 3.0)
    }
    done = export.run(config, load_model_path=models[3.0], output=tmp_path / "export", rows=60)
    plain, warm = (Predictor(models[heat], device="cpu", precision="fp32").predict_proba(TEXTS[:2]) for heat in models)
    assert (warm.max(axis=1) < plain.max(axis=1) - 1e-3).all()
    np.testing.assert_allclose(Predictor(done.directory).predict_proba(TEXTS[:2]), warm, atol=1e-4)
    assert read_info(done.directory).temperature == 3.0


def test_a_directory_explains_itself(export_dir: Path, models_dir: Path) -> None:
    source = read_info(paths.published_model(models_dir, "lstm"))
    info = read_info(export_dir)
    assert replace(info, encoder_inside=True, files={}) == replace(source, encoder_inside=True, files={})
    facts = json.loads((export_dir / paths.MODEL_JSON).read_text(encoding="utf-8"))["onnx"]
    assert facts["kind"] == "fp32"
    assert facts["source"]["weights_sha256"] == source.weights_sha256
    assert facts["source"]["encoder_fingerprint"] == source.encoder_fingerprint
    assert facts["check"]["agreement"] == 1.0
    assert {file.name for file in export_dir.iterdir()} == {"model.onnx", "model.json", "tokenizer", "README.md"}
    session = onnxruntime.InferenceSession(str(export_dir / "model.onnx"))
    assert [one.name for one in session.get_inputs()] == list(facts["inputs"])
    assert [one.name for one in session.get_outputs()] == list(facts["outputs"])


def test_without_an_output_it_goes_beside_the_model_and_predict_finds_it(config: Config, tmp_path: Path) -> None:
    import shutil

    place = Path(shutil.copytree(config.paths.models_dir, tmp_path / "models"))
    config = config.model_copy(update={"paths": config.paths.model_copy(update={"models_dir": place})})
    with pytest.raises(ModelError, match="no exported model found") as caught:
        predict.run(predict.Request(["good"], config=config, backend="onnx"))
    assert "senthy export" in caught.value.hint
    done = export.run(config, "linear", quantize="int8", rows=20)
    assert done.directory == place / "linear_roberta_model_onnx_int8"
    assert predict.run(predict.Request(["good"], config=config, backend="onnx")).model_dir == done.directory
    assert predict.run(predict.Request(["good"], config=config)).model_dir == place / "lstm_roberta_model_final"


def test_the_prepared_test_split_is_what_it_is_checked_on(project: Any, tiny_encoder_dir: Path) -> None:
    own = project.config()
    write_model(paths.published_model(own.paths.models_dir, "linear"), tiny_encoder_dir, "linear")
    done = export.run(own, rows=30)
    assert done.checked_on == "the test split"
    assert done.check.rows >= 20
    assert done.model_dir == paths.published_model(own.paths.models_dir, "linear")


# --- what is refused -------------------------------------------------------------------------------------------------


def wrong_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that gets one weight wrong."""
    write = engine.write_graph

    def wrong(classifier: Classifier, path: Path, **options: Any) -> None:
        weight = [value for name, value in classifier.head.named_parameters() if name.endswith("weight")][-1]
        right = weight.detach().clone()
        with torch.no_grad():
            weight.copy_(right.flip(0) * 3.0)
            write(classifier, path, **options)
            weight.copy_(right)

    monkeypatch.setattr(engine, "write_graph", wrong)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_an_export_that_is_another_model_is_refused_and_nothing_is_left(
    quantize: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_graph(monkeypatch)
    with pytest.raises(ModelError, match="does not reproduce the model"):
        export.run(config, "linear", output=tmp_path / "new" / "export", quantize=quantize, rows=40)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failed_export_leaves_the_one_before(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = export.run(config, "linear", output=tmp_path / "export", rows=20).directory
    before = (place / "model.onnx").read_bytes()
    wrong_graph(monkeypatch)
    with pytest.raises(ModelError, match="does not reproduce the model"):
        export.run(config, "linear", output=place, rows=20)
    assert (place / "model.onnx").read_bytes() == before
    Predictor(place)


def test_only_an_export_is_replaced(config: Config, models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    (tmp_path / "file").write_text("keep", encoding="utf-8")
    model = paths.published_model(models_dir, "linear")
    for place, told in ((tmp_path / "mine", "other files"), (tmp_path / "file", "a file"), (model, "other files")):
        with pytest.raises(UsageError, match=told):
            export.run(config, "linear", output=place)
    assert (tmp_path / "mine" / "notes.txt").read_text(encoding="utf-8") == "keep"
    assert (model / paths.MODEL_WEIGHTS).is_file()


def test_a_place_that_cannot_be_written_is_reported(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        export.run(config, "linear", output=tmp_path / "file" / "export")


def test_a_model_of_another_head_is_refused(config: Config, models_dir: Path) -> None:
    with pytest.raises(ModelError, match="is a han model, not lstm"):
        export.run(config, "lstm", load_model_path=paths.published_model(models_dir, "han"))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_sentence_and_the_command(
    package: str, config: Config, export_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"need {package}, which is not installed") as caught:
        export.run(config, "linear")
    assert caught.value.hint == 'In the checkout: pip install ".[onnx]"'
    if package == "onnxruntime":
        with pytest.raises(ModelError, match="need onnxruntime"):
            Predictor(export_dir)


# --- predict on an export --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, ["positive", "negative"]])
def test_rows_of_a_file_are_labelled_as_by_the_original(
    labels: list[str] | None, config: Config, models_dir: Path, export_dir: Path
) -> None:
    with Path("in.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text"), *enumerate(TEXTS * 3)])
    train = config.lstm.train.model_copy(update={"precision": "fp32"})
    config = config.model_copy(update={"lstm": config.lstm.model_copy(update={"train": train})})
    rows = {}
    for name, directory in (("torch", paths.published_model(models_dir, "lstm")), ("onnx", export_dir)):
        predict.run(predict.Request(
            config=config, model_dir=directory, input_file=Path("in.csv"), output_file=Path(f"{name}.csv"),
            labels=labels,
        ))  # fmt: skip
        with Path(f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert [list(row) for row in rows["onnx"]] == [list(row) for row in rows["torch"]]
    shown = [f"p_{label}" for label in LABELS if labels is None or label in labels]
    assert list(rows["onnx"][0]) == ["id", "text", "prediction", "score", *shown]
    for one, other in zip(rows["onnx"], rows["torch"], strict=True):
        assert (one["id"], one["text"], one["prediction"]) == (other["id"], other["text"], other["prediction"])
        if one["prediction"]:
            assert float(one["score"]) == pytest.approx(float(other["score"]), abs=1e-4)


def test_neither_torch_nor_transformers_is_loaded_for_an_export(export_dir: Path) -> None:
    program = (
        "import sys\n"
        "from sentiment_hybrid.cli import main\n"
        "try:\n"
        f"    main(['predict', '--load-model-path', {str(export_dir)!r}, 'good', 'a very bad day'])\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, sorted({'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_wrong_backend_for_a_directory_says_what_to_do(
    backend: Any, config: Config, models_dir: Path, export_dir: Path
) -> None:
    model = paths.published_model(models_dir, "lstm")
    directory, told, hint = (
        (export_dir, "is an ONNX export", "model directory")
        if backend == "torch"
        else (model, "is not an export", f"senthy export --load-model-path {model}")
    )
    with pytest.raises(ModelError, match=told) as caught:
        predict.run(predict.Request(["good"], config=config, model_dir=directory, backend=backend))
    assert hint in caught.value.hint


def test_an_export_is_no_model_to_train_on(export_dir: Path) -> None:
    with pytest.raises(ModelError, match="ONNX export"):
        load_model(export_dir)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def undescribed(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"onnx": {"kind": 3}, "checksum": None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "break_it", "told"),
    [
        ("model.onnx", damaged, "not the file that was exported"),
        ("model.json", damaged, "damaged"),
        ("model.json", Path.unlink, "damaged ONNX export: it lacks model.json"),
        ("model.json", undescribed, "does not describe an export"),
        ("tokenizer/tokenizer.json", damaged, "tokenizer.json of .* is not the file that was saved"),
        ("tokenizer/tokenizer.json", Path.unlink, "no tokenizer"),
    ],
)
def test_a_damaged_export_is_reported(
    name: str, break_it: Callable[[Path], None], told: str, export_dir: Path, tmp_path: Path
) -> None:
    import shutil

    place = Path(shutil.copytree(export_dir, tmp_path / "export"))
    break_it(place / name)
    with pytest.raises(ModelError, match=told):
        Predictor(place)


def test_a_precision_that_an_export_does_not_have_is_reported(config: Config, export_dir: Path) -> None:
    with pytest.raises(ModelError, match="is an export in fp32, so it cannot compute in int8") as caught:
        predict.run(predict.Request(["good"], config=config, model_dir=export_dir, precision="int8"))
    assert "senthy export" in caught.value.hint
    assert predict.run(predict.Request(["good"], config=config, model_dir=export_dir, precision="fp32")).rows == 1


@pytest.mark.parametrize(("device", "told"), [("cuda", "does not support CUDA"), ("mps", "does not run on mps")])
def test_a_device_that_onnxruntime_lacks_is_reported(device: str, told: str, export_dir: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and device == "cuda":
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ModelError, match=told):
        Predictor(export_dir, device=device)


def test_a_graph_reads_windows_as_model_json_says(export_dir: Path) -> None:
    from sentiment_hybrid.engine.inference.onnx_runtime import OnnxBackend

    backend = OnnxBackend(export_dir)
    tokenized = backend.tokenize(["good", "what a very good day " * 9])
    inputs = graph_inputs(tokenized, np.array([1, 0]))
    assert inputs["text_index"].tolist() == [0, 0, 1]
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == 1).all()
