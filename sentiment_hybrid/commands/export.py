"""`senthy export`: writes a model as one ONNX graph with its tokenizer, checked and timed against the original."""

from __future__ import annotations

import datetime
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sentiment_hybrid import console, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, progress
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.inference import onnx_export
from sentiment_hybrid.engine.inference.model_card import Card, named, write_card
from sentiment_hybrid.engine.inference.model_directory import (
    LoadedModel,
    ModelInfo,
    checksums,
    head_of,
    load_model,
    write_info,
)
from sentiment_hybrid.engine.inference.onnx_export import Check
from sentiment_hybrid.engine.inference.onnx_runtime import PACKAGES, OnnxBackend, digests, is_export, require
from sentiment_hybrid.engine.inference.predictor import model_directory, published
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.runs import versions
from sentiment_hybrid.errors import DatabaseError, ModelError
from sentiment_hybrid.files import atomic_dir, check_replaceable, size_of, written

Quantize = Literal["int8"]

#: Maximum number of rows that the export is checked on.
ROWS = 1000
#: Number of these that are also joined into texts of several windows, which tweets rarely are.
_JOINED = 64
#: Tokens per timed turn, without padding: a few seconds even for a large encoder.
_TIMED_TOKENS = 2048
#: Timed batches are small, because the speed of onnxruntime depends on the processor's cache.
_TOKEN_BUDGET = 4096


@dataclass(frozen=True)
class ExportResult:
    """The location of the export, how it compares with the original, and the tokens per second of both."""

    directory: Path
    model_dir: Path
    kind: str
    bytes: int
    check: Check
    checked_on: str
    speed: dict[str, float]

    @property
    def factor(self) -> float:
        """Its speed divided by the best speed of the original."""
        export = self.speed[f"onnx {self.kind}"]
        return export / max(speed for name, speed in self.speed.items() if name.startswith("torch"))


def run(
    config: Config,
    model: str | None = None,
    *,
    load_model_path: Path | None = None,
    output: Path | None = None,
    quantize: Quantize | None = None,
    offline: bool = False,
    encoder: Path | str | None = None,
    rows: int = ROWS,
) -> ExportResult:
    """Write encoder and head as one graph with tokenizer and metadata; published once it agrees with the original.

    Args:
        rows: number of rows to check on, from the prepared test split, else from the sample in the package.

    Raises:
        UsageError: the output exists and is not an export.
        ModelError: there is no model, onnx or onnxruntime is missing, or the export differs too much.
        EncoderError, OutputError: the encoder cannot be loaded, or the export cannot be written.
    """
    require(*PACKAGES)
    if load_model_path is not None:
        directory = model_directory(load_model_path)
    else:
        directory = published(config.paths.models_dir, model)
    head_of(directory, model)
    loaded = load_model(directory, encoder=encoder, offline=offline)
    if quantize and loaded.encoder.model.config.model_type == paths.STATIC:
        raise ModelError("a static encoder has no matrix products to quantize", hint="Leave out --quantize.")
    target = output or paths.exported_model(config.paths.models_dir, loaded.info.head, quantize)
    check_replaceable(target, lambda: is_export(target))
    kind = quantize or "fp32"
    with written(target), atomic_dir(target, wait=False) as aside:
        _write(loaded, aside, quantize=quantize)
        facts = _facts(aside, loaded, kind)
        _describe(aside, loaded, facts)  # the check reads it
        check, checked_on, speed = _measure(loaded, aside, config, rows=rows, offline=offline)
        facts |= {"check": {**asdict(check), "on": checked_on}, "tokens_per_second": speed}
        info = _describe(aside, loaded, facts)
        write_card(aside, info, Card(named(config), export=facts, original=directory))
        size = size_of(aside)
    return ExportResult(target, directory, kind, size, check, checked_on, speed)


def _write(loaded: LoadedModel, aside: Path, *, quantize: Quantize | None) -> None:
    loaded.encoder.tokenizer.save_pretrained(aside / paths.TOKENIZER_DIR)
    if not (aside / paths.TOKENIZER_DIR / paths.TOKENIZER_JSON).is_file():
        raise ModelError(
            f"the tokenizer of {loaded.info.encoder_name} has no {paths.TOKENIZER_JSON}, which an export needs",
            hint="Use an encoder with a fast tokenizer, such as roberta-base.",
        )
    note("writing the graph")
    # The exporter of torch may write a file per tensor: so it gets a folder of its own.
    with tempfile.TemporaryDirectory(dir=aside) as folder:
        graph = Path(folder) / paths.ONNX_MODEL
        onnx_export.write_graph(loaded.classifier, graph, max_length=loaded.info.max_length)
        if quantize:
            note(f"quantizing to {quantize}")
            onnx_export.quantize(graph, aside / paths.ONNX_MODEL)
        else:
            for file in graph.parent.iterdir():
                file.rename(aside / file.name)


def _describe(aside: Path, loaded: LoadedModel, facts: dict[str, Any]) -> ModelInfo:
    """Write model.json: that of the model, plus ``facts`` about the graph; returns the former."""
    info = replace(loaded.info, encoder_inside=True, files=checksums(aside, encoder=False))
    write_info(aside, info, onnx=facts)
    return info


def _facts(aside: Path, loaded: LoadedModel, kind: str) -> dict[str, Any]:
    info = loaded.info
    origin = ("weights_sha256", "encoder_fingerprint", "run_id", "created")
    return {
        "inputs": onnx_export.INPUTS,
        "outputs": onnx_export.OUTPUTS,
        "opset": onnx_export.OPSET,
        "pad_id": int(loaded.encoder.tokenizer.pad_token_id),  # type: ignore[arg-type] # checked when it was loaded
        "sha256": digests(aside),
        "source": {"path": str(loaded.directory), **{name: getattr(info, name) for name in origin}},
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "kind": kind,
    }


def _measure(
    loaded: LoadedModel, aside: Path, config: Config, *, rows: int, offline: bool
) -> tuple[Check, str, dict[str, float]]:
    """Compare the export with the original; raises ModelError if the predictions differ."""
    backend = OnnxBackend(aside, device="cpu")
    texts, checked_on = _texts(loaded, config, rows=rows, offline=offline)
    tokenized = _tokenized_alike(loaded, backend, texts + _long(texts))
    with progress("checking", 2 * len(tokenized), unit="texts") as bar:
        check, refused = onnx_export.compare(
            loaded.classifier, backend, tokenized, token_budget=_TOKEN_BUDGET, progress=bar.advance
        )
    if refused is not None:
        raise ModelError(
            f"the export does not reproduce the model: {refused} ({check.rows:,} texts of {checked_on})",
            hint="Export without --quantize."
            if backend.kind == "int8"
            else "Nothing was written; use the original model.",
        )
    note("timing")
    tokens = backend.tokenize(texts).lengths.cumsum()
    few = backend.tokenize(texts[: int((tokens < _TIMED_TOKENS).sum()) + 1])
    return check, checked_on, onnx_export.race(loaded.classifier, backend, few, token_budget=_TOKEN_BUDGET)


def _tokenized_alike(loaded: LoadedModel, backend: OnnxBackend, texts: list[str]) -> TokenizedTexts:
    """The texts tokenized by the exported tokenizer, which must agree with the model's own."""
    import numpy as np

    info = loaded.info
    own = tokenize(texts, loaded.encoder.tokenizer, max_length=info.max_length, max_windows=info.max_windows)
    written = backend.tokenize(texts)
    if not (np.array_equal(own.ids, written.ids) and np.array_equal(own.window_offsets, written.window_offsets)):
        raise ModelError(
            f"the tokenizer of {info.encoder_name} gives other tokens when loaded from its {paths.TOKENIZER_JSON}",
            hint="Nothing was written; use the original model.",
        )
    return written


def _texts(loaded: LoadedModel, config: Config, *, rows: int, offline: bool) -> tuple[list[str], str]:
    """Cleaned texts of the prepared test split, else of the sample in the package; and the name of the source."""
    normalizer = normalizers.from_id(loaded.info.normalizer)
    normalizer.prepare(config.paths.cache, offline=offline)
    for name, raw in (("the test split", _test_split(config, rows)), ("the sample", _sample(config, rows))):
        if texts := [text for text in map(normalizer, raw) if text]:
            return texts, name
    raise ModelError(f"all texts are empty after the normaliser {loaded.info.normalizer}")


def _test_split(config: Config, rows: int) -> list[str]:
    try:
        with open_store(config.paths.data_db) as store:
            return store.read("test", min(rows, store.count("test")), with_raw=True).raw or []
    except DatabaseError:
        return []  # the sample is used instead


def _sample(config: Config, rows: int) -> list[str]:
    source = open_source("sample", config.data, offline=True)
    column = find_text(source.columns, None, source=source.name)
    return [text or "" for batch in source.batches([column]) for text in batch.columns[column]][:rows]


def _long(texts: list[str]) -> list[str]:
    """Texts of several windows, made by joining the first few texts."""
    few = texts[:_JOINED]
    return [" ".join(few[: len(few) // part]) for part in (4, 2, 1) if len(few) >= part]


def show(result: ExportResult) -> None:
    """Show the location of an export, its deviation from the original, and its speed."""
    check = result.check
    console.say(f"{result.directory}: {result.kind}, {console.size(result.bytes)}, from {result.model_dir}")
    console.say(
        f"on {check.rows:,} texts of {result.checked_on}: {100 * check.agreement:.2f} % of the labels agree, logits "
        f"differ by at most {check.logit_difference:.2g}, probabilities by {check.probability_difference:.2g}"
    )
    console.table("", ["", "tokens/s"], [[name, f"{speed:,.0f}"] for name, speed in result.speed.items()])
    faster = f"{result.factor:.1f} times as fast as" if result.factor >= 1.05 else "not faster than"
    console.say(f"the export is {faster} torch at its best precision, on this processor")
