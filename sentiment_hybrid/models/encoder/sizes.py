"""Limits on the sizes in the config.json of an encoder, checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sentiment_hybrid.errors import EncoderError, count

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Sizes(BaseModel):
    """Limits are several times the sizes of any published encoder; missing fields have defaults of their family."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    hidden_size: Annotated[int, Field(ge=1, le=16_384)] | None = None
    num_hidden_layers: Annotated[int, Field(ge=0, le=512)] | None = None
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    intermediate_size: Annotated[int, Field(ge=1, le=131_072)] | None = None
    # Some families write -1 or 0 for no limit.
    max_position_embeddings: Annotated[int, Field(ge=-1, le=1_048_576)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=4_000_000)] | None = None
    type_vocab_size: Annotated[int, Field(ge=0, le=65_536)] | None = None
    pad_token_id: Annotated[int, Field(ge=-1, lt=4_000_000)] | None = None
    layer_norm_eps: Share | None = None
    hidden_dropout_prob: Share | None = None
    attention_probs_dropout_prob: Share | None = None

    @model_validator(mode="after")
    def _heads_divide(self) -> _Sizes:
        if self.hidden_size and self.num_attention_heads and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must divide hidden_size ({self.hidden_size})"
            )
        return self


def check_sizes(facts: Mapping[str, Any] | object, *, name: str) -> None:
    """Refuse impossible sizes: building such an encoder would exhaust the memory, or never finish.

    ``facts`` are the content of a config.json, or the configuration that transformers has read from it, whose
    attributes have the same names in all families.

    Raises:
        EncoderError: sizes are out of bounds or have another type; all of them are named.
    """
    known = {
        field: facts.get(field) if isinstance(facts, Mapping) else getattr(facts, field, None)
        for field in _Sizes.model_fields
    }
    try:
        _Sizes.model_validate(known)
    except ValidationError as error:
        wrong = "; ".join(
            f"{item['loc'][0]}: {item['msg']}, not {str(item['input'])[:40]}" if item["loc"] else item["msg"]
            for item in error.errors()
        )
        raise EncoderError(
            f"the config.json of {name} cannot be true: {wrong}", hint="Copy or save it again."
        ) from error


def check_weights_suffice(described: int, there: int, *, name: str) -> None:
    """Raises EncoderError if a configuration describes far more weights than the files have; others would be random."""
    if described > 1.1 * there + 1_000_000:
        raise EncoderError(
            f"the config.json of {name} describes {count(described, 'weight')}, but its files hold {there:,}",
            hint="Copy or save it again.",
        )
