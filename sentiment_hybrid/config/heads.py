"""The settings of each head; sentiment_hybrid/heads.py registers them.

``search_space`` is what a search varies by default beside what all heads share.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from sentiment_hybrid.config.sections import AttentionHeads, Dropout, Layers, Section, Width, default


class LstmHead(Section):
    """BiLSTM, multi-head self-attention, masked pooling and an MLP over the encoder's token states."""

    search_space: ClassVar[dict[str, Any]] = {
        "hidden": {"type": "categorical", "choices": [128, 256, 512]},
        "layers": {"type": "int", "low": 1, "high": 3},
        "attention_heads": {"type": "categorical", "choices": [2, 4, 8]},
    }

    hidden: Width = default(256, "LSTM units per direction.")
    layers: Layers = default(2, "Stacked LSTM layers.")
    dropout: Dropout = default(
        0.3, "Dropout of token states (one mask per text), between layers and before the output."
    )
    attention_heads: AttentionHeads = default(4, "Self-attention heads; must divide 2 x hidden.")

    @model_validator(mode="after")
    def _heads_divide(self) -> LstmHead:
        if (2 * self.hidden) % self.attention_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must divide 2 x hidden ({2 * self.hidden})")
        return self


class HanHead(Section):
    """Hierarchical attention: over the words of a window, then over the windows of a text."""

    search_space: ClassVar[dict[str, Any]] = {
        "hidden": {"type": "categorical", "choices": [128, 256, 384]},
        "layers": {"type": "int", "low": 1, "high": 2},
    }

    hidden: Width = default(256, "Recurrent units per direction.")
    layers: Layers = default(1, "Stacked recurrent layers over words.")
    dropout: Dropout = default(
        0.3, "Dropout of token states (one mask per text), between layers and before the output."
    )
    cell: Literal["gru", "lstm"] = default("gru", "Recurrent cell; the paper uses gru.")


class LinearHead(Section):
    """Masked mean of the token states and one linear layer: the baseline for the other heads."""

    dropout: Dropout = default(0.1, "Dropout before the output.")
