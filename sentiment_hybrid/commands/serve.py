"""`senthy serve`: answers requests over HTTP, and shows a page for people."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment_hybrid import console
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference.opening import find_model, open_model
from sentiment_hybrid.errors import UsageError
from sentiment_hybrid.runtime import Runtime

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.predictor import Backend

#: Modules of the extra `serve`.
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def run(
    config: Config,
    runtime: Runtime = Runtime(),
    *,
    model_dir: Path | None = None,
    head: str | None = None,
    precision: str | None = None,
    backend: Backend = "auto",
) -> None:
    """Serve until a signal stops it.

    Raises:
        UsageError: the extra is missing, the address cannot be used, or it needs a token.
        ModelError, EncoderError: the model or its encoder cannot be loaded.
    """
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"senthy serve needs {name}, which is not installed", hint='In the checkout: pip install ".[serve]"'
            ) from error
    from sentiment_hybrid.serving.server import serve

    serve(
        find_model(config.paths.models_dir, model_dir, head, onnx=backend == "onnx"),
        lambda place: open_model(place, config, runtime, head=head, backend=backend, precision=precision),
        config.serve,
        quiet=console.verbosity() < 0,
        ready=lambda url, model: console.note(f"serving {model.directory} on {url} (Ctrl-C stops)"),
    )
