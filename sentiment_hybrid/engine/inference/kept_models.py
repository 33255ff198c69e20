"""Trained models, each in its own folder; the published model of a head is a copy of one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sentiment_hybrid import files, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.console import metric_name, metric_value, note
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, publish_copy, read_info
from sentiment_hybrid.errors import ModelError
from sentiment_hybrid.heads import HEADS

#: Key in meta.json of a finished run, while the command that started it still needs its model.
NEEDED = "model_needed"


@dataclass(frozen=True)
class KeptModel:
    """A model in its folder; ``published`` is the location of its published copy, if it is published."""

    id: str
    directory: Path
    info: ModelInfo
    published: Path | None

    def score(self, metric: str) -> float | None:
        """Its validation metric, negated if lower is better; None without validation."""
        value = self.info.valid.get(metric)
        return None if value is None else value if METRICS[metric] else -value


def model_id(info: ModelInfo) -> str:
    """The name of a model's folder: its run, and its head if the run trained several."""
    name = info.run_id if info.run_id.startswith(f"{info.head}-") else f"{info.run_id}-{info.head}"
    # A name in a file may be anything.
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")


def own_folder(config: Config, info: ModelInfo) -> Path:
    """``models/runs/<id>``."""
    return paths.kept_models(config.paths.models_dir) / model_id(info)


def public_path(models_dir: Path, info: ModelInfo) -> Path:
    """The location of the published model of this head and kind."""
    place = paths.published_model if info.parent is None else paths.finetuned_model
    return place(models_dir, info.head)


def has_published_copy(config: Config, info: ModelInfo) -> bool:
    """Whether the published model of this head and kind is a copy of this one."""
    published = _info(public_path(config.paths.models_dir, info))
    return published is not None and (published.run_id, published.weights_sha256) == (info.run_id, info.weights_sha256)


def copies(config: Config, directory: Path, info: ModelInfo) -> list[Path]:
    """The directories of this model: the given one, its own folder, and the published copy."""
    own = own_folder(config, info)
    places = [directory, *([own] if own.is_dir() else [])]
    if has_published_copy(config, info):
        places.append(public_path(config.paths.models_dir, info))
    return list({place.resolve(): place for place in places}.values())


def kept_models(models_dir: Path) -> list[KeptModel]:
    """All models, the oldest first, including published ones of earlier versions, which have no other folder."""
    found = {}
    public = [place(models_dir, head) for head in HEADS for place in (paths.published_model, paths.finetuned_model)]
    published = {model_id(info): place for place in public if (info := _info(files.recover(place)))}
    own = paths.kept_models(models_dir)
    for place in (*published.values(), *(own.glob("[!.]*") if own.is_dir() else ())):
        if info := _info(place):
            name = model_id(info)
            found[name] = KeptModel(name, place, info, published.get(name))
    return sorted(found.values(), key=lambda model: (model.info.created, model.id))


def _info(directory: Path) -> ModelInfo | None:
    try:
        return read_info(directory)
    except ModelError:
        return None


@contextmanager
def publishing(config: Config) -> Iterator[Callable[[Path, Path], None]]:
    """Save models and publish copies of them, under a lock that other processes need to publish or remove models.

    Yields a function (own folder, public path). The replaced model keeps its own folder; the oldest models beyond
    ``models.keep`` are removed.
    """
    store = paths.kept_models(config.paths.models_dir)
    with files.written(store):
        store.mkdir(parents=True, exist_ok=True)
        with files.locked(store):
            yield lambda source, target: _publish(config, source, target)


def _publish(config: Config, source: Path, target: Path) -> None:
    before, now = _info(files.recover(target)), read_info(source)
    if before is not None and not (own := own_folder(config, before)).is_dir():
        publish_copy(target, own)  # of an earlier version
    publish_copy(source, target)
    if before is not None and model_id(before) != model_id(now):
        metric = config.model(now.head).train.metric
        note(f"{target} was {_described(before, metric)} and is now {_described(now, metric)}")
        note(f"the earlier one is kept: senthy models publish {model_id(before)}")
    remove_old(config, now)


def _described(info: ModelInfo, metric: str) -> str:
    value = info.valid.get(metric)
    score = "" if value is None else f" (valid {metric_name(metric)} {metric_value(metric, value)})"
    return f"{model_id(info)}{score}"


def remove_old(config: Config, like: ModelInfo) -> None:
    """Remove the oldest models of one kind beyond ``models.keep``.

    Published and named models, the best one on each data set by validation, and those that a running command needs
    are kept.
    """
    if config.models.keep is None:
        return
    alike = [
        model
        for model in kept_models(config.paths.models_dir)
        if (model.info.head, model.info.parent is None) == (like.head, like.parent is None)
    ]
    free = [model for model in alike if not (model.published or model.info.name or _is_needed(config, model.info))]
    best = _best(alike, config.model(like.head).train.metric)
    for model in free[: max(0, len(free) - config.models.keep)]:
        if model.id not in best:
            note(f"removing {model.id}: models.keep is {config.models.keep}")
            files.remove(model.directory)


def _best(models: list[KeptModel], metric: str) -> set[str]:
    """The best one on each split, by its ID."""
    scored = [(score, model) for model in models if (score := model.score(metric)) is not None]
    scored.sort(key=lambda pair: pair[0])
    return set({model.info.split_fingerprint: model.id for _, model in scored}.values())


def _is_needed(config: Config, info: ModelInfo) -> bool:
    """Whether the run of a model is still active: the model may yet be tested or selected."""
    meta = files.facts_of(paths.runs_dir(config.paths.results_dir) / info.run_id / paths.RUN_META)
    return bool(meta) and ("finished" not in meta or bool(meta.get(NEEDED)))
