"""`senthy serve`: answers requests over HTTP, and shows a page for people."""

from __future__ import annotations

import importlib
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment_hybrid import console
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference.opening import find_model, open_model
from sentiment_hybrid.errors import UsageError
from sentiment_hybrid.runtime import Runtime

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.predictor import Backend
    from sentiment_hybrid.serving.model import ServedModel

#: Modules of the extra `serve`.
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class Request:
    """Which model to serve."""

    config: Config
    _: KW_ONLY
    model_dir: Path | None = None
    head: str | None = None
    precision: str | None = None
    backend: Backend = "auto"


def run(request: Request, runtime: Runtime = Runtime()) -> None:
    """Serve until a signal stops it.

    Raises:
        UsageError: the extra is missing, the address cannot be used, or it needs a token.
        ModelError, EncoderError: the model or its encoder cannot be loaded.
    """
    _require_extra()
    from sentiment_hybrid.serving.server import serve

    config = request.config
    directory = find_model(config.paths.models_dir, request.model_dir, request.head, onnx=request.backend == "onnx")
    serve(
        directory,
        lambda place: open_model(
            place, config, runtime, head=request.head, backend=request.backend, precision=request.precision
        ),
        config.serve,
        quiet=console.verbosity() < 0,
        ready=_say,
    )


def _require_extra() -> None:
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"senthy serve needs {name}, which is not installed", hint='In the checkout: pip install ".[serve]"'
            ) from error


def _say(url: str, model: ServedModel) -> None:
    console.note(f"serving {model.directory} on {url} (Ctrl-C stops)")
