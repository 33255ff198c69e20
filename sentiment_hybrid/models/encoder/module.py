"""The encoder as a module, frozen in part or as a whole: token ids to token states; and its fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from sentiment_hybrid.errors import ConfigError, EncoderError
from sentiment_hybrid.models.encoder.cpu_inference import CpuEncoder, has_layout
from sentiment_hybrid.models.encoder.cpu_products import Kind
from sentiment_hybrid.models.encoder.roberta import Roberta
from sentiment_hybrid.models.encoder.static import Static

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    #: Our implementations, or one of transformers.
    Model: TypeAlias = Roberta | Static | PreTrainedModel

#: Our implementations, which are called with ids or embeddings and a mask.
OWN = (Roberta, Static)

_LAYER_LISTS = {"layer", "layers", "h", "block", "blocks"}

#: Config fields that affect what an encoder computes from given weights. An explicit list, so that fields added by
#: later versions of transformers do not change fingerprints.
_ARCHITECTURE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "max_position_embeddings",
    "pad_token_id",
)
#: The same for fields of some families only (DeBERTa, MPNet); hashed only if they are set.
_RELATIVE_POSITIONS = (
    "relative_attention",
    "pos_att_type",
    "position_buckets",
    "max_relative_positions",
    "share_att_key",
    "norm_rel_ebd",
    "conv_act",
)


class Encoder(nn.Module):
    """An encoder, token ids -> token states, of which all layers, the last N or none are trained.

    The frozen part always stays in eval mode, so that its states are deterministic. ``stored_layer`` is the number of
    layers whose output can be stored: all layers of a frozen encoder, or those below the trained ones if the model can
    continue from there; otherwise None.

    Raises:
        ConfigError: ``trainable_layers`` exceeds the number of layers.
        EncoderError: the layers of the architecture cannot be found.
    """

    def __init__(self, model: Model, trainable_layers: int | Literal["all"] = 0) -> None:
        super().__init__()
        self.model = model
        self.trainable_layers = trainable_layers
        self.hidden_size: int = model.config.hidden_size
        self.frozen = trainable_layers == 0
        self.stored_layer: int | None = None
        model.requires_grad_(trainable_layers == "all")
        if trainable_layers != "all":
            for layer in _last_layers(model, trainable_layers):
                layer.requires_grad_(True)
            if self.frozen or isinstance(model, Roberta):
                self.stored_layer = int(model.config.num_hidden_layers) - trainable_layers
        self._cpu_encoder: CpuEncoder | None = None
        self.train(self.training)

    @contextlib.contextmanager
    def prepared(self, kind: Kind) -> Iterator[None]:
        """Within the block, passes without gradient use weights laid out for inference, which must not be changed.

        Without effect if there is no such layout (other devices and families), or one of this kind is in use.

        Raises:
            EncoderError: int8 for another family.
            ValueError: int8 is not supported on this machine.
        """
        before = self._cpu_encoder
        if kind == "int8" and not has_layout(self.model):
            raise EncoderError(
                "int8 supports RoBERTa, BERT and usual ModernBERT encoders only, not this "
                f"{self.model.config.model_type}",
                hint="Use --precision auto, or an exported model: senthy export.",
            )
        if has_layout(self.model) and self.model.device.type == "cpu" and (not before or before.kind != kind):
            layers = self.model.config.num_hidden_layers if self.stored_layer is None else self.stored_layer
            self._cpu_encoder = CpuEncoder(self.model, kind, layers=layers)
        try:
            yield
        finally:
            self._cpu_encoder = before

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token states (W, T, H) of ``input_ids`` (W, T); ids on padding are ignored."""
        if self.frozen:
            return self.below(input_ids, attention_mask)
        if self.stored_layer is not None:
            return self.above(self.below(input_ids, attention_mask), attention_mask)
        return self._states(input_ids, attention_mask.bool())

    @torch.no_grad()
    def below(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States (W, T, H) of ``input_ids`` (W, T) after the frozen layers, without gradient.

        Raises:
            ValueError: ``stored_layer`` is None.
        """
        if self.stored_layer is None:
            raise ValueError("this encoder has no separate frozen layers")
        mask = attention_mask.bool()
        if self._cpu_encoder is not None:
            return self._cpu_encoder(input_ids, mask)
        if isinstance(self.model, Roberta):
            return self.model.states(input_ids, mask, last=self.stored_layer)
        return self._states(input_ids, mask)

    def above(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """States (W, T, H) of :meth:`below` after the trained layers; unchanged for a frozen encoder."""
        if self.frozen or not isinstance(self.model, Roberta) or self.stored_layer is None:
            return states
        return self.model.above(states, attention_mask.bool(), first=self.stored_layer)

    def word_embeddings(self, input_ids: Tensor) -> Tensor:
        """What stands for the tokens of ``input_ids`` (...) before the first layer, (..., E); no gradient."""
        return cast(Tensor, self.model.get_input_embeddings()(input_ids)).detach()

    def of_embeddings(self, embedded: Tensor, attention_mask: Tensor) -> Tensor:
        """Token states (W, T, H) of word embeddings (W, T, E); differentiable in them, whatever is frozen."""
        mask = attention_mask.bool()
        if isinstance(self.model, OWN):
            return cast(Tensor, self.model(embedded, mask))
        output = self.model(inputs_embeds=embedded, attention_mask=mask.long(), return_dict=True)
        return cast(Tensor, output.last_hidden_state)

    def _states(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        if self._cpu_encoder is not None and not torch.is_grad_enabled():
            return self._cpu_encoder(input_ids, mask)
        if isinstance(self.model, OWN):
            return cast(Tensor, self.model(input_ids, mask))
        pad = self.model.config.pad_token_id
        if pad is not None:
            # RoBERTa numbers positions by counting ids other than the padding id.
            input_ids = input_ids.masked_fill(~mask, pad)
        output = self.model(input_ids=input_ids, attention_mask=mask.long(), return_dict=True)
        return cast(Tensor, output.last_hidden_state)

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode of the trained part; the frozen part stays in eval mode."""
        super().train(mode)
        if self.trainable_layers != "all":
            self.model.eval()
            for layer in _last_layers(self.model, self.trainable_layers):
                layer.train(mode)
        return self


def set_dropout(model: nn.Module, share: float) -> None:
    """Set the rate of all dropout in an encoder, including that of attention."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout", None), float):  # attention
            module.dropout = share  # type: ignore[assignment]


def depths(model: Model) -> dict[str, int]:
    """Parameter name -> number of layers above it: 0 in the top layer, the number of layers in the embeddings.

    Other parameters, such as those of a final norm, count as part of the top layer.

    Raises:
        EncoderError: the layers of this architecture cannot be separated.
    """
    found = _layer_list(model)
    if found is None:
        raise EncoderError(
            f"the layers of a {model.config.model_type} encoder cannot be separated, so they cannot have rates of "
            "their own",
            hint="Set finetune.layer_decay to null, or use a RoBERTa- or BERT-like encoder.",
        )
    prefix, layers = f"{found[0]}.", len(found[1])
    result = {}
    for name, _ in model.named_parameters():
        if name.startswith(prefix):
            result[name] = layers - 1 - int(name[len(prefix) :].partition(".")[0])
        else:
            result[name] = layers if "embed" in name else 0
    return result


def max_positions(model: Model) -> int | None:
    """The maximum number of tokens of a window, with special tokens; None if the architecture has no limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    # RoBERTa's positions start after the padding id: of 514, 512 can be used.
    return int(positions) - (padding + 1 if padding is not None else 0)


def check_max_length(model: Model, max_length: int, *, name: str) -> None:
    """Raise ConfigError if the encoder cannot process windows of ``max_length`` tokens."""
    most = max_positions(model)
    if most is not None and max_length > most:
        raise ConfigError(
            f"encoder.max_length is {max_length}, but {name} reads at most {most} tokens",
            hint=f"Set encoder.max_length to {most} or less; longer texts are read in several windows.",
        )


def encoder_fingerprint(model: Model) -> str:
    """sha256 (hex) of the encoder's architecture and its weights as float32, without the pooler.

    The same for a copy from the hub, a local one and one inside a model directory.
    """
    digest = hashlib.sha256()
    config = model.config
    for field in _ARCHITECTURE:
        digest.update(f"{field}={getattr(config, field, None)}\n".encode())
    for field in _RELATIVE_POSITIONS:
        if (value := getattr(config, field, None)) is not None:
            digest.update(f"{field}={value}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("pooler."):
            continue
        digest.update(f"{name}{tuple(tensor.shape)}\n".encode())
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(array.astype("<f4", copy=False).reshape(-1).data)
    return digest.hexdigest()


def _last_layers(model: Model, count: int) -> list[nn.Module]:
    """The last ``count`` transformer layers."""
    if count == 0:
        return []
    total = int(model.config.num_hidden_layers)
    if count > total:
        raise ConfigError(
            f"trainable_layers is {count}, but this encoder has {total} layers",
            hint=f"Use 0 to {total}, or all (which trains the embeddings too).",
        )
    _, layers = _layer_list(model) or ("", None)
    if layers is None:
        raise EncoderError(
            f"the layers of a {model.config.model_type} encoder cannot be separated, so its last {count} "
            "cannot be trained alone",
            hint="Set encoder.trainable_layers to 0 or all, or use a RoBERTa- or BERT-like encoder.",
        )
    return list(layers)[total - count :]


def _layer_list(model: Model) -> tuple[str, nn.ModuleList] | None:
    """The name of the list of transformer layers, and the layers from bottom to top; None if they are not found."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and name.split(".")[-1] in _LAYER_LISTS
        and len(module) == int(model.config.num_hidden_layers)
    ]
    return min(found, key=lambda item: item[0].count(".")) if found else None
