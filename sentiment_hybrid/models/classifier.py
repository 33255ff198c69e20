"""Encoder and head as one module, and the concatenation of the windows of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sentiment_hybrid.models.encoder.module import Encoder


class HeadOutput(NamedTuple):
    """The output of every head; a NamedTuple, because accelerate converts those to float32, but not dataclasses.

    ``logits`` is (B, C). ``attention`` is (B, S), detached, where S is the largest number of real tokens of a text in
    the batch; a row sums to 1 over real tokens and is 0 on padding. In training it is not used and may be all 0.
    ``pooled`` is (B, P), the classifier's ``projection`` of the mean token state of a text; None without one.
    """

    logits: Tensor
    attention: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class TokenCounts:
    """Numbers of real tokens and windows, on the CPU, from which a head takes sizes without waiting for the GPU.

    Not a tuple, whose tensors would be moved to the GPU with the inputs.
    """

    per_window: Tensor  # (W,)
    per_text: Tensor  # (B,)
    windows: Tensor  # (B,)


class _OnEncoder(nn.Module):
    """One or several heads on an encoder, or on stored states.

    A batch has W windows of T tokens, which belong to B texts. In every window, the padding is last, and every text has
    at least one window.
    """

    def __init__(self, encoder: Encoder, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self._heads = tuple(heads)  # in a tuple, so that each class registers them under its own names
        self.projection: nn.Module | None = None

    def forward(
        self,
        *,
        attention_mask: Tensor,
        text_index: Tensor,
        num_texts: int,
        input_ids: Tensor | None = None,
        states: Tensor | None = None,
        counts: TokenCounts | None = None,
    ) -> Any:
        """Logits (B, C) and attention (B, S) of each head, from token ids or from states; the encoder runs once.

        Args:
            attention_mask: (W, T), 1 or True for real tokens.
            text_index: (W,) int64, non-decreasing: the text that each window belongs to.
            num_texts: B.
            input_ids: (W, T).
            states: (W, T, H) of any floating type, from `Encoder.below`, instead of ids; only the trained layers run.
            counts: sizes of the batch; computed on the device if None.
        """
        mask = attention_mask.bool()  # (W, T)
        found: Tensor = self.encoder(input_ids, mask) if states is None else self.encoder.above(states.float(), mask)
        # An encoder's states on padding are arbitrary, even NaN in a window of only padding, and 0 x NaN is NaN.
        states = found.float().masked_fill(~mask.unsqueeze(-1), 0.0)  # (W, T, H)
        # With bfloat16 instructions, a CPU trains lstm and han 1.3 to 3 times as fast. But the composition of a batch
        # then changes a probability by up to 0.006, so evaluation and prediction use float32. CUDA uses autocast.
        device = states.device.type
        reduced = device == "cuda" or (device == "cpu" and self.training)
        with torch.autocast(device, enabled=reduced and torch.is_autocast_enabled(device)):
            outputs = [head(states, mask, text_index, num_texts, counts) for head in self._heads]
        pooled = self.projection(mean_state(states, mask, text_index, num_texts)) if self.projection else None
        return self._result([HeadOutput(out.logits.float(), out.attention.detach().float(), pooled) for out in outputs])

    def _result(self, outputs: list[HeadOutput]) -> Any:
        raise NotImplementedError


class Classifier(_OnEncoder):
    """A head on an encoder; its output is a HeadOutput.

    In eval mode logits are divided by ``temperature`` (Guo et al. 2017, section 4.2), which changes no label.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, temperature: float = 1.0) -> None:
        super().__init__(encoder, [head])
        self.head = head
        self.temperature = temperature

    def _result(self, outputs: list[HeadOutput]) -> HeadOutput:
        (output,) = outputs
        if self.training or self.temperature == 1.0:
            return output
        return output._replace(logits=output.logits / self.temperature)


class JointClassifier(_OnEncoder):
    """Several heads on one encoder; its output is a tuple of HeadOutputs, in the order of the heads."""

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module]) -> None:
        super().__init__(encoder, heads.values())
        self.heads = nn.ModuleDict(heads)

    def _result(self, outputs: list[HeadOutput]) -> tuple[HeadOutput, ...]:
        return tuple(outputs)

    def classifier(self, name: str) -> Classifier:
        """One head with the shared encoder."""
        return Classifier(self.encoder, self.heads[name]).train(self.training)


def mean_state(states: Tensor, mask: Tensor, text_index: Tensor, num_texts: int) -> Tensor:
    """Mean state of the real tokens of each text over all its windows, (B, H)."""
    sums = states.new_zeros(num_texts, states.shape[-1]).index_add(0, text_index, states.sum(1))
    counts = states.new_zeros(num_texts).index_add(0, text_index, mask.sum(1).to(states.dtype))
    return sums / counts.clamp(min=1.0)[:, None]


def count_tokens(mask: Tensor, text_index: Tensor, num_texts: int) -> TokenCounts:
    """Count the real tokens of ``mask`` (W, T) per window and per text, and the windows that have any per text."""
    per_window = mask.sum(1)  # (W,)
    texts = per_window.new_zeros(2, num_texts)
    per_text = texts[0].index_add(0, text_index, per_window)  # (B,)
    windows = texts[1].index_add(0, text_index, per_window.clamp(max=1))  # (B,)
    counts = torch.cat([per_window, per_text, windows]).cpu()
    first, second, third = counts.split([len(per_window), num_texts, num_texts])
    return TokenCounts(first, second, third)


def gather_texts(
    states: Tensor, mask: Tensor, text_index: Tensor, num_texts: int, *, longest: int | None = None
) -> tuple[Tensor, Tensor]:
    """Concatenate the real tokens of each text's windows.

    Args:
        states: (W, T, H).
        mask: (W, T) bool, real tokens first.
        text_index: (W,) int64, non-decreasing, every text at least once.
        num_texts: B.
        longest: S, the largest number of real tokens of a text; counted if None.

    Returns:
        states (B, S, H), zero on padding if any text has several windows, and mask (B, S). Differentiable.
    """
    if longest is None:
        longest = int(count_tokens(mask, text_index, num_texts).per_text.max())
    longest = max(longest, 1)
    if len(states) == num_texts:
        return states[:, :longest], mask[:, :longest]
    place = token_places(mask, text_index, num_texts, longest)  # (W * T,)
    rows = num_texts * longest
    # Padding goes to an extra row, which is dropped: no synchronisation, and zero gradients.
    flat = states.new_zeros(rows + 1, states.shape[-1]).index_copy(0, place, states.flatten(0, 1))
    kept = mask.new_zeros(rows + 1).index_fill(0, place, True)
    return flat[:rows].view(num_texts, longest, -1), kept[:rows].view(num_texts, longest)


def token_places(mask: Tensor, text_index: Tensor, num_texts: int, longest: int) -> Tensor:
    """The index of each token of ``mask`` (W, T) in the flattened (B, S) grid, (W * T,); that of padding is B * S."""
    per_window = mask.sum(1)  # (W,)
    before = per_window.cumsum(0) - per_window  # (W,) tokens of all earlier windows
    per_text = per_window.new_zeros(num_texts).index_add(0, text_index, per_window)  # (B,)
    start = per_text.cumsum(0) - per_text  # (B,) tokens of all earlier texts
    offset = before - start[text_index] + text_index * longest  # (W,)
    place = offset[:, None] + mask.cumsum(1) - 1  # (W, T)
    return place.masked_fill(~mask, num_texts * longest).flatten()
