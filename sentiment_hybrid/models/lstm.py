"""The `lstm` head: BiLSTM, multi-head self-attention, masked pooling, MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sentiment_hybrid.config import heads as settings
from sentiment_hybrid.models.attention import SelfAttention, masked_max, masked_mean
from sentiment_hybrid.models.classifier import HeadOutput, TokenCounts, count_tokens, gather_texts
from sentiment_hybrid.models.recurrent import PackedRecurrence, row_dropout


class LstmHead(nn.Module):
    """Processes a text as one sequence of tokens, across the windows of the encoder."""

    def __init__(self, config: settings.LstmHead, *, input_size: int, num_classes: int) -> None:
        super().__init__()
        size = 2 * config.hidden
        self.norm = nn.LayerNorm(input_size)
        self.lstm = PackedRecurrence(
            "lstm", input_size, hidden=config.hidden, layers=config.layers, dropout=config.dropout
        )
        self.attention = SelfAttention(size, heads=config.attention_heads)
        self.attention_norm = nn.LayerNorm(size)
        self.dropout = config.dropout
        self.mlp = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(2 * size, size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(size, num_classes),
        )

    def forward(
        self, states: Tensor, mask: Tensor, text_index: Tensor, num_texts: int, counts: TokenCounts | None = None
    ) -> HeadOutput:
        """States (W, T, H), mask (W, T), text_index (W,) -> logits (B, C), attention (B, S) that tokens receive."""
        lengths = (counts or count_tokens(mask, text_index, num_texts)).per_text  # (B,) on the CPU
        tokens, real = gather_texts(states, mask, text_index, num_texts, longest=int(lengths.max()))
        read = self.lstm(self.norm(tokens), lengths)  # (B, S, 2 * hidden)
        attended, attention = self.attention(read, real)  # (B, S, 2 * hidden), (B, S)
        mixed = self.attention_norm(read + row_dropout(attended, self.dropout, training=self.training))
        pooled = torch.cat([masked_mean(mixed, real), masked_max(mixed, real)], dim=-1)  # (B, 4 * hidden)
        return HeadOutput(self.mlp(pooled), attention)
