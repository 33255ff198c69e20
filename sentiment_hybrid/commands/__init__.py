"""One verb per file: ``run(config, ...)`` does it and returns a small result; a verb is imported on first access."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentiment_hybrid.commands import bench, cache, check, compare, config, data, dry_run, explain, export  # noqa: F401, I001
    from sentiment_hybrid.commands import fetch, finetune, info, models, optimize, packing, predict  # noqa: F401
    from sentiment_hybrid.commands import predict_ray, predict_shards  # noqa: F401
    from sentiment_hybrid.commands import pretrain, report, review, run_all, serve, test, train  # noqa: F401


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
