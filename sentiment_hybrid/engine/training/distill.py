"""Knowledge distillation: a student learns from labels and from a teacher's predictions (Hinton et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from sentiment_hybrid.config.schema import JOINT, Config, Distill
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.splits import UInt64s
from sentiment_hybrid.data.store import Examples, Store
from sentiment_hybrid.data.unlabelled import read_unlabelled
from sentiment_hybrid.engine.inference.session import EncodedDataset, Session
from sentiment_hybrid.engine.training.joint import further_keys
from sentiment_hybrid.engine.training.teacher import Predictions, own_columns
from sentiment_hybrid.errors import DataError


@dataclass(frozen=True)
class TeacherTargets:
    """A teacher's predictions for the training rows; ``kept`` (M,) are the rows with a label or a prediction.

    Of the kept rows, ``probabilities`` (M, C) float32, NaN for none, and ``states`` (M, H) float16 or None.
    """

    kept: np.ndarray
    probabilities: np.ndarray
    states: np.ndarray | None

    def rows(self, examples: Examples) -> Examples:
        """The kept rows."""
        return examples if len(self.kept) == len(examples) else examples.chosen(self.kept)

    def attach_to(self, session: Session, dataset: EncodedDataset, temperature: float) -> EncodedDataset:
        """The dataset with soft targets: the teacher's probabilities at a temperature.

        For states, the session's classifier gets a linear projection to the teacher's size, which is not saved.
        """
        if self.states is not None:
            projection = torch.nn.Linear(session.classifier.encoder.hidden_size, self.states.shape[1])
            session.classifier.projection = projection.to(session.compute.device)
        return replace(dataset, soft=self.soften(temperature), pooled=self.states)

    def soften(self, temperature: float) -> np.ndarray:
        """The probabilities of a softmax at this temperature, (M, C) float32."""
        # Relative to the maximum: otherwise a low temperature would round all of them to 0.
        shares = self.probabilities / self.probabilities.max(axis=1, keepdims=True)
        powers = shares ** np.float32(1.0 / temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    @property
    def answered(self) -> int:
        """Number of rows with a prediction."""
        return int((~np.isnan(self.probabilities[:, 0])).sum())


def unlabelled(config: Config, model: str, store: Store) -> Examples:
    """Texts of ``distill.source``, with label -1, without those that are in the prepared data.

    For `joint`, texts of ``joint.further_source`` are left out too.

    Raises:
        SourceError, ColumnError: the source cannot be read, or has no text column.
        DataError: no text is left.
    """
    data = own_columns(config.data).changed(store.split_keys)
    source = open_source(str(config.distill.source), data)
    normalizer = normalizers.from_id(store.normalizer)
    normalizer.prepare(config.paths.cache, offline=True)  # the database was made with it
    found = read_unlabelled(source, data, normalizer=normalizer, valid_size=0.0)
    sample_size = config.training(model).sample_size
    known = [store.key_hashes("train")[:sample_size], store.key_hashes("valid"), store.key_hashes("test")]
    if model == JOINT and config.joint.further_source is not None:
        known.append(further_keys(config, store))
    new = np.flatnonzero(~np.isin(store.hash_raw(found.raw)[1], np.concatenate(known)))
    if not len(new):
        raise DataError(
            f"no text of {config.distill.source} is left: all are in the prepared data",
            hint="Give other texts, or leave distill.source out.",
        )
    texts, raw = ([one[place] for place in new] for one in (found.train, found.raw))
    return Examples("train", texts, np.full(len(new), -1), np.zeros(len(new), dtype=np.int64), raw)


def extra_keys(config: Config, model: str, store: Store) -> UInt64s:
    """Order hashes of the training texts that are not in the database."""
    keys = [np.empty(0, dtype=np.uint64)]
    if model == JOINT and config.joint.further_source is not None:
        keys.append(further_keys(config, store))
    if config.distill.source is not None:
        texts = unlabelled(config, model, store)
        keys.append(store.hash_raw(texts.raw or texts.texts)[1])
    return np.concatenate(keys)


def targets_from(teacher: str, predictions: Predictions, examples: Examples) -> TeacherTargets:
    """What a teacher predicts for all rows; rows with neither a label nor a prediction are left out.

    Raises:
        DataError: it has no prediction for any of them.
    """
    probabilities, states = predictions
    answered = ~np.isnan(probabilities[:, 0])
    if not answered.any():
        raise DataError(
            f"{teacher} has no probabilities for any of the {len(examples):,} training texts",
            hint="Rows are matched by their text, cleaned as in the prepared data.",
        )
    kept = np.flatnonzero(answered | (examples.labels >= 0))
    return TeacherTargets(kept, probabilities[kept], None if states is None else states[kept])


def distillation_loss(
    hard: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, soft: torch.Tensor, settings: Distill
) -> torch.Tensor:
    """(1 - w) CE + w T^2 KL(teacher || student) of each row, (B,): equations 1 and 2 of Hinton et al. 2015.

    Without a prediction of the teacher, only the cross-entropy counts; without a label (target -1), only the
    divergence.

    Args:
        hard: (B,) cross-entropy with the labels; not used for rows without a label.
        logits: (B, C) of the student.
        targets: (B,) int64.
        soft: (B, C) the teacher's probabilities at the temperature T; NaN for none.
    """
    answered = ~soft[:, 0].isnan()
    log_student = (logits.float() / settings.temperature).log_softmax(-1)
    share = torch.where(targets < 0, 1.0, settings.weight) * answered
    divergence = F.kl_div(log_student, soft.nan_to_num(), reduction="none").sum(-1)
    return (1.0 - share) * hard + share * settings.temperature**2 * divergence


def state_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the projected pooled states of each row (B, H), as (B,).

    As for the hidden states of TinyBERT (Jiao et al. 2020, equation 8), but pooled, because vocabularies differ.
    """
    return (student.float() - teacher.float()).square().mean(-1)
