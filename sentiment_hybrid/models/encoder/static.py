"""Static encoders: a table of token vectors, distilled from another encoder, and one for pairs of adjacent tokens.

Model2Vec (Tulkens and van Dongen 2024) gives each token what an encoder computes for it alone, reduced by principal
components. Trained further under the `linear` head, over the mean of a text's vectors, it is fastText (Joulin et al.
2017), whose hashed bigrams tell "not good" from "good".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentiment_hybrid import paths
from sentiment_hybrid.models.encoder.roberta import Architecture, save_model
from sentiment_hybrid.models.tokenizer import special_tokens

#: Tokens that are encoded together, each in a window of its own.
_TOKENS = 1024
_LEAST = 1e-12  # lower bound of a divisor
#: A pair is a row of the table by this multiplier of its first token, modulo the rows.
_MULTIPLIER = 1_000_003
#: Pairs count less than tokens, so that they are learned more slowly: most occur too rarely to be learned well.
_PAIR_SCALE = 0.1


class Static(nn.Module):
    """Token ids (W, T) -> token vectors (W, T, H)."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TokenVectors(config.vocab_size, config.hidden_size, config.document.get("pairs", 0))

    def get_input_embeddings(self) -> TokenVectors:
        """The tables of vectors, which are the whole encoder."""
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors (W, T, H) of ids (W, T), also on padding. Vectors (W, T, H) given instead of ids are returned."""
        return input_ids if input_ids.is_floating_point() else self.embeddings(input_ids)

    def save_pretrained(self, directory: Path) -> None:
        """Write config.json and model.safetensors. Raises OSError."""
        save_model(self, directory, name="Static")


class TokenVectors(nn.Embedding):
    """A table (V, H) of token vectors, multiplied by the root of H (Vaswani et al. 2017, section 3.4).

    With rows of length 1, the vectors then have the scale of an encoder's states, and the learning rate of a head is
    enough to train them. With ``pairs``, the vector of every token but the first is the sum of its own and that of the
    pair that it ends, from a table (``pairs``, H) in which pairs of one hash share a row, and which is zero before
    training.
    """

    def __init__(self, entries: int, size: int, pairs: int = 0) -> None:
        super().__init__(entries, size, _weight=torch.zeros(entries, size))
        self.pairs = nn.Embedding(pairs, size, _weight=torch.zeros(pairs, size)) if pairs else None

    def forward(self, input_ids: Tensor) -> Tensor:
        """Vectors (..., T, H) of ids (..., T)."""
        vectors = super().forward(input_ids)
        if self.pairs is not None:
            pairs = self.pairs(_pair_rows(input_ids, self.pairs.num_embeddings))
            vectors = vectors + _PAIR_SCALE * nn.functional.pad(pairs, (0, 0, 1, 0))
        return vectors * math.sqrt(self.embedding_dim)


def _pair_rows(input_ids: Tensor, count: int) -> Tensor:
    """Of ``count`` rows, those (..., T - 1) of the pairs that all but the first of ids (..., T) end."""
    # Apple's GPUs compute remainders in float32, which is not exact above 2^24.
    ids = input_ids.cpu() if input_ids.device.type == "mps" else input_ids
    return ((ids[..., :-1] * _MULTIPLIER + ids[..., 1:]) % count).to(input_ids.device)


@torch.no_grad()
def distilled(
    states: Callable[[Tensor, Tensor], Tensor], tokenizer: Any, *, base: str, entries: int, size: int, pairs: int
) -> Static:
    """A static encoder of ``entries`` token ids: each token's mean state (D,), alone, reduced to ``size`` numbers.

    It has rows for ``pairs`` hashes of two tokens, still zero.

    ``states`` computes the states (W, T, D) of ids and mask (W, T) by the encoder ``base``, whose name is kept. Special
    tokens are zero.
    """
    vectors = _alone(states, tokenizer, entries).double()
    ordinary = torch.ones(entries, dtype=torch.bool)
    ordinary[tokenizer.all_special_ids] = False
    vectors -= vectors[ordinary].mean(0)
    vectors[~ordinary] = 0.0
    _, directions = torch.linalg.eigh(vectors.T @ vectors)
    vectors = vectors @ directions[:, -size:].flip(1)
    length = vectors[ordinary].square().sum(1).mean().sqrt()
    document = {
        "model_type": paths.STATIC,
        "distilled_from": base,
        "vocab_size": entries,
        "hidden_size": size,
        "pairs": pairs,
        "num_hidden_layers": 0,
        "max_position_embeddings": -1,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = Static(Architecture(document)).eval()
    model.embeddings.weight.copy_(vectors / length.clamp(min=_LEAST))
    return model


def _alone(states: Callable[[Tensor, Tensor], Tensor], tokenizer: Any, entries: int) -> Tensor:
    """The mean state of a text that is a single token, for each of ``entries`` ids, (V, D)."""
    prefix, suffix = (torch.tensor(ids, dtype=torch.int64) for ids in special_tokens(tokenizer))
    found = []
    for tokens in torch.arange(entries).split(_TOKENS):
        windows = torch.cat([prefix.expand(len(tokens), -1), tokens[:, None], suffix.expand(len(tokens), -1)], dim=1)
        found.append(states(windows, torch.ones_like(windows, dtype=torch.bool)).float().mean(1))
    return torch.cat(found)
