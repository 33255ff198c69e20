"""An encoder with RoBERTa's LM head, which predicts masked tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid.files import save_tensors
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.models.encoder.roberta import WEIGHTS_FILE, own_name, with_means

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sentiment_hybrid.models.encoder.module import Model

#: The weights of the LM head in the directory of a pretrained encoder, for further pretraining.
HEAD_FILE = "lm_head.safetensors"
#: Parameter names in checkpoints of RoBERTa and BERT.
_ALIASES = (
    {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
    {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions.bias",
    },
)


class MaskedLanguageModel(nn.Module):
    """Logits of masked tokens over the vocabulary (Devlin et al. 2019, section 3.1; Liu et al. 2019).

    The LM head is a projection, GELU, a norm, and the tied word embeddings (Press and Wolf 2017) with a bias.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = Encoder(model, "all")
        embeddings = model.get_input_embeddings()
        size = self.encoder.hidden_size
        # Factorised embeddings are smaller than the states (ALBERT, ELECTRA).
        vocabulary, width = embeddings.weight.shape
        self.dense = nn.Linear(size, width)
        nn.init.normal_(self.dense.weight, std=getattr(model.config, "initializer_range", 0.02))
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(width, eps=getattr(model.config, "layer_norm_eps", 1e-5))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
        """Logits (M, V) of the positions ``masked`` (M,) in the flattened ids (W, T) with a mask (W, T)."""
        states = self.encoder(input_ids, attention_mask).flatten(0, 1).index_select(0, masked)  # (M, H)
        states = self.norm(F.gelu(self.dense(states)))
        table = cast(Tensor, self.encoder.model.get_input_embeddings().weight)  # (V, E)
        return F.linear(states, table, self.bias)

    def load_head(self, weights: Mapping[str, Tensor]) -> bool:
        """Load the LM head from a checkpoint's weights; returns whether they contain one of this size."""
        own = self._head()
        for alias in ({part: part for part in ("dense", "norm", "bias")}, *_ALIASES):
            found = {name: weights.get(_renamed(name, alias)) for name in own}
            if all(value is not None and value.shape == own[name].shape for name, value in found.items()):
                self.load_state_dict({name: value.float() for name, value in found.items() if value is not None}, False)
                return True
        return False

    def grow_bias(self, former: Mapping[int, Sequence[int]]) -> None:
        """Extend the bias after :meth:`Roberta.grow_vocabulary` with the same ``former``."""
        entries = self.encoder.model.get_input_embeddings().num_embeddings
        self.bias = nn.Parameter(with_means(self.bias.detach(), entries, former))

    def save_head(self, directory: Path) -> None:
        """Write the LM head to the directory of the encoder. Raises OSError."""
        save_tensors(directory / HEAD_FILE, {name: value.detach().cpu() for name, value in self._head().items()})

    def _head(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}


def head_weights(directory: Path) -> dict[str, Tensor]:
    """The weights of the LM head in a directory: from its own file, or else from the checkpoint of the encoder."""
    from safetensors import safe_open

    for name in (HEAD_FILE, WEIGHTS_FILE):
        if (directory / name).is_file():
            with safe_open(directory / name, framework="pt") as file:
                names = list(file.keys())
                wanted = [key for key in names if name == HEAD_FILE or key.startswith(("lm_head.", "cls.predictions."))]
                return {own_name(key): file.get_tensor(key) for key in wanted}
    return {}


def _renamed(name: str, alias: Mapping[str, str]) -> str:
    part, dot, rest = name.partition(".")
    return alias[part] + dot + rest
