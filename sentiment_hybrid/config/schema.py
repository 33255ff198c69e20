"""The one ``Config``: frozen, bounded, documented; a name that it does not know is an error."""

from __future__ import annotations

import codecs
import difflib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sentiment_hybrid import paths

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]


def _as_text(value: Any) -> Any:
    """YAML reads 0 and 4.0 as numbers, yet as values of a column or as labels they are text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


#: A label, or a value of a column: numbers are taken as they are written.
Word = Annotated[str, BeforeValidator(_as_text)]


def _no_truth_value(value: Any) -> Any:
    # Pydantic would take true for 1.
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


class Strict(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Section(Strict):
    """Base of every section."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _plain_types(cls.model_fields[info.field_name or ""].annotation)
        return value if bool in kinds or not {int, float} & kinds else _no_truth_value(value)


def _plain_types(annotation: Any) -> frozenset[Any]:
    inside = typing.get_args(annotation) if typing.get_origin(annotation) is not Literal else ()
    return frozenset({annotation}).union(*(_plain_types(one) for one in inside)) if inside else frozenset({annotation})


class Project(Section):
    """Who this is, and the seed of everything random."""

    name: str = Field("senthy", min_length=1, max_length=100, description="Shown in results and figures.")
    seed: int = Field(42, ge=0, lt=2**32, description="Seeds weights, dropout and the order of batches.")


#: A path in which ~ is the home directory.
HomePath = Annotated[Path, AfterValidator(Path.expanduser)]


class Paths(Section):
    """Where things are read and written; relative paths count from the working directory, ~ is the home directory."""

    data_db: HomePath = Field(Path("data/tweets.db"), description="The prepared database that `senthy data` writes.")
    models_dir: HomePath = Field(Path("models"), description="Published models: <dir>/lstm_roberta_model_final, ...")
    results_dir: HomePath = Field(Path("results"), description="model_results.json, figures, predictions and runs/.")
    cache_dir: HomePath | None = Field(
        None, description="Stored token states and fitted baselines; null is the system's cache folder."
    )


class Cache(Section):
    """What the cache folder may grow to; `senthy cache` shows and clears it."""

    max_gb: float | None = Field(
        50.0,
        gt=0.0,
        le=1e6,
        description="Most that stored token states may take, all together; beyond it the encoder runs live. null is "
        "the disk's own room.",
    )


def _known_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError as error:
        raise ValueError(
            f"Python knows no encoding {name!r}; common ones are utf-8, latin-1, cp1252, utf-16"
        ) from error
    return name


class Data(Section):
    """Where texts come from, what is dropped, and how they are split."""

    source: str = Field(
        "kaggle:zphudzz/tweets-clean-posneg-v1",
        min_length=1,
        description="kaggle[:OWNER/NAME[/versions/N]], csv/tsv/jsonl/parquet file (or .gz), SQLite file, or sample.",
    )
    train_source: str | None = Field(None, description="Official training split; with test_source it replaces source.")
    valid_source: str | None = Field(None, description="Official validation split; without it, a part of train.")
    test_source: str | None = Field(None, description="Official test split.")
    table: str | None = Field(None, description="Table of an SQLite source; null detects it.")
    encoding: Annotated[str, AfterValidator(_known_encoding)] = Field(
        "utf-8", description="Character encoding of text files; Sentiment140's own file is latin-1."
    )
    quoting: Literal["auto", "minimal", "none"] = Field(
        "auto", description="Quote characters in csv/tsv: auto is minimal for csv and none for tsv."
    )
    text_column: str | None = Field(None, description="Column to train on; null detects it.")
    raw_text_column: str | None = Field(
        None, description="Column whose text decides the split; null is the raw text beside text_column, or itself."
    )
    label_column: str | None = Field(None, description="Column of labels; null detects it.")
    label_map: dict[Word, Word] | None = Field(
        None, description="Value in the file -> label, in label order, e.g. {'0': negative, '4': positive}."
    )
    unknown_labels: Literal["error", "drop"] = Field("error", description="A label not in the map: stop or drop.")
    bad_rows: Literal["error", "skip"] = Field("error", description="An unreadable row: stop, or skip and count.")
    conflicts: Literal["drop", "keep"] = Field("drop", description="Identical texts with different labels.")
    repeats: Literal["drop", "keep"] = Field("drop", description="Identical texts with one label: keep the first only.")
    normalizer: Literal["tweet", "classic", "none"] = Field("tweet", description="How texts are cleaned; see README.")
    valid_size: Share = Field(0.1, description="Share of rows (of the training rows, with official tests).")
    test_size: Share = Field(0.2, description="Share of rows held back for the test.")
    split_seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split alone; project.seed never moves a row.")
    split_key_version: Literal[1, 2] = Field(
        2, description="1 splits as databases were split before version 2 mended the rules for handles and links."
    )

    @model_validator(mode="after")
    def _splits_leave_rows(self) -> Data:
        if self.valid_size + self.test_size >= 0.95:
            raise ValueError("valid_size + test_size must leave at least 5 % of the rows for training")
        if (self.train_source is None) != (self.test_source is None):
            raise ValueError("train_source and test_source belong together")
        if self.valid_source is not None and self.train_source is None:
            raise ValueError("valid_source needs train_source and test_source")
        return self

    @field_validator("label_map")
    @classmethod
    def _two_labels(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is not None and len(set(value.values())) < 2:
            raise ValueError("must name at least two labels: it is the whole map, of every value in the file")
        return value


class ScratchEncoder(Section):
    """Size of the small RoBERTa that `encoder.name: scratch` builds and trains from the data."""

    vocab_size: int = Field(
        8000, ge=300, le=100_000, description="Byte-level BPE entries, learned on the training rows."
    )
    hidden_size: int = Field(128, ge=8, le=4096, description="Width of a token state.")
    layers: int = Field(2, ge=1, le=48, description="Transformer layers.")
    attention_heads: int = Field(4, ge=1, le=64, description="Heads per layer; must divide hidden_size.")
    intermediate_size: int = Field(512, ge=8, le=16_384, description="Width of the feed-forward layers.")
    dropout: Dropout = Field(0.1, description="Dropout inside the encoder while it trains.")
    lowercase: bool = Field(False, description="The tokenizer folds case: more whole words in a small vocabulary.")

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchEncoder:
        if self.hidden_size % self.attention_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must divide hidden_size ({self.hidden_size})")
        return self


#: Tokens that the encoder in the package reads at once.
MINI_MAX_LENGTH = 64


class Encoder(Section):
    """The shared encoder under every head."""

    name: str = Field(
        "roberta-base",
        min_length=1,
        description="Hub name, local directory, mini (ships in the package), or scratch.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub; pin it for reproducible runs.")
    trainable_layers: Annotated[int, Field(ge=0, le=1000)] | Literal["all"] = Field(
        0, description="0 freezes the encoder, N trains its last N layers, all trains everything."
    )
    dropout: Dropout | None = Field(
        None, description="Dropout of the layers that are trained; null is the encoder's own."
    )
    max_length: int = Field(
        128, ge=8, le=8192, description="Tokens per window, special tokens included; mini reads 64 at most."
    )
    max_windows: int = Field(32, ge=1, le=4096, description="Windows per text; what lies beyond is cut, and counted.")
    scratch: ScratchEncoder = Field(ScratchEncoder(), description="Used when name is scratch.")

    @model_validator(mode="before")
    @classmethod
    def _windows_of_mini(cls, value: Any) -> Any:
        """It stands for any encoder in any configuration, and reads shorter windows than others."""
        if isinstance(value, dict) and value.get("name") == paths.MINI:
            length = value.get("max_length", MINI_MAX_LENGTH + 1)
            if isinstance(length, int) and length > MINI_MAX_LENGTH:
                return {**value, "max_length": MINI_MAX_LENGTH}
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Encoder:
        if self.name == "scratch" and self.trainable_layers != "all":
            raise ValueError("a scratch encoder starts from random weights: set trainable_layers to all")
        return self


class LstmHead(Section):
    """BiLSTM, multi-head self-attention, masked pooling, MLP."""

    hidden: int = Field(256, ge=4, le=4096, description="LSTM units per direction.")
    layers: int = Field(2, ge=1, le=8, description="Stacked LSTM layers.")
    dropout: Dropout = Field(
        0.3, description="Dropout of token states (one mask per text), between layers and before the output."
    )
    attention_heads: int = Field(4, ge=1, le=64, description="Self-attention heads; must divide 2 x hidden.")

    @model_validator(mode="after")
    def _heads_divide(self) -> LstmHead:
        if (2 * self.hidden) % self.attention_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must divide 2 x hidden ({2 * self.hidden})")
        return self


class HanHead(Section):
    """Hierarchical attention: words of a window, then windows of a text."""

    hidden: int = Field(256, ge=4, le=4096, description="Recurrent units per direction.")
    layers: int = Field(1, ge=1, le=8, description="Stacked recurrent layers over words.")
    dropout: Dropout = Field(
        0.3, description="Dropout of token states (one mask per text), between layers and before the output."
    )
    cell: Literal["gru", "lstm"] = Field("gru", description="Recurrent cell; gru is the paper's.")


class LinearHead(Section):
    """Masked mean of the token states and one linear layer."""

    dropout: Dropout = Field(0.1, description="Dropout before the output.")


class Train(Section):
    """How a model is trained."""

    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="Peak rate of the head.")
    encoder_learning_rate: float = Field(2e-5, gt=0.0, le=1.0, description="Peak rate of trainable encoder layers.")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="AdamW decay; not on biases and norms.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Texts per forward pass before accumulation.")
    accumulation: int = Field(1, ge=1, le=4096, description="A step is batch_size x accumulation texts, exactly.")
    epochs: int = Field(5, ge=1, le=10_000, description="Passes over the training rows.")
    warmup_steps: int = Field(100, ge=0, le=10_000_000, description="Steps over which the rate rises from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="What the rate does after warm-up.")
    clip_norm: float | None = Field(1.0, gt=0.0, le=1e6, description="Largest gradient norm; null does not clip.")
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="Probability mass spread over all labels.")
    class_weights: Literal["none", "balanced"] | dict[Word, Annotated[float, Field(gt=0.0, le=1e6)]] = Field(
        "none", description="none, balanced (inverse frequency), or a map of label -> weight."
    )
    sample_size: int | None = Field(
        None, ge=2, le=10**12, description="First n of the training split's fixed order; null is all."
    )
    valid_sample_size: int | None = Field(
        20_000, ge=2, le=10**12, description="Bounds what validation costs; null is all."
    )
    metric: Literal["macro_f1", "accuracy", "loss"] = Field(
        "macro_f1", description="Chooses the best epoch, on the validation split."
    )
    patience: int | None = Field(
        3, ge=1, le=10_000, description="Stop after so many epochs without a better one; null never."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device has it, else fp16 on a GPU and fp32 on a CPU."
    )
    token_budget: int = Field(
        16_384,
        ge=64,
        le=10**9,
        description="Tokens per forward pass, padding included; subdivides a step, changes no result.",
    )
    checkpoint_minutes: float = Field(
        5.0, ge=0.0, le=1440.0, description="Between step checkpoints; bounds what a kill costs."
    )


Real = Annotated[float, BeforeValidator(_no_truth_value)]
Whole = Annotated[int, BeforeValidator(_no_truth_value)]


class FloatSpace(Strict):
    """A range of real numbers."""

    type: Literal["float"]
    low: Real
    high: Real
    log: bool = False
    step: Annotated[Real, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> FloatSpace:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError("a log range must start above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step ({self.step}) is more than there is between low and high")
        return self


class IntSpace(Strict):
    """A range of whole numbers, both ends included."""

    type: Literal["int"]
    low: Whole
    high: Whole
    log: bool = False
    step: Annotated[Whole, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> IntSpace:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError("a log range must start above 0")
        if self.log and self.step != 1:
            raise ValueError("log and step exclude each other")
        if self.step > self.high - self.low:
            raise ValueError(f"step ({self.step}) is more than there is between low and high")
        return self


class CategoricalSpace(Strict):
    """A list of values to choose from."""

    type: Literal["categorical"]
    choices: tuple[str | int | float | bool | None, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> CategoricalSpace:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("a choice is named twice")
        return self


Space = Annotated[FloatSpace | IntSpace | CategoricalSpace, Field(discriminator="type")]
SearchSpace = dict[str, Space]

_LR: dict[str, Any] = {"type": "float", "low": 1e-4, "high": 5e-3, "log": True}
_COMMON_SPACE: dict[str, Any] = {
    "learning_rate": _LR,
    "dropout": {"type": "float", "low": 0.1, "high": 0.5},
    "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
}
_LSTM_SPACE: dict[str, Any] = {
    **_COMMON_SPACE,
    "hidden": {"type": "categorical", "choices": [128, 256, 512]},
    "layers": {"type": "int", "low": 1, "high": 3},
    "attention_heads": {"type": "categorical", "choices": [2, 4, 8]},
}
_HAN_SPACE: dict[str, Any] = {
    **_COMMON_SPACE,
    "hidden": {"type": "categorical", "choices": [128, 256, 384]},
    "layers": {"type": "int", "low": 1, "high": 2},
}

#: Settings of `train` that a search must leave alone: they bound its cost, or choose what it is judged by.
_NOT_TUNABLE = {"epochs", "sample_size", "valid_sample_size", "metric", "patience"} | {
    "precision",
    "checkpoint_minutes",
    "token_budget",
}


class HpoFinal(Section):
    """The model that is trained with the best parameters after the search."""

    include_valid: bool = Field(
        False, description="Train it on the validation rows too, for the best trial's number of epochs."
    )


class Hpo(Section):
    """The hyper-parameter search of one model."""

    head: typing.ClassVar[type[Section]]

    enabled: bool = Field(True, description="false makes the search refuse to run.")
    n_trials: int = Field(50, ge=1, le=100_000, description="Finished and pruned trials in all.")
    epochs: int = Field(10, ge=1, le=10_000, description="Epochs of a trial.")
    sample_size: int | None = Field(10_000, ge=2, le=10**12, description="Training rows of a trial; null is all.")
    valid_sample_size: int | None = Field(
        10_000, ge=2, le=10**12, description="Validation rows of a trial; null is all."
    )
    sampler: Literal["tpe", "random", "gp", "qmc", "nsgaii"] = Field(
        "tpe", description="Optuna's sampler, which draws a trial's parameters."
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="Optuna's pruner, which gives up bad trials: median for short ones, hyperband for long."
    )
    workers: int = Field(
        1, ge=1, le=256, description="Trials at a time on this machine: one per GPU, or sharing the CPU's cores."
    )
    storage: str | None = Field(None, description="Optuna storage URL; null is an SQLite file in results_dir.")
    study_name: str | None = Field(None, description="null derives it from model, space and data.")
    timeout: float | None = Field(None, gt=0.0, le=1e9, description="Seconds after which no new trial starts.")
    final: HpoFinal = Field(HpoFinal(), description="The model trained with what the search found.")
    search_space: SearchSpace = Field(_COMMON_SPACE, description="Hyper-parameter -> range.", validate_default=True)

    @field_validator("search_space", mode="wrap")
    @classmethod
    def _names_and_ranges_fit(cls, value: Any, handler: Any) -> Any:
        """All that is wrong with a search space at once: its shape, its names, and ranges beyond a setting's bounds."""
        if not isinstance(value, dict):
            return handler(value)
        space: dict[str, Any] = {}
        problems: list[Any] = []
        for name, entry in value.items():
            try:
                space |= handler({name: entry})
            except ValidationError as error:
                problems += [{**item, "ctx": item.get("ctx", {})} for item in error.errors()]
            wrong = cls._misfit(name, space.get(name))
            if wrong:
                problems.append({"type": "value_error", "loc": (name,), "input": entry, "ctx": {"error": wrong}})
        if problems:
            raise ValidationError.from_exception_data("search_space", problems)
        return space

    @classmethod
    def _misfit(cls, name: str, space: Any) -> str:
        known = cls.tunable()
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            mean = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            return f"is no hyper-parameter of this model; {mean}"
        return _beyond_bounds(known[name], space) if space is not None else ""

    @classmethod
    def tunable(cls) -> dict[str, Any]:
        """Name -> field of what a search may vary: of the head, of the training, and of the encoder."""
        train = {name: field for name, field in Train.model_fields.items() if name not in _NOT_TUNABLE}
        encoder = {name: Encoder.model_fields[name] for name in ("trainable_layers", "max_length")}
        return {**cls.head.model_fields, **train, **encoder}


def _beyond_bounds(field: Any, space: FloatSpace | IntSpace | CategoricalSpace) -> str:
    """What a search space would try that its setting refuses; empty if nothing."""
    tried = space.choices if isinstance(space, CategoricalSpace) else (space.low, space.high)
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, Field(), *field.metadata])
    if isinstance(space, FloatSpace) and float not in _plain_types(field.annotation):
        return "takes no fractions: use `type: int`, or `type: categorical` with choices"
    for value in tried:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            return f"{value!r} is outside what the setting allows ({error.errors()[0]['msg'].removeprefix('Input ')})"
    return ""


class LstmHpo(Hpo):
    """The search of `lstm`."""

    head = LstmHead
    search_space: SearchSpace = Field(_LSTM_SPACE, description="Hyper-parameter -> range.", validate_default=True)


class HanHpo(Hpo):
    """The search of `han`."""

    head = HanHead
    search_space: SearchSpace = Field(_HAN_SPACE, description="Hyper-parameter -> range.", validate_default=True)


class LinearHpo(Hpo):
    """The search of `linear`."""

    head = LinearHead


class LstmModel(Section):
    """Everything about the `lstm` model."""

    head: LstmHead = Field(LstmHead(), description="Architecture.")
    train: Train = Field(Train(), description="Training.")
    hpo: LstmHpo = Field(LstmHpo(), description="Search.")


class HanModel(Section):
    """Everything about the `han` model."""

    head: HanHead = Field(HanHead(), description="Architecture.")
    train: Train = Field(Train(), description="Training.")
    hpo: HanHpo = Field(HanHpo(), description="Search.")


class LinearModel(Section):
    """Everything about the `linear` model, the rung that the others must beat."""

    head: LinearHead = Field(LinearHead(), description="Architecture.")
    train: Train = Field(Train(), description="Training.")
    hpo: LinearHpo = Field(LinearHpo(), description="Search.")


class Joint(Section):
    """Several heads trained together on one encoder, `--model joint`; their architectures stand in their sections."""

    models: tuple[Literal["lstm", "han", "linear"], ...] = Field(
        ("lstm", "han"), min_length=2, description="The heads; their losses are summed."
    )
    train: Train = Field(Train(), description="Training.")
    further_source: str | None = Field(
        None,
        min_length=1,
        description="Labelled texts, as in data.source, beside the training rows in every epoch.",
    )
    further_label_map: dict[Word, Word] | None = Field(
        None, description="As data.label_map; a value that is not in it leaves its row out."
    )
    further_partial: bool = Field(
        False,
        description="Whether their labels were chosen among those that occur alone: nothing is learned of the others.",
    )
    further_repeat: int = Field(1, ge=1, le=1000, description="How often an epoch has each of them.")
    further_valid_size: Share = Field(0.1, description="Share of them that validates instead; of partial ones none.")
    heads_from: HomePath | None = Field(
        None, description="A pack whose heads go on (its encoder is DIR/encoder, for encoder.name); null: new ones."
    )

    @field_validator("models")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a model is named twice")
        return value


class Pretrain(Section):
    """Masked-language-model training of an encoder on texts without labels."""

    base: str | None = Field(
        None,
        min_length=1,
        description="Where it starts: scratch (sizes in encoder.scratch), a hub name, a directory; null: encoder.name.",
    )
    output_dir: HomePath = Field(
        Path("models/pretrained_encoder"), description="The encoder's directory, for encoder.name."
    )
    source: str | None = Field(
        None, min_length=1, description="Texts, as in data.source; null is the training split of paths.data_db."
    )
    added_tokens: HomePath | None = Field(
        None, description="A UTF-8 file, one per line, of texts that become tokens of their own, such as emoji."
    )
    valid_size: float = Field(
        0.01, gt=0.0, lt=0.5, description="Share of a source's texts held out to measure perplexity on."
    )
    mask_probability: float = Field(
        0.15, gt=0.0, le=0.9, description="Share of tokens to predict; of these 80 % are hidden, 10 % exchanged."
    )
    dropout: Dropout | None = Field(
        None, description="Dropout while pretraining; null is the encoder's own, 0 suits few passes over much text."
    )
    learning_rate: float = Field(5e-4, gt=0.0, le=1.0, description="Peak rate; 1e-4 or less for a trained encoder.")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="AdamW decay; not on biases and norms.")
    batch_size: int = Field(256, ge=1, le=65_536, description="Texts per forward pass before accumulation.")
    accumulation: int = Field(1, ge=1, le=4096, description="A step is batch_size x accumulation texts, exactly.")
    epochs: int = Field(1, ge=1, le=10_000, description="Passes over the texts; each hides other tokens.")
    warmup_steps: int = Field(500, ge=0, le=10_000_000, description="Steps over which the rate rises from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="What the rate does after warm-up.")
    clip_norm: float | None = Field(1.0, gt=0.0, le=1e6, description="Largest gradient norm; null does not clip.")
    sample_size: int | None = Field(None, ge=2, le=10**12, description="First n texts in a fixed order; null is all.")
    valid_sample_size: int | None = Field(
        10_000, ge=2, le=10**12, description="Held-out texts that are measured after each epoch; null is all."
    )
    patience: int | None = Field(
        None, ge=1, le=10_000, description="Stop after so many epochs without a better one; null never."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device has it, else fp16 on a GPU and fp32 on a CPU."
    )
    token_budget: int = Field(
        16_384, ge=64, le=10**9, description="Tokens per forward pass, padding included; changes no result."
    )
    checkpoint_minutes: float = Field(
        5.0, ge=0.0, le=1440.0, description="Between step checkpoints; bounds what a kill costs."
    )

    def as_train(self) -> Train:
        """The same for the loop, which minimises the held-out loss; encoder and output layer learn at one rate."""
        shared = {name: getattr(self, name) for name in Train.model_fields if name in type(self).model_fields}
        return Train(**shared, encoder_learning_rate=self.learning_rate, metric="loss")


class Finetune(Section):
    """How a trained model is fitted to further texts; all that is not here is as in the model's own `train`."""

    epochs: int = Field(3, ge=1, le=10_000, description="Passes over the new training rows.")
    learning_rate: float = Field(
        2e-4, gt=0.0, le=1.0, description="Peak rate of the head; it has learned already, so less than a fresh one's."
    )
    encoder_learning_rate: float = Field(
        1e-5, gt=0.0, le=1.0, description="Peak rate of the encoder's top trainable layer."
    )
    layer_decay: float | None = Field(
        None, gt=0.0, le=1.0, description="Rate of a layer k below the top: encoder rate x layer_decay^k; null is 1."
    )
    trainable_layers: Annotated[int, Field(ge=0, le=1000)] | Literal["all"] | None = Field(
        None, description="Encoder layers to train, as in encoder; null: as the model was trained."
    )
    batch_size: int | None = Field(None, ge=1, le=65_536, description="Texts per batch; null is the model's own.")
    sample_size: int | None = Field(
        None, ge=2, le=10**12, description="First n of the new training rows' fixed order; null is all."
    )
    valid_size: Share = Field(0.1, description="Share of the new rows that chooses the best epoch.")
    test_size: Share = Field(0.2, description="Share of the new rows held back for testing before and after.")
    metric: Literal["macro_f1", "accuracy", "loss"] | None = Field(
        None, description="Chooses the best epoch, on the new validation rows; null is the model's own."
    )
    patience: int | None = Field(
        2, ge=1, le=10_000, description="Stop after so many epochs without a better one; null never."
    )

    @model_validator(mode="after")
    def _splits_leave_rows(self) -> Finetune:
        if self.valid_size + self.test_size >= 0.95:
            raise ValueError("valid_size + test_size must leave at least 5 % of the rows for training")
        return self


class Test(Section):
    """How a model is tested."""

    __test__ = False  # pytest, this is no test class

    sample_size: int | None = Field(
        None, ge=2, le=10**12, description="First n of the split's fixed order; null is all."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Level of the intervals.")
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples behind each interval.")
    baseline: bool = Field(True, description="Test TF-IDF + logistic regression on the same rows.")


#: The training of several heads together, where a model is named.
JOINT = "joint"


class Config(Section):
    """Everything that a command needs to know."""

    project: Project = Field(Project(), description="Name and seed.")
    paths: Paths = Field(Paths(), description="Files and folders.")
    cache: Cache = Field(Cache(), description="Room for stored token states.")
    data: Data = Field(Data(), description="Sources, cleaning, splits.")
    encoder: Encoder = Field(Encoder(), description="The shared encoder.")
    lstm: LstmModel = Field(LstmModel(), description="The LSTM model.")
    han: HanModel = Field(HanModel(), description="The hierarchical-attention model.")
    linear: LinearModel = Field(LinearModel(), description="The linear model.")
    joint: Joint = Field(Joint(), description="Heads trained together.")
    pretrain: Pretrain = Field(Pretrain(), description="Pretraining of an encoder.")
    finetune: Finetune = Field(Finetune(), description="Fine-tuning.")
    test: Test = Field(Test(), description="Testing.")

    def model(self, name: str) -> LstmModel | HanModel | LinearModel:
        """The section of one model. Raises KeyError for a name that is not in MODEL_NAMES."""
        if name not in MODEL_NAMES:
            raise KeyError(name)
        section: LstmModel | HanModel | LinearModel = getattr(self, name)
        return section

    def heads(self, name: str) -> tuple[str, ...]:
        """The heads that a training has: one, or those of `joint`."""
        return self.joint.models if name == JOINT else (name,)

    def training(self, name: str) -> Train:
        """How one model, or `joint`, is trained. Raises KeyError for another name."""
        return self.joint.train if name == JOINT else self.model(name).train

    def to_keep(self) -> Config:
        """The same for a run or a result, without the storages of searches: a URL may hold a password."""
        sections = {}
        for name in MODEL_NAMES:
            section = self.model(name)
            sections[name] = section.model_copy(update={"hpo": section.hpo.model_copy(update={"storage": None})})
        return self.model_copy(update=sections)


#: Names of the heads: the sections of Config that have one. The registry of heads must name the same (a test says so).
MODEL_NAMES: tuple[str, ...] = tuple(
    name for name, field in Config.model_fields.items() if "head" in getattr(field.annotation, "model_fields", ())
)
