"""Joint training of several heads on one encoder: further training rows, and heads to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, warn
from sentiment_hybrid.data import splits
from sentiment_hybrid.data.labelled import read_labelled
from sentiment_hybrid.data.normalizers import from_id
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.splits import UInt64s
from sentiment_hybrid.data.store import Examples, Store
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.errors import DataError, LabelError, ModelError, count
from sentiment_hybrid.files import recover
from sentiment_hybrid.models.classifier import JointClassifier


def with_further(config: Config, store: Store, rows: Examples, valid: Examples) -> tuple[Examples, Examples]:
    """Training and validation rows with those of ``joint.further_source``.

    Raises:
        DataError: as for any labelled file, or no text is left for training.
    """
    settings = config.joint
    if settings.further_source is None:
        return rows, valid
    chosen, held_out = further(config, store)
    if not len(chosen):
        raise DataError(
            f"no text of {settings.further_source} is left for training: all validate, or are in the database",
            hint="Use more texts, or omit joint.further_source.",
        )
    for _ in range(settings.further_repeat):
        rows = rows.followed_by(chosen)
    among = "" if chosen.compared is None else f", among {_names(store, chosen.compared[0])} alone"
    note(
        f"trained on too: {count(len(chosen), 'text')} of {settings.further_source}{among}; {len(held_out):,} validate"
    )
    return rows, valid.followed_by(held_out)


def _names(store: Store, compared: npt.NDArray[np.bool_]) -> str:
    return " and ".join(label for label, asked in zip(store.labels, compared, strict=True) if asked)


def further(config: Config, store: Store) -> tuple[Examples, Examples]:
    """Rows of ``joint.further_source`` to train on, and those that validate.

    Texts in the database's validation or test rows are left out; those in its training rows are not used to validate.
    With ``joint.further_partial`` none are, because such a label says nothing about the other labels.
    """
    settings = config.joint
    assert settings.further_source is not None
    own = {"text_column": None, "raw_text_column": None, "label_column": None, "unknown_labels": "drop"}
    data = config.data.changed({**own, "label_map": settings.further_label_map})
    source = open_source(settings.further_source, data)
    normalizer = from_id(store.normalizer)
    normalizer.prepare(config.paths.cache, offline=True)  # the database was made with it
    rows = read_labelled(source, data, labels=store.labels, normalizer=normalizer).examples
    if settings.further_partial:
        rows = _partial(rows, store.labels, settings.further_source)
    hashes, keys = store.hash_raw(rows.raw or rows.texts)
    free = ~np.isin(keys, np.concatenate([store.key_hashes("valid"), store.key_hashes("test")]))
    valid_size = 0.0 if settings.further_partial else settings.further_valid_size
    held_out = splits.assign(hashes, test_size=0.0, valid_size=valid_size) == splits.VALID
    unseen = ~np.isin(keys, store.key_hashes("train"))
    return rows.chosen(np.flatnonzero(free & ~held_out)), rows.chosen(np.flatnonzero(free & held_out & unseen))


def _partial(rows: Examples, labels: tuple[str, ...], source: str) -> Examples:
    """These rows, with labels that were chosen among those that occur. Raises DataError if only one occurs."""
    asked = np.isin(np.arange(len(labels)), rows.labels)
    if asked.sum() < 2:
        raise DataError(
            f"every row of {source} is {labels[rows.labels[0]]}; with joint.further_partial, nothing is learned",
            hint="Use rows with two or more labels, or omit joint.further_partial.",
        )
    return replace(rows, compared=np.tile(asked, (len(rows), 1)))


def further_keys(config: Config, store: Store) -> UInt64s:
    """Order hashes of the training and validation texts of ``joint.further_source``."""
    return np.concatenate([store.hash_raw(part.raw or part.texts)[1] for part in further(config, store)])


def load_heads(session: Session, folder: Path, labels: tuple[str, ...]) -> None:
    """Load the weights of a pack's heads into the new ones.

    Raises:
        LabelError: its labels differ, or their order does.
        ModelError: it lacks a head, or has one of another size than in the configuration.
    """
    if not recover(folder).is_dir():
        raise ModelError(
            f"joint.heads_from: there is no pack at {folder}", hint="Create one with senthy export --format pack."
        )
    joint = cast(JointClassifier, session.classifier)
    for name, head in joint.heads.items():
        found = load_model(folder / name)
        if found.info.labels != labels:
            raise LabelError(
                f"the {name} head in {folder} has the labels {', '.join(found.info.labels)}, but the data has "
                f"{', '.join(labels)}",
                hint="Prepare the data with the same labels in the same order, or omit joint.heads_from.",
            )
        try:
            head.load_state_dict(found.classifier.head.state_dict())
        except RuntimeError as error:
            raise ModelError(
                f"the {name} head in {folder} has other sizes than {name}.head",
                hint=f"Set {name}.head to the values in {folder / name / paths.MODEL_JSON}.",
            ) from error


def rows_before(config: Config, store: Store) -> int:
    """The number of the database's training rows that the heads of ``joint.heads_from`` were trained on.

    Warns if they were trained on another split, which may contain test rows of this one.
    """
    folder = config.joint.heads_from
    infos = [] if folder is None else [read_info(folder / head) for head in config.joint.models]
    if any(info.split_fingerprint != store.split_fingerprint for info in infos):
        warn(f"the heads in {folder} were trained on other data or another split, and may have seen test rows")
    return max((info.train_rows for info in infos if info.split_fingerprint == store.split_fingerprint), default=0)
