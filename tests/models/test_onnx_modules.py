"""The recorded graph is the same model for every size: heads, cells, several windows, other encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference.onnx_export import quantize, write_graph
from sentiment_hybrid.errors import ModelError
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.models.onnx_modules import OnnxClassifier

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

#: Token counts of windows, and the text of each window.
SHAPES = [
    ([7, 3, 5], [0, 0, 1]),
    ([2, 28, 4, 9, 1, 22], [0, 1, 1, 1, 2, 3]),
    ([28], [0]),
    ([1, 1], [0, 1]),
    ([9, 9, 9, 9], [0, 0, 0, 0]),
]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "lstm": [{"hidden": 8, "layers": 2, "attention_heads": 2}],
    "han": [{"hidden": 8, "layers": 2, "cell": "gru"}, {"hidden": 8, "cell": "lstm"}],
}
CASES = [(head, section) for head in sorted(HEADS) for section in SETTINGS.get(head, [{}])]


def classifier_of(encoder: Any, head: str, section: dict[str, Any]) -> Classifier:
    torch.manual_seed(3)
    config = Config.model_validate({head: {"head": section}}).model(head)
    shared = Encoder(encoder, 0)
    module = build_head(head, config.head, input_size=shared.hidden_size, num_classes=3)
    with torch.no_grad():
        for weights in module.parameters():
            weights.mul_(2.0)
    return Classifier(shared, module).eval()


def assert_same_model(classifier: Classifier, folder: Path) -> None:
    write_graph(classifier, folder / "model.onnx", max_length=32)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    for lengths, text_index in SHAPES:
        ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
        inputs = {"input_ids": ids, "attention_mask": mask, "text_index": torch.tensor(text_index)}
        with torch.no_grad():
            expected = classifier(**inputs, num_texts=text_index[-1] + 1).logits
        found = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0]
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("head", "section"), CASES)
def test_a_graph_gives_the_logits_of_the_classifier_for_any_windows(
    head: str, section: dict[str, Any], tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    assert_same_model(classifier_of(load_encoder_dir(tiny_encoder_dir).model, head, section), tmp_path)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_graph_has_the_temperature_of_its_model(head: str, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    classifier = classifier_of(load_encoder_dir(tiny_encoder_dir).model, head, {})
    plain = OnnxClassifier(classifier)
    classifier.temperature = 2.5
    ids, mask, text_index = torch.tensor([[0, 9, 8, 2]]), torch.ones(1, 4, dtype=torch.int64), torch.zeros(1).long()
    with torch.no_grad():
        torch.testing.assert_close(
            OnnxClassifier(classifier)(ids, mask, text_index) * 2.5, plain(ids, mask, text_index)
        )
    assert_same_model(classifier, tmp_path)


def test_an_encoder_of_another_family_becomes_a_graph_too(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=40)
    assert_same_model(classifier_of(DistilBertModel(config).eval(), "linear", {}), tmp_path)


def test_weights_that_lie_apart_are_in_one_file(
    tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    export_one = torch.onnx.export

    def as_of_2_gb(*arguments: Any, **options: Any) -> None:
        """What torch does with a model that is too large for one file: each weight becomes a file."""
        export_one(*arguments, **options)
        graph = onnx.load(arguments[2])
        onnx.save_model(
            graph, arguments[2], save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=100
        )

    monkeypatch.setattr(torch.onnx, "export", as_of_2_gb)
    plain, quantized = tmp_path / "fp32", tmp_path / "int8"
    plain.mkdir()
    quantized.mkdir()
    assert_same_model(classifier_of(load_encoder_dir(tiny_encoder_dir).model, "linear", {}), plain)
    assert {file.name for file in plain.iterdir()} == {"model.onnx", "model.onnx.data"}
    quantize(plain / "model.onnx", quantized / "model.onnx")
    assert {file.name for file in quantized.iterdir()} == {"model.onnx", "model.onnx.data"}
    onnxruntime.InferenceSession(str(quantized / "model.onnx"))


def test_an_unknown_head_is_refused(tiny_encoder_dir: Path) -> None:
    whole = classifier_of(load_encoder_dir(tiny_encoder_dir).model, "linear", {})
    with pytest.raises(ModelError, match="no export for a Identity"):
        OnnxClassifier(Classifier(whole.encoder, torch.nn.Identity()))
