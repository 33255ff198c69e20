"""``senthy models [publish|remove ID]``: lists trained models with their scores, publishes and removes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentiment_hybrid import console, files, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference.kept_models import KeptModel, kept_models, public_path, publishing
from sentiment_hybrid.errors import OutputError, UsageError
from sentiment_hybrid.reporting.results import read_results


@dataclass(frozen=True)
class ModelEntry:
    """A model with its latest accuracy and macro_f1 on a test split; empty if it was not tested."""

    model: KeptModel
    test: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        info = self.model.info
        return {
            "id": self.model.id,
            "name": info.name,
            "head": info.head,
            "path": str(self.model.directory),
            "published": str(self.model.published) if self.model.published else None,
            "created": info.created,
            "data": info.data,
            "train_rows": info.train_rows,
            "encoder": info.encoder_name,
            "valid": info.valid,
            "test": self.test,
        }


def run(config: Config) -> list[ModelEntry]:
    """All trained models, the oldest first."""
    try:
        results = read_results(paths.results_json(config.paths.results_dir))
    except OutputError:
        results = []  # damaged: models are listed without test figures
    tested = [entry for entry in results if entry.get("split") in ("test", "finetune")]
    tested.sort(key=_sample)  # the last one on the most rows counts
    tests = {entry.get("model_fingerprint"): entry for entry in tested}
    return [
        ModelEntry(model, _figures(tests.get(model.info.weights_sha256, {})))
        for model in kept_models(config.paths.models_dir)
    ]


def _sample(entry: dict[str, Any]) -> float:
    """The ``test.sample_size`` of a test; infinite if it was on all rows."""
    size = (entry.get("test_config") or {}).get("sample_size")
    return size if isinstance(size, int) else math.inf


def _figures(entry: dict[str, Any]) -> dict[str, float]:
    test = entry.get("test", {})
    return {name: test[name]["value"] for name in ("accuracy", "macro_f1") if name in test}


def publish(config: Config, name: str) -> KeptModel:
    """Publish a model, named by its ID, the beginning of its ID, or its name. The one published before is kept.

    Raises:
        UsageError: there is no such model, or there are several.
        OutputError: it cannot be written.
    """
    model = _found(config, name)
    with publishing(config) as put:
        put(model.directory, public_path(config.paths.models_dir, model.info))
    return model


def remove(config: Config, name: str) -> KeptModel:
    """Remove a model that is not published, by its complete ID. Raises UsageError."""
    model = _found(config, name)
    if model.published:
        raise UsageError(f"{model.id} is published", hint="Publish another one first: senthy models publish ID")
    if model.id != name:
        raise UsageError(f"{name} is not a complete ID", hint=f"Did you mean {model.id}?")
    with publishing(config):
        files.remove(model.directory)
    return model


def _found(config: Config, name: str) -> KeptModel:
    models = kept_models(config.paths.models_dir)
    found = [model for model in models if model.id == name] or [
        model for model in models if model.id.startswith(name) or model.info.name == name
    ]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(model.id for model in (found or models)[-10:])
    raise UsageError(
        f"{len(found) or 'no'} models match {name}",
        hint=f"Use one of {shown}" if shown else f"There are no models in {config.paths.models_dir}: senthy train",
    )


def show(entries: list[ModelEntry], config: Config) -> None:
    """Show the models in a table."""
    if not entries:
        console.say(f"no trained models in {config.paths.models_dir}; train one with: senthy train")
        return
    rows = []
    for entry in entries:
        info = entry.model.info
        valid = info.valid.get("macro_f1")
        figures = [f"{100 * value:.2f}" if value is not None else "" for value in (valid, entry.test.get("macro_f1"))]
        name = f"{entry.model.id} *" if entry.model.published else entry.model.id
        rows.append([name, Path(info.data).name, *figures, info.created[:10]])
    columns = ["ID (* published)", "data", "valid F1", "test F1", "trained"]
    if not console.fits(columns, rows):  # IDs are for copying, and contain the date
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    console.table("Models: macro-F1 in %", columns, rows, left=2, cut=1)
