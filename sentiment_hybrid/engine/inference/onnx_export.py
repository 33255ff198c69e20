"""Exports a classifier as one ONNX graph, quantizes it, and compares both with the original."""

from __future__ import annotations

import logging
import statistics
import sys
import timeit
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.engine import device as devices
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.onnx_runtime import softmax
from sentiment_hybrid.errors import ModelError, SenthyError, first_line
from sentiment_hybrid.models.onnx_modules import OnnxClassifier

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.onnx_runtime import OnnxBackend
    from sentiment_hybrid.models.classifier import Classifier

Kind = Literal["fp32", "int8"]

#: Supported by every onnxruntime since 1.14, LayerNormalization included.
OPSET = 18
INPUTS = {
    "input_ids": "(W, T) int64: token ids of W windows, special tokens included, padded on the right with pad_id",
    "attention_mask": "(W, T) int64: 1 for real tokens, 0 for padding",
    "text_index": "(W,) int64: the text that each window belongs to, from 0 up without a gap",
}
OUTPUTS = {"logits": "(B, C) float32: one row per text, in the order of labels"}

#: Requirements of an export: fraction of rows with the same label, and maximum relative difference of logits.
LEAST_AGREEMENT: dict[Kind, float] = {"fp32": 0.999, "int8": 0.97}
MOST_DIFFERENCE: dict[Kind, float | None] = {"fp32": 1e-3, "int8": None}

_TIMED_TURNS = 3


@dataclass(frozen=True)
class Check:
    """An export compared with the original in float32: rows, maximum differences, and agreement of labels."""

    rows: int
    logit_difference: float
    probability_difference: float
    agreement: float

    def refuse(self, kind: Kind, largest: float) -> str | None:
        """Why it is not good enough, or None; ``largest`` is the largest absolute logit of the original."""
        if not np.isfinite(self.logit_difference):
            return "it gives values that are not numbers"
        most = MOST_DIFFERENCE[kind]
        if most is not None and self.logit_difference > most * max(1.0, largest):
            return (
                f"a logit differs by {self.logit_difference:.2g}, more than the allowed {most * max(1.0, largest):.2g}"
            )
        if self.agreement < LEAST_AGREEMENT[kind]:
            return f"only {self.agreement:.1%} of the labels agree, less than the required {LEAST_AGREEMENT[kind]:.1%}"
        return None


def write_graph(classifier: Classifier, path: Path, *, max_length: int) -> None:
    """Write encoder and head as one float32 graph with dynamic shapes.

    Raises:
        ModelError: the head has no export, or the encoder's architecture cannot be exported.
    """
    graph = OnnxClassifier(classifier)
    with _recording(), torch.no_grad():
        try:
            torch.onnx.export(
                graph,
                _example(min(max_length, 9)),
                str(path),
                # The dynamo exporter does not support recurrence over rows of different lengths.
                dynamo=False,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_axes={
                    "input_ids": {0: "windows", 1: "tokens"},
                    "attention_mask": {0: "windows", 1: "tokens"},
                    "text_index": {0: "windows"},
                    "logits": {0: "texts"},
                },
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            # Export errors of torch are RuntimeErrors.
            raise ModelError(
                f"this encoder cannot be exported to ONNX: {first_line(error)}",
                hint="Use a RoBERTa- or BERT-like encoder.",
            ) from error
    _one_data_file(path)


def quantize(source: Path, target: Path) -> None:
    """Quantize weights of the encoder's matrix products to int8, per channel; activations are quantized dynamically.

    The head stays as it is: it is a small part of the work, and an error in a recurrence goes on to all later tokens.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(str(source), load_external_data=False).graph.node
    with _recording():
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=[node.name for node in nodes if node.name.startswith("/encoder/")],
            use_external_data_format=(source.parent / paths.ONNX_DATA).exists(),
        )


def compare(
    classifier: Classifier,
    backend: OnnxBackend,
    tokenized: TokenizedTexts,
    *,
    token_budget: int,
    progress: Callable[[int], object] = lambda rows: None,
) -> tuple[Check, str | None]:
    """Compare both on the same texts, on the CPU, the original in float32; and why the export is refused, or None."""
    plain = devices.Compute(torch.device("cpu"), "fp32")
    expected = predict_probabilities(
        classifier, tokenized, compute=plain, token_budget=token_budget, progress=progress, take=lambda out: out.logits
    )
    found = backend.logits(tokenized, token_budget=token_budget, progress=progress)
    check = Check(
        rows=len(tokenized),
        logit_difference=float(np.abs(expected - found).max()),
        probability_difference=float(np.abs(softmax(expected) - softmax(found)).max()),
        agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
    )
    return check, check.refuse("int8" if backend.kind == "int8" else "fp32", float(np.abs(expected).max()))


def race(
    classifier: Classifier, backend: OnnxBackend, tokenized: TokenizedTexts, *, token_budget: int
) -> dict[str, float]:
    """Tokens per second of the original at each precision that this CPU has and of the export: medians of turns."""
    speed: dict[str, float] = {}
    for compute in _computes(classifier):
        # Laid out once, as predict does it for more than a few texts.
        with compute.layout(classifier.encoder, tokens=sys.maxsize):
            seconds = _seconds(
                lambda compute=compute: predict_probabilities(  # type: ignore[misc]
                    classifier, tokenized, compute=compute, token_budget=token_budget
                )
            )
        speed[f"torch {compute.precision}"] = len(tokenized.ids) / seconds
    seconds = _seconds(lambda: backend.logits(tokenized, token_budget=token_budget))
    return {**speed, f"onnx {backend.kind}": len(tokenized.ids) / seconds}


def _computes(classifier: Classifier) -> list[devices.Compute]:
    """float32, and bfloat16 and int8 if the CPU and this encoder support them."""
    found = {compute.precision: compute for compute in (devices.resolve("cpu", "fp32"), devices.resolve("cpu"))}
    try:
        compute = devices.resolve("cpu", "int8")
        with compute.layout(classifier.encoder, tokens=1):
            found["int8"] = compute
    except SenthyError:
        pass
    return list(found.values())


def _seconds(work: Callable[[], object]) -> float:
    """The median of a few runs, after one to warm up."""
    return statistics.median(timeit.repeat(work, number=1, repeat=_TIMED_TURNS + 1)[1:])


def _example(length: int) -> tuple[Any, ...]:
    """Three windows of two texts; tracing records symbolic sizes."""
    lengths = torch.tensor([length, max(1, length // 2), max(1, length - 1)])
    mask = (torch.arange(length) < lengths.unsqueeze(1)).long()
    return torch.full((3, length), 5), mask, torch.tensor([0, 0, 1])


@contextmanager
def _recording() -> Iterator[None]:
    """Hide messages of the exporter for developers of torch."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _one_data_file(path: Path) -> None:
    """A graph of more than 2 GB is written with a file per weight: merge them into one."""
    loose = [file for file in path.parent.iterdir() if file != path]
    if not loose:
        return
    import onnx

    graph = onnx.load(str(path))
    for file in (path, *loose):
        file.unlink()
    onnx.save_model(graph, str(path), save_as_external_data=True, location=paths.ONNX_DATA)
