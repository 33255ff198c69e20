"""What a training or a search will take, from what there is to do, counted, and the rates of this machine, measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.states.store import window_keys

#: A checkpoint holds weights and two moments of what is trained, float32.
_CHECKPOINT_BYTES = 3 * 4
#: Checkpoints on disk at the worst moment: the best, the last, and the one being written.
_CHECKPOINTS = 3
_STATE_BYTES = 2  # float16


@dataclass(frozen=True)
class Survey:
    """Windows of some texts, the distinct ones among them, and those that are not stored; ``keys`` of the distinct."""

    windows: int
    distinct: int
    missing: int
    missing_tokens: int
    keys: frozenset[bytes]


def survey(folder: Path, tokenized: Sequence[TokenizedTexts], *, known: Collection[bytes] = frozenset()) -> Survey:
    """What a state store in ``folder`` has of these texts; a look alone: not even a damaged shard is removed.

    ``known`` are keys of windows that will be stored by then.
    """
    keys = np.concatenate([window_keys(one) for one in tokenized])
    lengths = np.concatenate([one.window_lengths for one in tokenized])
    distinct, example = np.unique(keys, return_index=True)
    stored = {*known}
    for path in folder.glob("shard-*/keys.npy"):
        try:
            stored.update(np.load(path, allow_pickle=False).tolist())
        except (OSError, ValueError, EOFError):  # damaged, or just cleared: its windows will be encoded again
            continue
    lacking = [at for at, key in zip(example.tolist(), distinct.tolist(), strict=True) if key not in stored]
    return Survey(len(keys), len(distinct), len(lacking), int(lengths[lacking].sum()), frozenset(distinct.tolist()))


@dataclass(frozen=True)
class Amount:
    """Rows of a split and their tokens, special ones included."""

    rows: int
    tokens: float


@dataclass(frozen=True)
class Training:
    """One kind of training: ``runs`` times (trials, seeds) so many epochs over these rows, validated after each."""

    train: Amount
    valid: Amount
    epochs: int
    rows_per_step: int
    runs: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps of all runs."""
        return self.runs * self.epochs * -(-self.train.rows // self.rows_per_step)


@dataclass(frozen=True)
class Todo:
    """Everything that a command will do; what does not come up is None, or 0.

    ``windows`` are those of all rows; of the ``distinct`` ones, ``missing`` are to be encoded and kept. Without a
    store (the encoder is trained) there are none of these.
    """

    training: Training | None
    trials: Training | None = None
    trials_done: int = 0
    test: Amount | None = None
    tests: int = 1
    windows: int = 0
    distinct: int = 0
    missing: int = 0
    missing_tokens: float = 0.0


@dataclass(frozen=True)
class Speeds:
    """Tokens a second: of encoding, of training, of judging; and of training each end of a search space."""

    train: float
    validate: float
    encode: float = 0.0
    trials: tuple[float, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes by what they go to, in the order of the work."""

    todo: Todo
    speeds: Speeds
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    notes: tuple[str, ...] = field(default=())

    @property
    def total_seconds(self) -> float:
        """All together."""
        return sum(self.seconds.values())


def estimate(
    todo: Todo,
    speeds: Speeds,
    *,
    hidden_size: int,
    trained_parameters: int,
    model_bytes: int,
    notes: tuple[str, ...] = (),
) -> Estimate:
    """The sums.

    Args:
        todo: what there is to do.
        speeds: how fast this machine is.
        hidden_size: width of a token's state.
        trained_parameters: weights that training changes.
        model_bytes: of the published model.
        notes: what the figures leave out.
    """
    seconds: dict[str, float] = {}
    if todo.missing:
        seconds["encoding"] = todo.missing_tokens / speeds.encode
    if todo.trials is not None:
        # A trial's head may be of any size in the space: the mean of its ends stands for all.
        ends = [_seconds(todo.trials, train=speed, validate=speeds.validate) for speed in speeds.trials]
        seconds["searching"] = sum(ends) / len(ends)
    if todo.training is not None:
        seconds["training"] = _seconds(todo.training, train=speeds.train, validate=speeds.validate)
    if todo.test is not None:
        seconds["testing"] = todo.tests * todo.test.tokens / speeds.validate
    sizes: dict[str, int] = {}
    if todo.missing:
        sizes["token states"] = int(todo.missing_tokens * hidden_size * _STATE_BYTES)
    if todo.training is not None:
        sizes["checkpoints, while it trains"] = _CHECKPOINTS * _CHECKPOINT_BYTES * trained_parameters
        sizes["model"] = model_bytes
    return Estimate(todo, speeds, seconds, sizes, notes)


def _seconds(training: Training, *, train: float, validate: float) -> float:
    epoch = training.train.tokens / train + training.valid.tokens / validate
    return training.runs * training.epochs * epoch
