"""A hash of everything that a trained model depends on: equal fingerprints mean equal models (on the same machine)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import JOINT, Config, Train
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.training.runs import FREE_TO_CHANGE, Run
from sentiment_hybrid.engine.training.teacher import teacher_digest
from sentiment_hybrid.errors import ModelError, TrainingError
from sentiment_hybrid.files import digest_of, recover, sha256


def train_fingerprint(config: Config, model: str, data_fingerprint: str, *, include_valid: bool = False) -> str:
    """The fingerprint of a training."""
    heads = {name: config.model(name).head.model_dump(mode="json") for name in config.heads(model)}
    joint = _joint_facts(config) if model == JOINT else None
    facts = {
        "format": 1,
        "model": model,
        "head": heads[model] if joint is None else heads,
        "train": train_facts(config.training(model)),
        **({} if joint is None else {"joint": joint}),
        **({} if config.distill.teacher is None else {"distill": _distill_facts(config)}),
        "encoder": config.encoder.facts(),
        "encoder_files": encoder_files(config.encoder.origin),
        "seed": config.project.seed,
        "data": data_fingerprint,
        "include_valid": include_valid,
    }
    return digest_of(facts)


def train_facts(settings: Train) -> dict[str, Any]:
    """Settings of the training; one that is newer than earlier models counts only where it is used."""
    facts = settings.model_dump(mode="json", exclude=set(FREE_TO_CHANGE))
    return facts if settings.promise_size else {name: facts[name] for name in facts if name != "promise_size"}


def _joint_facts(config: Config) -> dict[str, Any]:
    source = config.joint.further_source
    content = None if source is None else open_source(source, config.data).fingerprint()
    facts = config.joint.model_dump(mode="json", exclude={"train", "further_source", "heads_from"})
    folder = config.joint.heads_from
    files = [] if folder is None else [folder / head / paths.MODEL_WEIGHTS for head in config.joint.models]
    return {**facts, "further": content, "heads_from": [sha256(file) for file in files if file.is_file()]}


def _distill_facts(config: Config) -> dict[str, Any]:
    """Settings of distillation, with the teacher and the unlabelled texts identified by content."""
    settings = config.distill
    texts = None if settings.source is None else open_source(settings.source, config.data).fingerprint()
    facts = settings.model_dump(mode="json", exclude={"teacher", "source"})
    return {**facts, "teacher": teacher_digest(config), "texts": texts}


def encoder_files(name: str) -> list[str]:
    """Digests of the files of a local encoder or mini, whose weights may change under the same name."""
    folder = paths.mini_dir() / paths.ENCODER_DIR if name == paths.MINI else recover(Path(name).expanduser())
    if name == "scratch" or not folder.is_dir():
        return []
    return [sha256(path) for pattern in ("*.safetensors", "*.json") for path in sorted(folder.glob(pattern))]


def can_resume(config: Config, model: str, data_fingerprint: str, *, include_valid: bool = False) -> bool:
    """Whether there is an unfinished run of this model with the same settings and data."""
    try:
        Run.unfinished(config, model, train_fingerprint(config, model, data_fingerprint, include_valid=include_valid))
    except TrainingError:
        return False
    return True


def is_published(
    config: Config, model: str, data_fingerprint: str, *, include_valid: bool = False, bundle: bool = False
) -> bool:
    """Whether the published model is intact, and the one that the same training would give."""
    directory = paths.published_model(config.paths.models_dir, model)
    try:
        info = read_info(directory)
        whole = sha256(directory / paths.MODEL_WEIGHTS) == info.weights_sha256
    except (ModelError, OSError):
        return False
    same = info.train_fingerprint == train_fingerprint(config, model, data_fingerprint, include_valid=include_valid)
    return same and whole and (info.encoder_inside or not bundle)
