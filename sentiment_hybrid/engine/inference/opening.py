"""The model that a command was asked for: its directory, and a Predictor with the settings of its head."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note
from sentiment_hybrid.engine.inference.model_directory import head_of
from sentiment_hybrid.engine.inference.onnx_runtime import is_export
from sentiment_hybrid.engine.inference.predictor import Backend, Predictor, mini, model_directory, newest, published
from sentiment_hybrid.errors import LabelError, ModelError, UsageError
from sentiment_hybrid.files import recover
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.runtime import Runtime


def find_model(models_dir: Path, given: Path | None, head: str | None, *, onnx: bool = False) -> Path:
    """The given model, else the published one of a head, else the newest one, else mini; notes say which.

    With ``onnx``, an export if none is given.

    Raises:
        ModelError: there is none.
    """
    if given is not None:
        return model_directory(given)
    if onnx:
        directory = exported(models_dir, head)
        note(f"using {directory}")
        return directory
    if head is not None:
        # A requested head is never replaced by another model, which may have other labels.
        return published(models_dir, head)
    if not (found := newest(models_dir)):
        directory = mini()
        note(f"no trained model in {models_dir}; using mini, the small {directory.name} model that ships with senthy")
        return directory
    others = ", ".join(shlex.quote(str(place)) for place in found[1:4])
    note(f"using {found[0]}" + (f", the newest; others with --load-model-path: {others}" if others else ""))
    return found[0]


def exported(models_dir: Path, head: str | None) -> Path:
    """The export of a head, or of the first head that has one; float32 before int8. Raises ModelError."""
    heads = list(HEADS) if head is None else [head]
    places = [paths.exported_model(models_dir, name, kind) for name in heads for kind in (None, "int8")]
    for place in places:
        if recover(place).is_dir():
            return place
    raise ModelError(
        f"no exported model found: {models_dir} has no {' or '.join(place.name for place in places)}",
        hint="Create one with senthy export, or give its directory with --load-model-path.",
    )


def open_model(
    directory: Path,
    config: Config,
    runtime: Runtime,
    *,
    head: str | None = None,
    backend: Backend = "auto",
    precision: str | None = None,
    labels: Sequence[str] | None = None,
) -> Predictor:
    """Load a model; ``precision`` None is that of its head in the configuration.

    Raises:
        UsageError: the model lacks one of ``labels``, or fewer than two are given.
        ModelError, EncoderError: the model or its encoder cannot be loaded, or it is of another head.
        TrainingError: the device is unavailable, or does not support the precision.
    """
    settings = config.model(head_of(directory, head)).train
    try:
        return Predictor(
            directory,
            device=runtime.device,
            offline=runtime.offline,
            encoder=runtime.encoder,
            cache_dir=config.paths.cache_dir,
            token_budget=settings.token_budget,
            precision=precision or ("auto" if is_export(directory) else settings.precision),
            backend=backend,
            labels=labels,
            max_text_bytes=config.data.max_text_bytes,
        )
    except LabelError as error:
        raise UsageError(error.message, hint=error.hint) from error
