"""An exported model under onnxruntime: token arrays in, logits out, without torch and transformers."""

from __future__ import annotations

import importlib
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.borrowed import Borrowed
from sentiment_hybrid.engine.batches import TokenizedTexts, make_batches, padded
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, check_files, read_info
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.errors import ModelError, first_line
from sentiment_hybrid.files import read_json, sha256
from sentiment_hybrid.models.tokenizer import Tokenizer

#: Packages of the extra `onnx`; each has the name of its module.
PACKAGES = ("onnx", "onnxruntime")

_TELEMETRY = "ORT_DISABLE_TELEMETRY"

#: Maximum number of tokens per run on a CPU, so that intermediate results fit into the caches.
_TOKENS = 2048


def is_export(directory: Path) -> bool:
    """Whether this is a directory written by `senthy export`."""
    return (directory / paths.ONNX_MODEL).is_file()


def require(*packages: str) -> None:
    """Raises ModelError, with the pip command, when one of these packages of the onnx extra is not installed."""
    for name in packages:
        try:
            with _NO_TELEMETRY:
                importlib.import_module(name)
        except ImportError as error:
            raise ModelError(
                f"exported models need {name}, which is not installed", hint='In the checkout: pip install ".[onnx]"'
            ) from error


def _no_telemetry() -> Callable[[], object]:
    # Only this variable keeps onnxruntime from resolving its vendor's host and writing a database of events into the
    # user's cache: its function disable_telemetry_events comes too late. It is read once, during the import.
    before = os.environ.get(_TELEMETRY)
    os.environ[_TELEMETRY] = "1"
    return lambda: os.environ.pop(_TELEMETRY) if before is None else os.environ.__setitem__(_TELEMETRY, before)


_NO_TELEMETRY = Borrowed(_no_telemetry)


class OnnxBackend:
    """The graph of an export directory, with its tokenizer and metadata.

    Args:
        device: ``auto`` is CUDA if this onnxruntime supports it, else the CPU.

    Raises:
        ModelError: it is not an export or damaged, or onnxruntime is missing or does not support the device.
    """

    def __init__(self, directory: Path, *, device: str = "auto") -> None:
        if not is_export(directory):
            raise _no_export(directory)
        require("onnxruntime")
        self.directory = directory
        self.info: ModelInfo = read_info(directory)
        facts = _facts(directory)
        check_files(directory, self.info, encoder=False)
        self.kind: str = facts["kind"]
        self.tokenizer = _tokenizer(directory / paths.TOKENIZER_DIR, facts["pad_id"])
        self._session = _session(directory / paths.ONNX_MODEL, _providers(device))

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Cleaned texts as windows of token ids."""
        info = self.info
        return tokenize(texts, self.tokenizer, max_length=info.max_length, max_windows=info.max_windows)

    def logits(
        self,
        tokenized: TokenizedTexts,
        *,
        token_budget: int,
        progress: Callable[[int], object] = lambda rows: None,
    ) -> np.ndarray:
        """Logits (N, C) float32 in input order; computed in order of length."""
        logits = np.zeros((len(tokenized), len(self.info.labels)), dtype=np.float32)
        if self._session.get_providers()[0] == "CPUExecutionProvider":
            token_budget = min(token_budget, _TOKENS)
        for rows in make_batches(tokenized.lengths, np.arange(len(tokenized)), token_budget):
            logits[rows] = self._run(graph_inputs(tokenized, rows))
            progress(len(rows))
        return logits

    def _run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        try:
            logits: np.ndarray = self._session.run(["logits"], inputs)[0]
        except Exception as error:  # as for the session
            raise ModelError(
                f"onnxruntime failed in {self.directory}: {first_line(error)}", hint="Lower token_budget with --set."
            ) from error
        return logits


def digests(directory: Path) -> dict[str, str]:
    """sha256 of the graph and of its external weights, if any, by file name."""
    files = [directory / name for name in (paths.ONNX_MODEL, paths.ONNX_DATA)]
    return {file.name: sha256(file) for file in files if file.is_file()}


def graph_inputs(tokenized: TokenizedTexts, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of an exported graph for these texts: three int64 arrays, described in model.json."""
    windows, text_index = tokenized.windows_of(rows)
    ids, mask = padded(tokenized, windows)
    return {
        "input_ids": ids,
        "attention_mask": mask.astype(np.int64),
        "text_index": text_index.astype(np.int64),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _facts(directory: Path) -> dict[str, Any]:
    """The ``onnx`` section of model.json, checked against the graph."""
    path = directory / paths.MODEL_JSON
    facts = read_json(path).get("onnx")
    wanted = {"kind": str, "pad_id": int, "sha256": dict}
    if not isinstance(facts, dict) or any(not isinstance(facts.get(key), kind) for key, kind in wanted.items()):
        raise ModelError(f"{path} is damaged: it does not describe an export", hint="Export the model again.")
    if digests(directory) != facts["sha256"]:
        raise ModelError(
            f"{directory / paths.ONNX_MODEL} is not the file that was exported", hint="Export the model again."
        )
    return facts


def _tokenizer(folder: Path, pad_id: int) -> Tokenizer:
    try:
        found = Tokenizer.load(folder, pad_token_id=pad_id)
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(
            f"the tokenizer in {folder} cannot be read: {error}", hint="Export the model again."
        ) from error
    if found is None:
        raise ModelError(f"{folder} has no tokenizer", hint="Export the model again.")
    return found


def _providers(device: str) -> list[str]:
    import onnxruntime

    here = onnxruntime.get_available_providers()
    kind = device.partition(":")[0]
    if kind not in {"auto", "cpu", "cuda"}:
        raise ModelError(f"an exported model does not run on {device}", hint="Use --device cpu.")
    if kind == "cuda" and "CUDAExecutionProvider" not in here:
        raise ModelError(
            "this build of onnxruntime does not support CUDA",
            hint="Install onnxruntime-gpu instead of onnxruntime, or use --device cpu.",
        )
    wanted = ["CUDAExecutionProvider"] if kind != "cpu" else []
    return [name for name in (*wanted, "CPUExecutionProvider") if name in here]


def _session(graph: Path, providers: list[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hide warnings about the assignment of nodes to devices
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        # The same as for torch; otherwise one thread per core.
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no public base class
        raise ModelError(
            f"onnxruntime cannot use {graph}: {first_line(error)}",
            hint="Export the model again with this version of onnxruntime.",
        ) from error


def _no_export(directory: Path) -> ModelError:
    if not directory.is_dir():
        return ModelError(f"there is no export at {directory}", hint="Create one with senthy export.")
    return ModelError(
        f"{directory} is not an export: it lacks {paths.ONNX_MODEL}",
        hint=f"Create one with senthy export --load-model-path {shlex.quote(str(directory))}",
    )
