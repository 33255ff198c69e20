"""Requests and responses, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str | None, Field(description="A text; null stands for a missing one.")]

_EXAMPLES: list[Any] = [
    {"texts": "not bad at all :)"},
    {"texts": ["what a waste of time", "it was ok"], "labels": ["negative", "positive"], "abstain_below": 0.8},
    {"texts": ["not bad at all :)"], "explain": True},
]
_WORD: Any = {"word": "not", "weight": 0.41, "attention": 0.3, "start": 0, "end": 3}
_ANSWER: Any = {
    "label": "positive",
    "score": 0.916302,
    "probabilities": {"negative": 0.083698, "positive": 0.916302},
    "truncated": False,
}

_MOST_FIELDS = 20


class PredictRequest(BaseModel):
    """Texts and, as of `senthy predict`, what to do with them."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": _EXAMPLES})

    texts: str | Annotated[list[Text], Field(min_length=1, fail_fast=True)] = Field(description="One text or several.")
    labels: Annotated[list[str], Field(min_length=2, fail_fast=True)] | None = Field(
        None, description="Choose among these labels of the model only, with renormalised probabilities."
    )
    abstain_below: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="Answers with a lower probability become `unsure`; their score stays."
    )
    explain: bool = Field(False, description="Add the words of each text with their weights for its label.")

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        """A million unknown fields would be a million errors."""
        if isinstance(value, dict) and len(value) > _MOST_FIELDS:
            raise ValueError(f"{len(value):,} fields; a request has up to {len(cls.model_fields)}")
        return value


class Word(BaseModel):
    """A word of an explained text; ``start`` and ``end`` are Unicode characters of ``Explanation.text``."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WORD]})

    word: str
    weight: float = Field(description="What it adds to the logit of the label; negative if it speaks against it.")
    attention: float = Field(description="Its share of the attention of the head.")
    start: int
    end: int


class Explanation(BaseModel):
    """Why a text got its label."""

    text: str = Field(description="The text as the model reads it, cleaned.")
    label: str = Field(description="The label that is explained.")
    unread: int = Field(description="Characters at the end of the text that were not read.")
    words: list[Word]


class Answer(BaseModel):
    """The prediction for one text; label and score are null if the text is empty."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ANSWER]})

    label: str | None
    score: float | None = Field(description="The probability of the most probable label.")
    probabilities: dict[str, float]
    truncated: bool = Field(description="Whether the end of the text was not read.")
    explanation: Explanation | None = Field(None, description="With `explain` only.")


class PredictResponse(BaseModel):
    """The predictions in the order of the texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "0a1b2c3d4e5f", "predictions": [_ANSWER]}]})

    model: str = Field(description="The model that answered all of them, as in /models.")
    predictions: list[Answer]


class ModelDescription(BaseModel):
    """A model that this service answers with."""

    id: str = Field(description="The beginning of the checksum of its weights.")
    name: str
    directory: str
    head: str
    labels: list[str]
    encoder: str
    normalizer: str
    max_tokens: int = Field(description="Longer texts are truncated.")
    created: str
    valid: dict[str, float] = Field(description="Its figures on validation data.")
    explains: bool = Field(description="Whether requests may ask for explanations.")
    loaded: str = Field(description="Since when it answers.")
    published: bool = Field(description="Whether its directory still holds a model.")


class Models(BaseModel):
    """The models in use, and what a request may hold."""

    models: list[ModelDescription]
    limits: dict[str, int] = Field(description="What a request may hold, as `serve` in the configuration.")


class Health(BaseModel):
    """The state of the service."""

    status: str


class Failure(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="One sentence.")
    hint: str = Field(description="What to do about it.")
    request_id: str
