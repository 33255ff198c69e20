"""The `han` head: hierarchical attention (Yang et al. 2016) over the words of a window and the windows of a text."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid.config import heads as settings
from sentiment_hybrid.models.attention import AdditiveAttention
from sentiment_hybrid.models.classifier import HeadOutput, TokenCounts, count_tokens, gather_texts, token_places
from sentiment_hybrid.models.recurrent import PackedRecurrence


class HanHead(nn.Module):
    """Two levels, each with a recurrent layer and additive attention; a tweet has a single window."""

    def __init__(self, config: settings.HanHead, *, input_size: int, num_classes: int) -> None:
        super().__init__()
        size = 2 * config.hidden
        self.norm = nn.LayerNorm(input_size)
        self.words = PackedRecurrence(
            config.cell, input_size, hidden=config.hidden, layers=config.layers, dropout=config.dropout
        )
        self.word_attention = AdditiveAttention(size)
        self.windows = PackedRecurrence(config.cell, size, hidden=config.hidden)
        self.window_attention = AdditiveAttention(size, starts_as_average=True)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(size, num_classes)

    def forward(
        self, states: Tensor, mask: Tensor, text_index: Tensor, num_texts: int, counts: TokenCounts | None = None
    ) -> HeadOutput:
        """States (W, T, H), mask (W, T), text_index (W,) -> logits (B, C), attention (B, S).

        The attention of a word is its weight in the window, multiplied by the window's weight in the text.
        """
        counts = counts or count_tokens(mask, text_index, num_texts)
        words = self.words(self.norm(states), counts.per_window)  # (W, T, D)
        vectors, word_weights = self.word_attention(words, mask)  # (W, D), (W, T)
        texts, window_weights = self._read_windows(vectors, mask, text_index, counts)  # (B, D), (W,)
        weights = (word_weights * window_weights.unsqueeze(1)).detach().unsqueeze(-1)  # (W, T, 1)
        longest = int(counts.per_text.max())
        attention, real = gather_texts(weights, mask, text_index, num_texts, longest=longest)
        return HeadOutput(self.output(self.dropout(texts)), attention.squeeze(-1) * real)

    def _read_windows(
        self, vectors: Tensor, mask: Tensor, text_index: Tensor, counts: TokenCounts
    ) -> tuple[Tensor, Tensor]:
        """The second level: a vector per text (B, D), and the weight of each window in its text (W,)."""
        num_texts = len(counts.windows)
        most = max(int(counts.windows.max()), 1)
        present = mask.any(1, keepdim=True)  # (W, 1)
        rows, real = gather_texts(vectors.unsqueeze(1), present, text_index, num_texts, longest=most)  # (B, M, D)
        # With a residual, also for a single window, so that repeating a text hardly changes its result.
        read = rows + self.windows(rows, counts.windows)  # (B, M, D)
        texts, weights = self.window_attention(read, real)  # (B, D), (B, M)
        place = token_places(present, text_index, num_texts, most)  # (W,)
        return texts, F.pad(weights.flatten(), (0, 1))[place]
