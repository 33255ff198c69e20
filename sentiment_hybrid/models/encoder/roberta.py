"""Fast RoBERTa and BERT encoders in plain torch, which compute nothing for padding on a CPU.

Modules and parameters have the names of the transformers library, so weights are interchangeable. On a CPU, the real
tokens of a batch are concatenated, and attention is computed for all windows of one length at a time. This file does
not import transformers, which takes several times as long to import as torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentiment_hybrid import paths
from sentiment_hybrid.files import read_json, save_tensors
from sentiment_hybrid.models.dropout import Dropout, dropout
from sentiment_hybrid.models.encoder.sizes import check_sizes
from sentiment_hybrid.models.products import Linear

#: Families with this architecture; transformers implements the others.
FAMILIES = ("roberta", "xlm-roberta", "camembert", "bert")
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

#: Default values of transformers for fields that are missing in a config.json; family-specific ones follow.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
}
_BERT_DEFAULTS = {"vocab_size": 30522, "pad_token_id": 0}
_ROBERTA_DEFAULTS = {"vocab_size": 50265}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
#: For windows with fewer tokens, matrix products are faster than torch's fused attention kernel on CPUs.
_PLAIN_BELOW = 128

#: Windows of concatenated tokens in order of length: (number of windows, tokens of each) for each length.
Groups: TypeAlias = tuple[tuple[int, int], ...]


class Architecture:
    """The content of a config.json: every field as an attribute, with the defaults of its family.

    Raises:
        KeyError: it has no model_type.
    """

    is_encoder_decoder = False

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        family = {**_DEFAULTS, **(_BERT_DEFAULTS if document["model_type"] == "bert" else _ROBERTA_DEFAULTS)}
        for name, value in {**family, **self.document}.items():
            if name != "is_encoder_decoder":
                setattr(self, name, value)

    def update(self, **fields: Any) -> None:
        """Change fields of the document and attributes."""
        self.document.update(fields)
        for name, value in fields.items():
            setattr(self, name, value)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def is_supported(document: Mapping[str, Any]) -> bool:
    """Whether this file or static.py implements the encoder of a config.json."""
    return (
        document.get("model_type") in (*FAMILIES, paths.STATIC)
        and document.get("hidden_act", "gelu") in tuple(_ACTIVATIONS)
        and document.get("position_embedding_type", "absolute") == "absolute"
        and not document.get("is_decoder", False)
        and not document.get("add_cross_attention", False)
    )


@dataclass(frozen=True)
class Ragged:
    """The real tokens of a padded batch (W, T), concatenated, with windows in order of length.

    index (tokens,): position in the flattened batch; position (tokens,): position in the window.
    """

    index: Tensor
    position: Tensor
    groups: Groups

    @classmethod
    def of(cls, mask: Tensor) -> Ragged:
        """From the mask (W, T) of windows with padding last."""
        lengths = mask.sum(1).cpu().numpy()
        width = mask.shape[1]
        index, position, groups = [], [], []
        for length in np.unique(lengths[lengths > 0]).tolist():
            windows = np.flatnonzero(lengths == length)
            index.append((windows[:, None] * width + np.arange(length)).reshape(-1))
            position.append(np.tile(np.arange(length), len(windows)))
            groups.append((len(windows), length))
        if not groups:
            empty = torch.empty(0, dtype=torch.int64, device=mask.device)
            return cls(empty, empty, ())
        return cls(
            torch.from_numpy(np.concatenate(index)).to(mask.device),
            torch.from_numpy(np.concatenate(position)).to(mask.device),
            tuple(groups),
        )

    def take(self, padded: Tensor) -> Tensor:
        """Real tokens of (W, T, ...), concatenated: (tokens, ...)."""
        return padded.flatten(0, 1).index_select(0, self.index)

    def put(self, flat: Tensor, mask: Tensor) -> Tensor:
        """The inverse of `take`: (W, T, D) with zeros on padding."""
        out = flat.new_zeros(mask.numel(), flat.shape[-1])
        return out.index_copy(0, self.index, flat).view(*mask.shape, -1)


class Roberta(nn.Module):
    """Token ids (W, T) -> token states (W, T, H), like transformers' RobertaModel and BertModel without pooler."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        layers: int = config.num_hidden_layers
        # A container, which gives the weights their usual names.
        self.encoder: Any = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(layers))})
        # On the meta device, initialisation is useless, and would import a compiler.
        if self.device.type != "meta":
            self.apply(self._start)

    def _start(self, module: nn.Module) -> None:
        # Devlin et al. 2019: normally distributed weights, zero biases, and a zero embedding of padding.
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of word embeddings."""
        return self.embeddings.word_embeddings

    @torch.no_grad()
    def grow_vocabulary(self, entries: int, former: Mapping[int, Sequence[int]]) -> None:
        """Extend the word embeddings to ``entries`` rows; those in ``former`` become the mean of the given rows."""
        table = self.embeddings.word_embeddings
        grown = _table(max(entries, table.num_embeddings), table.embedding_dim, table.padding_idx)
        grown.weight.copy_(with_means(table.weight, grown.num_embeddings, former))
        self.embeddings.word_embeddings = grown
        self.config.update(vocab_size=grown.num_embeddings)

    @torch.no_grad()
    def grow_positions(self, tokens: int) -> None:
        """Allow windows of ``tokens``; new positions repeat the existing ones (Beltagy et al. 2020, section 5)."""
        table, first = self.embeddings.position_embeddings, self.embeddings.first_position
        there = table.num_embeddings - first
        grown = _table(first + max(tokens, there), table.embedding_dim, table.padding_idx)
        grown.weight[:first] = table.weight[:first]
        grown.weight[first:] = table.weight[first + torch.arange(max(tokens, there)) % there]
        self.embeddings.position_embeddings = grown
        self.config.update(max_position_embeddings=grown.num_embeddings)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embeddings.word_embeddings.weight.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States (W, T, H) of ids (W, T) with a bool mask (W, T), padding last; arbitrary values on padding.

        Instead of the ids, their word embeddings (W, T, H) can be given.
        """
        return self.states(input_ids, attention_mask, last=len(self.encoder.layer))

    def states(self, input_ids: Tensor, attention_mask: Tensor, *, last: int) -> Tensor:
        """The output of the first ``last`` layers, (W, T, H)."""
        return self._run(input_ids, attention_mask, self.encoder.layer[:last], embed=True)

    def above(self, states: Tensor, attention_mask: Tensor, *, first: int) -> Tensor:
        """The output of the layers from ``first`` on for the states (W, T, H) below them."""
        return self._run(states, attention_mask, self.encoder.layer[first:], embed=False)

    def _run(self, states: Tensor, mask: Tensor, layers: Iterable[Any], *, embed: bool) -> Tensor:
        # A traced graph must work for other lengths than those of its example.
        if mask.device.type == "cpu" and not torch.jit.is_tracing():
            ragged = Ragged.of(mask)
            flat = ragged.take(states)
            if embed:
                flat = self.embeddings(flat, ragged.position)
            for layer in layers:
                flat = layer(flat, partial(attend_ragged, ragged.groups))
            return ragged.put(flat, mask)
        if embed:
            position = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
            states = self.embeddings(states, position)
        return self._padded(states, mask, layers)

    def _padded(self, states: Tensor, mask: Tensor, layers: Iterable[Any]) -> Tensor:
        # Avoids 0 / 0 in windows without real tokens.
        allowed = mask.clone()
        allowed[:, 0] = True

        def attend(query: Tensor, key: Tensor, value: Tensor, rate: float) -> Tensor:
            query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
            seen = allowed[:, None, None, :]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=rate)
            return mixed.transpose(1, 2).flatten(2)

        for layer in layers:
            states = layer(states, attend)
        return states

    def save_pretrained(self, directory: Path) -> None:
        """Write config.json and model.safetensors in the format of transformers. Raises OSError."""
        save_model(self, directory, name="BertModel" if self.config.model_type == "bert" else "RobertaModel")


class _Embeddings(nn.Module):
    def __init__(self, config: Architecture) -> None:
        super().__init__()
        size = config.hidden_size
        padding = config.pad_token_id
        # RoBERTa's positions start after the padding id, BERT's at 0.
        self.first_position = 0 if config.model_type == "bert" else padding + 1
        self.word_embeddings = _table(config.vocab_size, size, padding)
        self.position_embeddings = _table(
            config.max_position_embeddings, size, padding if self.first_position else None
        )
        self.token_type_embeddings = _table(config.type_vocab_size, size, None)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        return cast(Tensor, self.dropout(self.embed(tokens, position)))

    def embed(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Embeddings (..., H) of ids (...), or of their word embeddings (..., H), at positions of their windows."""
        words = tokens if tokens.is_floating_point() else self.word_embeddings(tokens)
        states = words + self.token_type_embeddings.weight[0]
        states = states + self.position_embeddings(position + self.first_position)
        return cast(Tensor, self.LayerNorm(states))


def _table(entries: int, size: int, padding: int | None) -> nn.Embedding:
    """An uninitialised embedding; `Roberta` initialises it."""
    return nn.Embedding(entries, size, padding_idx=padding, _weight=torch.empty(entries, size))


def with_means(table: Tensor, entries: int, former: Mapping[int, Sequence[int]]) -> Tensor:
    """A table (V, ...) extended to (entries, ...); rows in ``former`` are the mean of the given rows, others are 0."""
    grown = table.new_zeros(entries, *table.shape[1:])
    grown[: len(table)] = table
    for row, pieces in former.items():
        if pieces:
            grown[row] = table[torch.tensor(pieces)].mean(0)
    return grown


class _Layer(nn.Module):
    def __init__(self, config: Architecture) -> None:
        super().__init__()
        size, wide = config.hidden_size, config.intermediate_size
        self.heads: int = config.num_attention_heads
        self.dropout: float = config.attention_probs_dropout_prob
        self.activation = _ACTIVATIONS[config.hidden_act]
        # Containers, which give the weights their usual names.
        projections = nn.ModuleDict({name: Linear(size, size) for name in ("query", "key", "value")})
        after, output = (
            nn.ModuleDict(
                {
                    "dense": Linear(inputs, size),
                    "LayerNorm": nn.LayerNorm(size, eps=config.layer_norm_eps),
                    "dropout": Dropout(config.hidden_dropout_prob),
                }
            )
            for inputs in (size, wide)
        )
        self.attention: Any = nn.ModuleDict({"self": projections, "output": after})
        self.intermediate: Any = nn.ModuleDict({"dense": Linear(size, wide)})
        self.output: Any = output

    def forward(self, states: Tensor, attend: Any) -> Tensor:
        """States (..., H); ``attend`` gets query, key, value (..., heads, D / heads) and the dropout rate."""
        own, after, output = self.attention.self, self.attention.output, self.output
        query, key, value = (
            project(states).unflatten(-1, (self.heads, -1)) for project in (own.query, own.key, own.value)
        )
        mixed = attend(query, key, value, self.dropout if self.training else 0.0)
        states = after.LayerNorm(after.dropout(after.dense(mixed)) + states)
        wide = self.activation(self.intermediate.dense(states))
        return cast(Tensor, output.LayerNorm(output.dropout(output.dense(wide)) + states))


def attend_ragged(
    groups: Groups,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: float = 0.0,
    *,
    upcast: bool = False,
    reach: int | None = None,
) -> Tensor:
    """Self-attention (Vaswani et al. 2017, eq. 1) in concatenated windows, (tokens, heads, D) -> (tokens, H).

    Windows of one length (``groups``: number and length) are computed together, so that no mask is needed. With
    ``upcast``, short windows are computed in float32, which is as fast and caches no kernel per number and length; the
    result may be float32. With ``reach``, tokens attend only to those at most so many places away.
    """
    mixed = []
    start = 0
    for windows, length in groups:
        part = slice(start, start + windows * length)
        shape = (windows, length)
        q, k, v = (t[part].unflatten(0, shape).transpose(1, 2) for t in (query, key, value))  # (W, heads, T, D)
        near = None if reach is None or reach >= length - 1 else _near(length, reach)
        if length >= _PLAIN_BELOW:
            seen = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=near, dropout_p=rate)
        else:
            if upcast:
                q, k, v = q.float(), k.float(), v.float()
            scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
            weights = (scores if near is None else scores.masked_fill(~near, float("-inf"))).softmax(-1)
            seen = (dropout(weights, rate) if rate else weights) @ v
        mixed.append(seen.transpose(1, 2).flatten(2).flatten(0, 1))
        start = part.stop
    if not mixed:
        return query.flatten(1)
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _near(length: int, reach: int) -> Tensor:
    """Which tokens (T, T) of a window are within reach of each other."""
    place = torch.arange(length)
    return (place[:, None] - place).abs() <= reach


def read_architecture(directory: Path) -> Architecture | None:
    """The architecture in the config.json of a directory; None if it is unreadable or not implemented here.

    Raises:
        EncoderError: its sizes are impossible.
    """
    try:
        document = read_json(directory / CONFIG_FILE)
    except (OSError, ValueError):
        return None
    if not is_supported(document):
        return None
    check_sizes(document, name=str(directory))
    return Architecture(document)


def save_model(model: Any, directory: Path, *, name: str) -> None:
    """Write config.json and model.safetensors of a model with an `Architecture`. Raises OSError."""
    document = {"architectures": [name], **model.config.document, "dtype": "float32"}
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    (directory / CONFIG_FILE).write_text(text, encoding="utf-8")
    save_tensors(directory / WEIGHTS_FILE, {key: value.detach().cpu() for key, value in model.state_dict().items()})


def load_weights(model: nn.Module, directory: Path) -> list[str]:
    """Load the weights of a directory, as float32, into a model on the meta device; returns the names of missing ones.

    Raises:
        OSError, ValueError, RuntimeError, SafetensorError: the weights cannot be read, or have other shapes.
    """
    from safetensors.torch import load_file

    found = {own_name(name): value for name, value in load_file(directory / WEIGHTS_FILE).items()}
    expected = model.state_dict()
    missing = sorted(expected.keys() - found.keys())
    wrong = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    if wrong:
        raise ValueError(
            f"{wrong[0]} has the shape {tuple(found[wrong[0]].shape)} in the weights, but "
            f"{tuple(expected[wrong[0]].shape)} according to the config.json"
        )
    if not missing:
        kept = {name: found[name].to(torch.float32) for name in expected}
        model.load_state_dict(kept, assign=True)
        model.requires_grad_(True)
    return missing


def own_name(name: str) -> str:
    """The parameter name used here for one of a task model or an old checkpoint."""
    for prefix in FAMILIES:
        name = name.removeprefix(f"{prefix}.")
    if name.endswith((".gamma", ".beta")):
        stem, _, last = name.rpartition(".")
        name = f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
    return name
