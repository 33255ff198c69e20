"""The `linear` head: a masked mean and one layer, the reference for the other heads."""

from __future__ import annotations

from torch import Tensor, nn

from sentiment_hybrid.config import heads as settings
from sentiment_hybrid.models.attention import masked_mean, uniform
from sentiment_hybrid.models.classifier import HeadOutput, TokenCounts, gather_texts


class LinearHead(nn.Module):
    """Mean of all real token states of a text, dropout, one linear layer."""

    def __init__(self, config: settings.LinearHead, *, input_size: int, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(input_size, num_classes)

    def forward(
        self, states: Tensor, mask: Tensor, text_index: Tensor, num_texts: int, counts: TokenCounts | None = None
    ) -> HeadOutput:
        """States (W, T, H), mask (W, T), text_index (W,) -> logits (B, C), uniform attention (B, S)."""
        longest = None if counts is None else int(counts.per_text.max())
        tokens, real = gather_texts(states, mask, text_index, num_texts, longest=longest)
        return HeadOutput(self.output(self.dropout(masked_mean(tokens, real))), uniform(real))
