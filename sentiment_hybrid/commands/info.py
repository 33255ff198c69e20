"""``senthy info``: versions, device, and file locations."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sentiment_hybrid
from sentiment_hybrid import console, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import size
from sentiment_hybrid.errors import SenthyError
from sentiment_hybrid.files import recover, size_of
from sentiment_hybrid.heads import HEADS

_PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "scikit-learn", "pandas", "pyarrow",
    "pydantic", "typer",
)  # fmt: skip


def run(config: Config, *, config_file: str | None = None, device: str = "auto") -> dict[str, dict[str, Any]]:
    """Versions, machine and files, by section; if the device is unavailable, its entry says why."""
    return {"versions": _versions(), "machine": _machine(config, device), "files": _files(config, config_file)}


def _versions() -> dict[str, Any]:
    found = {"senthy": sentiment_hybrid.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine(config: Config, device: str) -> dict[str, Any]:
    import joblib

    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "cores": joblib.cpu_count(),
        "memory": _memory(),
    }
    try:
        facts |= _compute(config, device)
    except SenthyError as error:
        facts["device"] = f"{device}: {error.message}"
    return facts


def _compute(config: Config, device: str) -> dict[str, Any]:
    import torch

    from sentiment_hybrid.engine.device import resolve

    compute = resolve(device, config.model("lstm").train.precision)
    name = torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else platform.processor()
    shown = f"{compute.device.type} ({name})" if name else compute.device.type
    return {"device": shown, "precision": compute.precision, "threads": torch.get_num_threads()}


def _memory() -> str:
    try:
        return size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _files(config: Config, config_file: str | None) -> dict[str, Any]:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = config.paths.cache
    models = config.paths.models_dir
    published = [name for name in HEADS if recover(paths.published_model(models, name)).is_dir()]
    return {
        "config": config_file or "defaults",
        "shipped configs": str(paths.configs_dir()),
        "database": _place(config.paths.data_db),
        "models": f"{models} ({', '.join(published) if published else 'none published'})",
        "mini": _place(paths.mini_dir()),
        "results": _place(paths.results_json(config.paths.results_dir)),
        "token states": _place(paths.states_dir(cache)),
        "baselines": _place(paths.baselines_dir(cache)),
        "nltk data": _place(paths.nltk_dir(cache)),
        "hub cache": _place(Path(HF_HUB_CACHE), sized=False),
    }


def _place(path: Path, *, sized: bool = True) -> str:
    if not path.exists():
        return f"{path} (does not exist yet)"
    return f"{path} ({size(size_of(path))})" if sized else str(path)


def show(facts: Mapping[str, Mapping[str, object]]) -> None:
    """Show the result of ``senthy info`` by section."""
    for section, rows in facts.items():
        console.table(section, ["", ""], [[name, value] for name, value in rows.items()], left=2)
