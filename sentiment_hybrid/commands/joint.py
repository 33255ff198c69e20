"""``senthy train --model joint``: several heads learn together on one encoder, and each becomes a model of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sentiment_hybrid import paths
from sentiment_hybrid.commands import fitting, train
from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.errors import ConfigError, DataError, LabelError, ModelError

if TYPE_CHECKING:
    from sentiment_hybrid.data.splits import UInt64s
    from sentiment_hybrid.data.store import Examples, Store
    from sentiment_hybrid.engine.evaluation.seen import SeenTexts
    from sentiment_hybrid.engine.training.session import Session
    from sentiment_hybrid.models.classifier import JointClassifier


@dataclass(frozen=True)
class JointResult:
    """What each head came to."""

    results: tuple[train.TrainResult, ...]


def run(
    config: Config,
    *,
    resume: bool = False,
    device: str = "auto",
    offline: bool = False,
    test: bool = True,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
) -> JointResult:
    """Train the heads of ``joint.models``, their losses summed, publish the best epoch of all, and test each.

    Args and errors as of `sentiment_hybrid.commands.train.run`.
    """
    from sentiment_hybrid import distributed
    from sentiment_hybrid.engine.device import resolve

    distributed.join(resolve(device).device.type)
    distributed.from_main(lambda: fitting.check_writable(config.paths.models_dir, config.paths.results_dir))
    purpose = train.Purpose(name="Joint", facts={JOINT: config.joint.model_dump(mode="json")})
    options = train.Options(device, offline, test, encoder, bundle_encoder, purpose)
    targets = {head: paths.published_model(config.paths.models_dir, head) for head in config.heads(JOINT)}
    with train.trained(config, JOINT, options, resume=resume, targets=targets) as results:
        if not test:
            return JointResult(results)
        return distributed.from_main(
            lambda: JointResult(
                tuple(
                    train.tested(config, head, options, result) for head, result in zip(targets, results, strict=True)
                )
            )
        )


def with_further(config: Config, store: Store, rows: Examples, valid: Examples) -> tuple[Examples, Examples]:
    """Training and validation rows with those of ``joint.further_source`` and texts of which nothing can be known.

    Raises:
        DataError: and its kinds, as for any labelled file.
    """
    from sentiment_hybrid.console import note
    from sentiment_hybrid.data.normalizers import from_id
    from sentiment_hybrid.data.unknowable import unknowable

    settings = config.joint
    known = len(rows)
    if settings.further_source is not None:
        chosen, held_out = further(config, store)
        if not len(chosen):
            raise DataError(
                f"no text of {settings.further_source} is left to train on: all validate or stand in the database",
                hint="Give more texts, or leave joint.further_source out.",
            )
        repeated = _balanced(chosen) if settings.further_balanced else chosen
        for _ in range(settings.further_repeat):
            rows = rows.followed_by(repeated)
        valid = valid.followed_by(held_out)
        note(f"{len(chosen):,} texts of {settings.further_source} are trained on too, {len(held_out):,} validate")
        if settings.further_neutral:
            neutral = further_neutral(config, store)
            rows = rows.followed_by(neutral)
            note(f"and {len(neutral):,} neutral ones")
    if count := round(settings.negations * known):
        rows = rows.followed_by(_negations(store, rows, count, config.project.seed))
    if count := round(settings.unknowable * known):
        texts = [text for text in map(from_id(store.normalizer), unknowable(count, config.project.seed)) if text]
        rows = rows.followed_by(rows.made_up(texts))
    return rows, valid


def _balanced(rows: Examples) -> Examples:
    """These rows, and those of rarer labels again until every label has as many as the commonest."""
    import numpy as np

    places = [np.flatnonzero(rows.labels == label) for label in np.unique(rows.labels)]
    most = max(map(len, places))
    return rows.chosen(np.concatenate([np.resize(one, most) for one in places]))


def further(config: Config, store: Store) -> tuple[Examples, Examples]:
    """Rows of ``joint.further_source`` to train on, and those that validate.

    Texts that stand in the database's validation or test rows are left out; those in its training rows never validate.
    """
    return _further(config, store, store.labels, config.joint.further_label_map)


def further_neutral(config: Config, store: Store) -> Examples:
    """Rows of ``joint.further_source`` to train on whose value is in ``joint.further_neutral``: label -1."""
    import numpy as np

    name = "joint.further_neutral"  # what an error about a value that never occurs speaks of
    chosen, _ = _further(config, store, (name,), dict.fromkeys(config.joint.further_neutral, name))
    return replace(chosen, labels=np.full(len(chosen), -1))


def further_keys(config: Config, store: Store) -> UInt64s:
    """Order hashes of all texts of ``joint.further_source`` that are trained on or validate."""
    import numpy as np

    from sentiment_hybrid.data.splits import hash_raw

    parts = [*further(config, store), *([further_neutral(config, store)] if config.joint.further_neutral else [])]
    return np.concatenate([hash_raw(part.raw or part.texts, store.split_seed)[1] for part in parts])


def further_seen(config: Config, store: Store) -> SeenTexts:
    """The same for a model to keep: its database does not have them."""
    from sentiment_hybrid.engine.evaluation.seen import SeenTexts

    return SeenTexts.of(further_keys(config, store), split_seed=store.split_seed)


def _further(
    config: Config, store: Store, labels: tuple[str, ...], label_map: dict[str, str] | None
) -> tuple[Examples, Examples]:
    import numpy as np

    from sentiment_hybrid.data import splits
    from sentiment_hybrid.data.labelled import read_labelled
    from sentiment_hybrid.data.normalizers import from_id, prepare_nltk
    from sentiment_hybrid.data.sources import open_source

    assert config.joint.further_source is not None
    own = {"text_column": None, "raw_text_column": None, "label_column": None, "unknown_labels": "drop"}
    data = config.data.model_copy(update={**own, "label_map": label_map})
    source = open_source(config.joint.further_source, data)
    normalizer = from_id(store.normalizer)
    if normalizer.name == "classic":
        prepare_nltk(paths.cache_dir(config.paths.cache_dir), offline=True)  # the database was made with it
    rows = read_labelled(source, data, labels=labels, normalizer=normalizer).examples
    hashes, keys = splits.hash_raw(rows.raw or rows.texts, store.split_seed)
    free = ~np.isin(keys, np.concatenate([store.key_hashes("valid"), store.key_hashes("test")]))
    held_out = splits.assign(hashes, test_size=0.0, valid_size=config.joint.further_valid_size) == splits.VALID
    unseen = ~np.isin(keys, store.key_hashes("train"))
    return rows.chosen(np.flatnonzero(free & ~held_out)), rows.chosen(np.flatnonzero(free & held_out & unseen))


def take_heads(session: Session, folder: Path, labels: tuple[str, ...]) -> None:
    """Let new heads go on from those of a pack.

    Raises:
        LabelError: its labels are others, or in another order.
        ModelError: a head is missing there, or has other sizes than the configuration gives.
    """
    from sentiment_hybrid.engine.inference.model_directory import load_model

    if not folder.is_dir():
        raise ModelError(
            f"joint.heads_from is {folder}, and there is no such pack", hint="Make one: senthy export --format pack"
        )
    joint = cast("JointClassifier", session.classifier)
    for name, head in joint.heads.items():
        found = load_model(folder / name)
        if found.info.labels != labels:
            raise LabelError(
                f"the {name} head in {folder} tells {', '.join(found.info.labels)}, and the labels here are "
                f"{', '.join(labels)}",
                hint="Prepare the data with the same labels in the same order, or leave joint.heads_from out.",
            )
        try:
            head.load_state_dict(found.classifier.head.state_dict())
        except RuntimeError as error:
            raise ModelError(
                f"the {name} head in {folder} has other sizes than {name}.head says",
                hint=f"Give {name}.head the values of {folder / name / paths.MODEL_JSON}.",
            ) from error


def rows_before(config: Config, store: Store) -> int:
    """How many of the database's training rows the heads of ``joint.heads_from`` have seen already.

    Warns where they learned from another split: rows that test here may have trained there.
    """
    from sentiment_hybrid.console import warn
    from sentiment_hybrid.engine.inference.model_directory import read_info

    folder = config.joint.heads_from
    infos = [] if folder is None else [read_info(folder / head) for head in config.joint.models]
    if any(info.split_fingerprint != store.split_fingerprint for info in infos):
        warn(f"the heads in {folder} learned from other data or another split: they may have seen rows that test here")
    return max((info.train_rows for info in infos if info.split_fingerprint == store.split_fingerprint), default=0)


def _negations(store: Store, rows: Examples, count: int, seed: int) -> Examples:
    """Made-up texts in which a negation decides. Raises ConfigError where the labels are not negative and positive."""
    import numpy as np

    from sentiment_hybrid.data.negations import negations
    from sentiment_hybrid.data.normalizers import from_id

    if set(store.labels) != {"negative", "positive"}:
        raise ConfigError(
            f"joint.negations are negative or positive, and the labels here are {', '.join(store.labels)}",
            hint="Set joint.negations to 0.",
        )
    texts, labels = negations(count, seed)
    codes = np.array([store.labels.index(("negative", "positive")[label]) for label in labels])
    made_up = rows.made_up([from_id(store.normalizer)(text) for text in texts])
    return replace(made_up, labels=codes)
