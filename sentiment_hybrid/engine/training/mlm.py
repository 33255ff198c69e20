"""Masked language modelling as a training task, with dynamic masking (Liu et al. 2019, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from sentiment_hybrid.engine.batches import TokenizedTexts, make_batches, mixed, padded
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches
from sentiment_hybrid.errors import EncoderError

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Shares of the tokens to predict that are masked and replaced at random (Devlin et al. 2019, section 3.1).
_MASKED, _REPLACED = 0.8, 0.1
#: The epoch number that determines the masked tokens of held-out texts.
_HELD_OUT = 0


@dataclass(frozen=True)
class MaskedBatch:
    """Padded windows with masked tokens, the positions of the tokens to predict, and the original tokens."""

    rows: np.ndarray
    input_ids: torch.Tensor  # (W, T) int64
    attention_mask: torch.Tensor  # (W, T) bool
    masked: torch.Tensor  # (M,) int64, positions in the flattened ids
    targets: torch.Tensor  # (M,) int64


class Masking:
    """Chooses the tokens to predict and their replacements by a hash of the token's position, the seed and the epoch.

    They are therefore independent of batches, processes and resuming.

    Raises:
        EncoderError: the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: Any, *, probability: float, seed: int) -> None:
        if tokenizer.mask_token_id is None:
            raise EncoderError(
                "the tokenizer of this encoder has no mask token, so masked language modelling is not possible",
                hint="Use an encoder trained by masked language modelling, such as roberta-base, or pretrain.base: "
                "scratch.",
            )
        self.mask_id = int(tokenizer.mask_token_id)
        self.probability, self.seed = probability, seed
        special = np.zeros(len(tokenizer), dtype=bool)
        special[[number for number in tokenizer.all_special_ids if number < len(special)]] = True
        self._special = special
        self._ordinary = np.flatnonzero(~special)

    def chosen(self, ids: np.ndarray, places: np.ndarray, epoch: int) -> np.ndarray:
        """Whether each of the tokens ``ids`` at the positions ``places`` is to be predicted, bool of the same shape."""
        return (self._share(places, epoch, 0) < self.probability) & ~self._special[ids]

    def replaced(self, ids: np.ndarray, places: np.ndarray, epoch: int) -> np.ndarray:
        """The tokens that replace those to predict."""
        fate = self._share(places, epoch, 1)
        others = self._ordinary[_noise(places, (self.seed, epoch, 2)) % np.uint64(len(self._ordinary))]
        return np.where(fate < _MASKED, self.mask_id, np.where(fate < _MASKED + _REPLACED, others, ids))

    def _share(self, places: np.ndarray, epoch: int, purpose: int) -> np.ndarray:
        shares: np.ndarray = _noise(places, (self.seed, epoch, purpose)).astype(np.float64) / 2.0**64
        return shares


class MaskedLanguage:
    """The task: mean cross-entropy of the tokens to predict."""

    def __init__(self, train: TokenizedTexts, valid: TokenizedTexts | None, masking: Masking) -> None:
        self.tokenized, self.valid, self.masking = train, valid, masking

    def weight(self, rows: np.ndarray, epoch: int) -> float:
        """The number of tokens to predict in these rows, at least 1."""
        places = _places(self.tokenized, rows)
        return float(max(1, self.masking.chosen(self.tokenized.ids[places], places, epoch).sum()))

    def micro_batch(self, rows: np.ndarray, epoch: int) -> MaskedBatch:
        """The masked windows of these rows in an epoch."""
        return _masked(self.tokenized, rows, self.masking, epoch)

    def summed_loss(
        self, model: torch.nn.Module, part: MaskedBatch, device: torch.device, accelerator: Accelerator
    ) -> torch.Tensor:
        """Cross-entropy summed over the tokens to predict; 0 without any."""
        with accelerator.autocast():
            logits = model(*_inputs(part, device))  # (M, V)
        return F.cross_entropy(logits.float(), part.targets.to(device, non_blocking=True), reduction="sum")

    def validate(
        self, model: torch.nn.Module, *, compute: Compute, token_budget: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Mean loss and accuracy over the masked tokens of the held-out texts; each process computes its part."""
        if self.valid is None:
            return {}
        sums = held_out(
            model,
            self.valid,
            self.masking,
            compute=compute,
            token_budget=token_budget,
            process=(accelerator.process_index, accelerator.num_processes),
        )
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(compute.device, torch.float32), "sum").cpu()
        loss, right, tokens = sums.tolist()
        return {"loss": loss / max(1.0, tokens), "accuracy": right / max(1.0, tokens)}


@torch.inference_mode()
def held_out(
    model: torch.nn.Module,
    texts: TokenizedTexts,
    masking: Masking,
    *,
    compute: Compute,
    token_budget: int,
    process: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """(summed loss, correct tokens, tokens) of the masked tokens of held-out texts, float64 (3,).

    Raises:
        TrainingError: a single text does not fit in memory.
    """
    was_training = model.training
    model.eval()

    def sums_of(rows: np.ndarray) -> torch.Tensor:
        part = _masked(texts, rows, masking, _HELD_OUT)
        with compute.autocast():
            logits = model(*_inputs(part, compute.device)).float()  # (M, V)
        targets = part.targets.to(compute.device)
        loss = F.cross_entropy(logits, targets, reduction="sum")
        right = (logits.argmax(-1) == targets).sum()
        return torch.stack([loss.cpu().double(), right.cpu().double()])  # MPS has no float64

    batches = make_batches(texts.lengths, np.arange(len(texts)), token_budget)[process[0] :: process[1]]
    total = torch.zeros(3, dtype=torch.float64)
    for rows, sums in in_batches(batches, texts.lengths, sums_of, token_budget=token_budget, device=compute.device):
        places = _places(texts, rows)
        total[:2] += sums
        total[2] += int(masking.chosen(texts.ids[places], places, _HELD_OUT).sum())
    model.train(was_training)
    return total


def count_masked_held_out(texts: TokenizedTexts, masking: Masking) -> int:
    """The number of masked tokens in held-out texts."""
    return int(masking.chosen(texts.ids, np.arange(len(texts.ids)), _HELD_OUT).sum())


def perplexity(loss: float) -> float:
    """The exponential of the mean loss of a masked token."""
    return math.exp(min(loss, 700.0))


def _inputs(part: MaskedBatch, device: torch.device) -> Sequence[torch.Tensor]:
    return [value.to(device, non_blocking=True) for value in (part.input_ids, part.attention_mask, part.masked)]


def _places(texts: TokenizedTexts, rows: np.ndarray) -> np.ndarray:
    """The positions of the tokens of these rows among all tokens, in the order of the rows."""
    windows, _ = texts.windows_of(rows)
    lengths = texts.lengths_of(windows)
    before = np.cumsum(lengths) - lengths
    places: np.ndarray = np.repeat(texts.window_offsets[windows] - before, lengths) + np.arange(int(lengths.sum()))
    return places


def _masked(texts: TokenizedTexts, rows: np.ndarray, masking: Masking, epoch: int) -> MaskedBatch:
    windows, _ = texts.windows_of(rows)
    ids, mask = padded(texts, windows)
    flat = np.flatnonzero(mask)  # (tokens,)
    places = _places(texts, rows)  # (tokens,), in the same order
    chosen = masking.chosen(texts.ids[places], places, epoch)
    masked, targets = flat[chosen], texts.ids[places[chosen]].astype(np.int64)
    ids.reshape(-1)[masked] = masking.replaced(targets, places[chosen], epoch)
    return MaskedBatch(
        rows, torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(masked), torch.from_numpy(targets)
    )


def _noise(places: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """64 random bits for each position: SplitMix64 (Steele, Lea and Flood 2014), seeded by the key."""
    start = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return mixed(places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start)
