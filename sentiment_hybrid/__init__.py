"""Hybrid sentiment classifiers: a shared RoBERTa encoder under an LSTM or a hierarchical-attention head."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sentiment_hybrid.commands.finetune import finetune
    from sentiment_hybrid.commands.optimize import optimize
    from sentiment_hybrid.commands.test import evaluate
    from sentiment_hybrid.commands.train import train
    from sentiment_hybrid.config.load import load_config
    from sentiment_hybrid.config.schema import Config
    from sentiment_hybrid.engine.inference.predictor import Predictor

# Looked up on first touch, so that `import sentiment_hybrid` costs nothing.
_PUBLIC = {
    "Config": "sentiment_hybrid.config.schema",
    "Predictor": "sentiment_hybrid.engine.inference.predictor",
    "evaluate": "sentiment_hybrid.commands.test",
    "finetune": "sentiment_hybrid.commands.finetune",
    "load_config": "sentiment_hybrid.config.load",
    "optimize": "sentiment_hybrid.commands.optimize",
    "train": "sentiment_hybrid.commands.train",
}

__all__ = ["Config", "Predictor", "__version__", "evaluate", "finetune", "load_config", "optimize", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
