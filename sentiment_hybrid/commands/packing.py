"""``senthy export --format pack``: models that share an encoder as one small folder, such as `mini`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sentiment_hybrid import console, paths
from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.console import note
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.engine.inference.model_directory import LoadedModel, load_model
from sentiment_hybrid.engine.inference.pack import pack
from sentiment_hybrid.engine.inference.predictor import published
from sentiment_hybrid.engine.inference.testing import trained_keys
from sentiment_hybrid.engine.training.distill import extra_keys
from sentiment_hybrid.errors import DatabaseError, UsageError
from sentiment_hybrid.files import atomic_dir, check_replaceable, size_of, written
from sentiment_hybrid.heads import HEADS


@dataclass(frozen=True)
class PackResult:
    """The folder, its heads, its size, and the number of training texts that it records."""

    directory: Path
    heads: tuple[str, ...]
    bytes: int
    seen_texts: int


def run(config: Config, *, output: Path | None = None, offline: bool = False) -> PackResult:
    """Pack the published models of ``joint.models``; the folder appears once it is complete.

    If their database is at ``paths.data_db``, the pack records the training and validation texts, so that tests can
    report an overlap.

    Raises:
        UsageError: the output exists and is not a pack, or the further texts are not those of the training.
        ModelError: a model is missing, or they do not share an encoder.
        EncoderError, OutputError: the encoder cannot be loaded, or the pack cannot be written.
    """
    heads = config.heads(JOINT)
    models = [load_model(published(config.paths.models_dir, head), offline=offline) for head in heads]
    target = output or paths.packed_models(config.paths.models_dir)
    check_replaceable(target, lambda: _is_pack(target))
    with written(target), atomic_dir(target, wait=False) as aside:
        pack(models, aside)
        seen = _seen(config, models)
        if seen is not None:
            seen.save(aside / paths.SEEN_TEXTS)
        size = size_of(aside)
    return PackResult(target, heads, size, 0 if seen is None else seen.count)


def _is_pack(target: Path) -> bool:
    there = {entry.name for entry in target.iterdir()}
    # A model directory has an encoder inside too.
    return paths.ENCODER_DIR in there and there <= {paths.ENCODER_DIR, paths.SEEN_TEXTS, *HEADS}


def _seen(config: Config, models: list[LoadedModel]) -> SeenTexts | None:
    """The texts of the models' own database, and those of ``joint.further_source``.

    Raises:
        UsageError: the models were trained on other further texts than the configuration names.
    """
    import numpy as np

    try:
        with open_store(config.paths.data_db) as store:
            if any(model.info.split_fingerprint != store.split_fingerprint for model in models):
                note(f"{config.paths.data_db} is not the training database: the pack does not record its texts")
                return None
            keys = [trained_keys(store, max(model.info.train_rows for model in models))]
            made_by = store.split_keys
            beside = extra_keys(config, JOINT, store)
    except DatabaseError as error:
        note(f"{error.message}: the pack does not record the training texts")
        return None
    named = SeenTexts.of(beside, **made_by)
    for model in models:
        own = model.directory / paths.SEEN_TEXTS
        if own.is_file() and not np.array_equal(SeenTexts.load(own).bits, named.bits):
            raise UsageError(
                f"{model.directory} was trained on further texts too, and not on those that joint.further_source "
                f"({config.joint.further_source or 'none'}) gives with joint.further_label_map and "
                "joint.further_partial",
                hint="Use the settings of the training, so that the pack records its texts: "
                "--set joint.further_source=FILE",
            )
    return SeenTexts.of(np.concatenate([*keys, beside]), **made_by)


def show(result: PackResult) -> None:
    """Show the location and content of a pack."""
    console.say(f"{result.directory}: one encoder, {', '.join(result.heads)}; {console.size(result.bytes)}")
    if result.seen_texts:
        console.say(f"it records {result.seen_texts:,} training texts, so that senthy test can report an overlap")
