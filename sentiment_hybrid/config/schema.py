"""``Config``: every setting with its type, bounds, default and meaning; frozen, and unknown names are errors."""

from __future__ import annotations

import codecs
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from sentiment_hybrid import paths

# --- types of values -------------------------------------------------------------------------------------------------


def _as_text(value: Any) -> Any:
    """YAML reads 0 and 4.0 as numbers, yet as values of a column or as labels they are text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _not_a_bool(value: Any) -> Any:
    # Pydantic would accept true as 1.
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    return value


def _known_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError as error:
        raise ValueError(
            f"{name!r} is not an encoding that Python knows; common ones are utf-8, latin-1, cp1252, utf-16"
        ) from error
    return name


#: A label, or a value of a column: numbers are kept as they are written.
LabelText = Annotated[str, BeforeValidator(_as_text)]
#: A path in which ~ is the home directory.
HomePath = Annotated[Path, AfterValidator(Path.expanduser)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Rows = Annotated[int, Field(ge=2, le=10**12)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Width = Annotated[int, Field(ge=4, le=4096)]
Layers = Annotated[int, Field(ge=1, le=8)]
AttentionHeads = Annotated[int, Field(ge=1, le=64)]
TrainableLayers = Annotated[int, Field(ge=0, le=1000)] | Literal["all"]
Metric = Literal["macro_f1", "accuracy", "loss"]


class Strict(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Section(Strict):
    """Base of every section."""

    @field_validator("*", mode="before")
    @classmethod
    def _bools_are_not_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        types = _plain_types(cls.model_fields[info.field_name or ""].annotation)
        return value if bool in types or not {int, float} & types else _not_a_bool(value)


def _plain_types(annotation: Any) -> frozenset[Any]:
    inside = typing.get_args(annotation) if typing.get_origin(annotation) is not Literal else ()
    return frozenset({annotation}).union(*(_plain_types(one) for one in inside)) if inside else frozenset({annotation})


def _leaves_training_rows(section: Any) -> Any:
    if section.valid_size + section.test_size >= 0.95:
        raise ValueError("valid_size + test_size must leave at least 5 % of the rows for training")
    return section


# --- project, files, data, encoder -----------------------------------------------------------------------------------


class Project(Section):
    """Name of the project, and its random seed."""

    name: str = Field("senthy", min_length=1, max_length=100, description="Shown in results and figures.")
    seed: Seed = Field(42, description="Seed of weights, dropout and batch order; it never affects the splits.")


class Paths(Section):
    """Where files are read and written. Relative paths start at the working directory; ~ is the home directory."""

    data_db: HomePath = Field(
        Path("data/tweets.db"), description="Database of prepared texts that `senthy data` writes."
    )
    models_dir: HomePath = Field(Path("models"), description="Trained models: lstm_roberta_model_final/ and so on.")
    results_dir: HomePath = Field(Path("results"), description="model_results.json, figures, predictions and runs/.")
    cache_dir: HomePath | None = Field(
        None, description="Cached token states, fitted baselines, NLTK data; null is the system's cache directory."
    )


class Cache(Section):
    """Size of the cache directory. `senthy cache` shows and clears it."""

    max_gb: float | None = Field(
        50.0,
        gt=0.0,
        le=1e6,
        description="Limit in GB for all cached token states; beyond it the encoder runs in every epoch, which is "
        "slow. null is limited by free disk space only.",
    )


class Data(Section):
    """Where texts come from, which rows are dropped, and how they are split."""

    source: str = Field(
        "kaggle:zphudzz/tweets-clean-posneg-v1",
        min_length=1,
        description="kaggle[:OWNER/NAME[/versions/N]], a csv, tsv, jsonl or parquet file (or .gz), an SQLite database, "
        "or sample.",
    )
    train_source: str | None = Field(None, description="Official training split; with test_source it replaces source.")
    valid_source: str | None = Field(
        None, description="Official validation split; null takes valid_size from the training rows."
    )
    test_source: str | None = Field(
        None, description="Official test split; training rows that also occur in it are left out."
    )
    table: str | None = Field(None, description="Table of an SQLite source; null detects it.")
    encoding: Encoding = Field("utf-8", description="Encoding of text files; Sentiment140's own file is latin-1.")
    quoting: Literal["auto", "minimal", "none"] = Field(
        "auto", description="Quote characters in csv and tsv: auto is minimal for csv and none for tsv."
    )
    text_column: str | None = Field(
        None, description="Column to train on; null detects it and prefers raw text to cleaned text."
    )
    raw_text_column: str | None = Field(
        None, description="Column that determines the split; null is the raw text beside text_column, or itself."
    )
    label_column: str | None = Field(None, description="Column of labels; null detects it.")
    label_map: dict[LabelText, LabelText] | None = Field(
        None, description="Value in the file -> label, in label order, e.g. {0: negative, 4: positive}."
    )
    unknown_labels: Literal["error", "drop"] = Field("error", description="What to do with a label not in the map.")
    bad_rows: Literal["error", "skip"] = Field(
        "error", description="What to do with an unreadable row; skip counts it."
    )
    conflicts: Literal["drop", "keep"] = Field("drop", description="Identical texts with different labels.")
    repeats: Literal["drop", "keep"] = Field("drop", description="Identical texts with the same label after the first.")
    normalizer: Literal["tweet", "classic", "none"] = Field(
        "tweet",
        description="Text cleaning: tweet keeps case, emoji and negation; classic removes stopwords and lemmatizes.",
    )
    valid_size: Fraction = Field(0.1, description="Fraction of the rows for validation.")
    test_size: Fraction = Field(0.2, description="Fraction of the rows held out for testing.")
    split_seed: Seed = Field(0, description="Seed of the splits alone.")

    _leaves_training_rows = model_validator(mode="after")(_leaves_training_rows)

    @model_validator(mode="after")
    def _official_splits_belong_together(self) -> Data:
        if (self.train_source is None) != (self.test_source is None):
            raise ValueError("train_source and test_source must be given together")
        if self.valid_source is not None and self.train_source is None:
            raise ValueError("valid_source needs train_source and test_source")
        return self

    @field_validator("label_map")
    @classmethod
    def _two_labels(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is not None and len(set(value.values())) < 2:
            raise ValueError("must map to at least two labels: it lists every value in the file")
        return value


class ScratchEncoder(Section):
    """The small RoBERTa that `encoder.name: scratch` builds and trains on the data."""

    vocab_size: int = Field(
        8000, ge=300, le=100_000, description="Byte-level BPE tokens, learned on the training rows."
    )
    hidden_size: int = Field(128, ge=8, le=4096, description="Size of a token state.")
    layers: int = Field(2, ge=1, le=48, description="Transformer layers.")
    attention_heads: AttentionHeads = Field(4, description="Heads per layer; must divide hidden_size.")
    intermediate_size: int = Field(512, ge=8, le=16_384, description="Size of the feed-forward layers.")
    dropout: Dropout = Field(0.1, description="Dropout inside the encoder while it trains.")
    lowercase: bool = Field(False, description="Lowercase texts: more whole words in a small vocabulary.")

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchEncoder:
        if self.hidden_size % self.attention_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must divide hidden_size ({self.hidden_size})")
        return self


#: Tokens per window of the encoder in the package.
MINI_MAX_LENGTH = 64


class Encoder(Section):
    """The encoder that all heads share."""

    name: str = Field(
        "roberta-base",
        min_length=1,
        description="Hugging Face name, local directory, mini (ships in the package), or scratch.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub; pin it for reproducible runs.")
    trainable_layers: TrainableLayers = Field(
        0, description="0 freezes the encoder, which is fast; N trains its last N layers; all trains everything."
    )
    dropout: Dropout | None = Field(None, description="Dropout of trainable layers; null is the encoder's own.")
    max_length: int = Field(
        128,
        ge=8,
        le=8192,
        description=f"Tokens per window, including special tokens; mini takes {MINI_MAX_LENGTH} at most.",
    )
    max_windows: int = Field(32, ge=1, le=4096, description="Windows per text; longer texts are cut, and counted.")
    scratch: ScratchEncoder = Field(ScratchEncoder(), description="Used when name is scratch.")

    @model_validator(mode="before")
    @classmethod
    def _windows_of_mini(cls, value: Any) -> Any:
        """It can replace the encoder of any configuration, and its windows are shorter than others."""
        if isinstance(value, dict) and value.get("name") == paths.MINI:
            length = value.get("max_length", MINI_MAX_LENGTH + 1)
            if isinstance(length, int) and length > MINI_MAX_LENGTH:
                return {**value, "max_length": MINI_MAX_LENGTH}
        return value

    @model_validator(mode="after")
    def _scratch_is_trained(self) -> Encoder:
        if self.name == "scratch" and self.trainable_layers != "all":
            raise ValueError("a scratch encoder starts from random weights: set trainable_layers to all")
        return self


# --- training --------------------------------------------------------------------------------------------------------


class Optimization(Section):
    """What every training needs, of labels or of an encoder."""

    learning_rate: Rate = Field(
        1e-3, description="Peak learning rate of the head; 1e-4 to 5e-3 suits a new head on a frozen encoder."
    )
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="AdamW weight decay; not for biases and norms.")
    batch_size: BatchSize = Field(32, description="Texts per batch.")
    accumulation: int = Field(1, ge=1, le=4096, description="Batches per optimizer step.")
    epochs: Epochs = Field(5, description="Passes over the training rows.")
    warmup_steps: int = Field(100, ge=0, le=10_000_000, description="Steps over which the rate rises from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Learning rate after warm-up.")
    clip_norm: float | None = Field(1.0, gt=0.0, le=1e6, description="Maximum gradient norm; null does not clip.")
    sample_size: Rows | None = Field(
        None, description="Train on the first N rows of the split's fixed order; null is all."
    )
    valid_sample_size: Rows | None = Field(20_000, description="Rows to validate on after each epoch; null is all.")
    patience: Epochs | None = Field(3, description="Stop after N epochs without improvement; null never stops early.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 if the device supports it, else fp16 on a GPU and fp32 on a CPU."
    )
    token_budget: int = Field(
        16_384,
        ge=64,
        le=10**9,
        description="Tokens per forward pass, including padding; lower it to save memory. It does not change results.",
    )
    checkpoint_minutes: float = Field(
        5.0, ge=0.0, le=1440.0, description="Minutes between checkpoints: what a killed process loses at most."
    )


class Train(Optimization):
    """How a model is trained."""

    encoder_learning_rate: Rate = Field(2e-5, description="Peak learning rate of trainable encoder layers.")
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="Probability mass spread over all labels.")
    class_weights: Literal["none", "balanced"] | dict[LabelText, Annotated[float, Field(gt=0.0, le=1e6)]] = Field(
        "none", description="none, balanced (inverse frequency), or a map of label to weight."
    )
    metric: Metric = Field("macro_f1", description="Selects the best epoch, on the validation split.")


# --- hyperparameter search -------------------------------------------------------------------------------------------

Real = Annotated[float, BeforeValidator(_not_a_bool)]
Whole = Annotated[int, BeforeValidator(_not_a_bool)]


class _Range(Strict):
    """The checks of both kinds of range."""

    @model_validator(mode="after")
    def _consistent(self) -> Any:
        low, high, log, step = (getattr(self, name) for name in ("low", "high", "log", "step"))
        if not low < high:
            raise ValueError(f"low ({low}) must be below high ({high})")
        if log and low <= 0:
            raise ValueError("a log range must start above 0")
        if log and step != type(self).model_fields["step"].default:
            raise ValueError("log and step cannot be combined")
        if step is not None and step > high - low:
            raise ValueError(f"step ({step}) is larger than the range from low to high")
        return self


class FloatSpace(_Range):
    """A range of real numbers."""

    type: Literal["float"]
    low: Real
    high: Real
    log: bool = False
    step: Annotated[Real, Field(gt=0.0)] | None = None


class IntSpace(_Range):
    """A range of whole numbers, both ends included."""

    type: Literal["int"]
    low: Whole
    high: Whole
    log: bool = False
    step: Annotated[Whole, Field(ge=1)] = 1


class CategoricalSpace(Strict):
    """A list of values to choose from."""

    type: Literal["categorical"]
    choices: tuple[str | int | float | bool | None, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> CategoricalSpace:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("a choice is listed twice")
        return self


Space = Annotated[FloatSpace | IntSpace | CategoricalSpace, Field(discriminator="type")]
SearchSpace = dict[str, Space]

_COMMON_SPACE: dict[str, Any] = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 5e-3, "log": True},
    "dropout": {"type": "float", "low": 0.1, "high": 0.5},
    "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
}

#: Settings of `train` that a search must not vary: they bound its cost, or define what it is judged by.
_NOT_TUNABLE = {"epochs", "sample_size", "valid_sample_size", "metric", "patience"} | {
    "precision",
    "checkpoint_minutes",
    "token_budget",
}


class HpoFinal(Section):
    """The model that is trained with the best hyperparameters after the search."""

    include_valid: bool = Field(
        False, description="Train it on the validation rows too, for the best trial's number of epochs."
    )


def _search_space(default: Mapping[str, Any]) -> Any:
    return Field(
        dict(default),
        description="Hyperparameter -> range: {type: float or int, low, high, log, step} or {type: categorical, "
        "choices}.",
        validate_default=True,
    )


class Hpo(Section):
    """The hyperparameter search."""

    #: The heads whose settings the search space may name.
    heads: ClassVar[tuple[type[Section], ...]]

    enabled: bool = Field(True, description="false makes the search refuse to run.")
    n_trials: int = Field(50, ge=1, le=100_000, description="Trials in all, including pruned ones.")
    epochs: Epochs = Field(10, description="Epochs per trial.")
    sample_size: Rows | None = Field(10_000, description="Training rows per trial; null is all.")
    valid_sample_size: Rows | None = Field(10_000, description="Validation rows per trial; null is all.")
    sampler: Literal["tpe", "random", "gp", "qmc", "nsgaii"] = Field("tpe", description="Optuna sampler.")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="Optuna pruner: median for short trials, hyperband for long ones."
    )
    workers: int = Field(
        1, ge=1, le=256, description="Parallel trials on this machine: one per GPU, or sharing the CPU's cores."
    )
    storage: str | None = Field(None, description="Optuna storage URL; null is an SQLite file in results_dir.")
    study_name: str | None = Field(
        None, description="null derives it from model, space and data, so that the same search resumes."
    )
    timeout: float | None = Field(None, gt=0.0, le=1e9, description="Seconds after which no new trial starts.")
    final: HpoFinal = Field(HpoFinal(), description="The model trained with the best hyperparameters.")
    search_space: SearchSpace = _search_space(_COMMON_SPACE)

    @field_validator("search_space", mode="wrap")
    @classmethod
    def _names_and_ranges_fit(cls, value: Any, handler: Any) -> Any:
        """Report all errors of a search space at once: its form, its names, and ranges beyond a setting's bounds."""
        if not isinstance(value, dict):
            return handler(value)
        space: dict[str, Any] = {}
        errors: list[Any] = []
        for name, entry in value.items():
            try:
                space |= handler({name: entry})
            except ValidationError as error:
                errors += [{**item, "ctx": item.get("ctx", {})} for item in error.errors()]
            if misfit := cls._misfit(name, space.get(name)):
                errors.append({"type": "value_error", "loc": (name,), "input": entry, "ctx": {"error": misfit}})
        if errors:
            raise ValidationError.from_exception_data("search_space", errors)
        return space

    @classmethod
    def _misfit(cls, name: str, space: Any) -> str:
        known = cls.tunable()
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            mean = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            return f"is not a hyperparameter of {'this' if len(cls.heads) == 1 else 'any'} model; {mean}"
        return _beyond_bounds(known[name], space) if space is not None else ""

    @classmethod
    def tunable(cls) -> dict[str, Any]:
        """Name -> field of what a search may vary: of the head, of the training, and of the encoder."""
        heads = {name: field for head in cls.heads for name, field in head.model_fields.items()}
        train = {name: field for name, field in Train.model_fields.items() if name not in _NOT_TUNABLE}
        encoder = {name: Encoder.model_fields[name] for name in ("trainable_layers", "max_length")}
        return {**heads, **train, **encoder}


def _beyond_bounds(field: Any, space: FloatSpace | IntSpace | CategoricalSpace) -> str:
    """What a search space would try that its setting refuses; empty if nothing."""
    tried = space.choices if isinstance(space, CategoricalSpace) else (space.low, space.high)
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, Field(), *field.metadata])
    if isinstance(space, FloatSpace) and float not in _plain_types(field.annotation):
        return "takes whole numbers only: use `type: int`, or `type: categorical` with choices"
    for value in tried:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            return f"{value!r} is outside what the setting allows ({error.errors()[0]['msg'].removeprefix('Input ')})"
    return ""


# --- models ----------------------------------------------------------------------------------------------------------


class LstmHead(Section):
    """BiLSTM, multi-head self-attention, masked pooling and an MLP over the encoder's token states."""

    hidden: Width = Field(256, description="LSTM units per direction.")
    layers: Layers = Field(2, description="Stacked LSTM layers.")
    dropout: Dropout = Field(
        0.3, description="Dropout of token states (one mask per text), between layers and before the output."
    )
    attention_heads: AttentionHeads = Field(4, description="Self-attention heads; must divide 2 x hidden.")

    @model_validator(mode="after")
    def _heads_divide(self) -> LstmHead:
        if (2 * self.hidden) % self.attention_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must divide 2 x hidden ({2 * self.hidden})")
        return self


class HanHead(Section):
    """Hierarchical attention: over the words of a window, then over the windows of a text."""

    hidden: Width = Field(256, description="Recurrent units per direction.")
    layers: Layers = Field(1, description="Stacked recurrent layers over words.")
    dropout: Dropout = Field(
        0.3, description="Dropout of token states (one mask per text), between layers and before the output."
    )
    cell: Literal["gru", "lstm"] = Field("gru", description="Recurrent cell; the paper uses gru.")


class LinearHead(Section):
    """Masked mean of the token states and one linear layer: the baseline for the other heads."""

    dropout: Dropout = Field(0.1, description="Dropout before the output.")


#: Name -> the head's section, and what its search space has beside what all heads share.
HEADS: dict[str, tuple[type[Section], dict[str, Any]]] = {
    "lstm": (
        LstmHead,
        {
            "hidden": {"type": "categorical", "choices": [128, 256, 512]},
            "layers": {"type": "int", "low": 1, "high": 3},
            "attention_heads": {"type": "categorical", "choices": [2, 4, 8]},
        },
    ),
    "han": (
        HanHead,
        {
            "hidden": {"type": "categorical", "choices": [128, 256, 384]},
            "layers": {"type": "int", "low": 1, "high": 2},
        },
    ),
    "linear": (LinearHead, {}),
}
MODEL_NAMES: tuple[str, ...] = tuple(HEADS)


class Model(Section):
    """A head on the encoder. What `train` and `hpo` do not set here is as in the shared sections of these names."""

    head: Section
    train: Train = Field(Train(), description="Training of this model.")
    hpo: Hpo


def _model_section(name: str) -> type[Model]:
    head, space = HEADS[name]
    title = name.capitalize()
    hpo = create_model(f"{title}Hpo", __base__=Hpo, search_space=(SearchSpace, _search_space(_COMMON_SPACE | space)))
    hpo.heads = (head,)
    return create_model(
        f"{title}Model",
        __base__=Model,
        __doc__=Model.__doc__,
        head=(head, Field(head(), description="Architecture.")),
        hpo=(hpo, Field(hpo(), description="Search for this model.")),
    )


if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[MODEL_NAMES]


class Joint(Section):
    """Several heads trained together on one encoder (`--model joint`), each configured in its own section."""

    models: tuple[ModelName, ...] = Field(
        ("lstm", "han"), min_length=2, description="The heads; their losses are added."
    )
    train: Train = Field(Train(), description="Training of these heads.")
    further_source: str | None = Field(
        None, min_length=1, description="Additional labelled texts, as in data.source, in every epoch."
    )
    further_label_map: dict[LabelText, LabelText] | None = Field(
        None, description="As data.label_map; rows with other values are left out."
    )
    further_partial: bool = Field(
        False, description="These texts teach nothing about labels that do not occur in them."
    )
    further_repeat: int = Field(1, ge=1, le=1000, description="How often each additional text occurs in an epoch.")
    further_valid_size: Fraction = Field(0.1, description="Fraction of them for validation; none if they are partial.")
    heads_from: HomePath | None = Field(
        None,
        description="Continue the heads of this pack; its encoder is DIR/encoder, for encoder.name. null: new heads.",
    )

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a model is listed twice")
        return value


# --- pretraining, fine-tuning, testing -------------------------------------------------------------------------------


class Pretrain(Optimization):
    """Masked-language-model training of an encoder on texts without labels (`senthy pretrain`)."""

    base: str | None = Field(
        None,
        min_length=1,
        description="Initial weights: scratch (sizes in encoder.scratch), a Hugging Face name, a directory; null is "
        "encoder.name.",
    )
    output_dir: HomePath = Field(
        Path("models/pretrained_encoder"), description="Directory of the new encoder, for encoder.name."
    )
    source: str | None = Field(
        None, min_length=1, description="Texts, as in data.source; null is the training split of paths.data_db."
    )
    added_tokens: HomePath | None = Field(
        None, description="UTF-8 file of texts that become tokens, such as emoji, one per line."
    )
    valid_size: float = Field(
        0.01, gt=0.0, lt=0.5, description="Fraction of a source's texts held out to measure perplexity."
    )
    mask_probability: float = Field(
        0.15, gt=0.0, le=0.9, description="Fraction of tokens to predict: 80 % masked, 10 % replaced, 10 % unchanged."
    )
    dropout: Dropout | None = Field(
        None, description="Dropout while pretraining; null is the encoder's own, 0 suits few epochs over many texts."
    )
    learning_rate: Rate = Field(5e-4, description="Peak learning rate; 1e-4 or less for a pretrained encoder.")
    batch_size: BatchSize = Field(256, description="Texts per batch.")
    epochs: Epochs = Field(1, description="Passes over the texts; each masks other tokens.")
    warmup_steps: int = Field(500, ge=0, le=10_000_000, description="Steps over which the rate rises from 0.")
    sample_size: Rows | None = Field(None, description="Train on the first N texts in a fixed order; null is all.")
    valid_sample_size: Rows | None = Field(
        10_000, description="Held-out texts to evaluate after each epoch; null is all."
    )
    patience: Epochs | None = Field(
        None, description="Stop after N epochs without improvement; null never stops early."
    )

    def as_train(self) -> Train:
        """The same for the trainer: it minimizes the held-out loss; encoder and LM head learn at one rate."""
        shared = {name: getattr(self, name) for name in Optimization.model_fields}
        return Train(**shared, encoder_learning_rate=self.learning_rate, metric="loss")


class Finetune(Section):
    """Further training of a trained model on new texts; all else is as in the model's own `train`."""

    epochs: Epochs = Field(3, description="Passes over the new training rows.")
    learning_rate: Rate = Field(2e-4, description="Peak learning rate of the head, lower than for a new one.")
    encoder_learning_rate: Rate = Field(
        1e-5, description="Peak learning rate of the encoder's top layer, if encoder layers are trained."
    )
    layer_decay: Rate | None = Field(
        None,
        description="Factor on the rate of each layer below the top: 0.4 as in ULMFiT, 0.8 as in ELECTRA; null is 1.",
    )
    trainable_layers: TrainableLayers | None = Field(
        None, description="Encoder layers to train, as in encoder; null is as the model was trained."
    )
    batch_size: BatchSize | None = Field(None, description="Texts per batch; null is the model's own.")
    sample_size: Rows | None = Field(
        None, description="Train on the first N new rows of the split's fixed order; null is all."
    )
    valid_size: Fraction = Field(0.1, description="Fraction of the new rows that selects the best epoch.")
    test_size: Fraction = Field(0.2, description="Fraction of the new rows held out for tests before and after.")
    metric: Metric | None = Field(
        None, description="Selects the best epoch, on the new validation rows; null is the model's own."
    )
    patience: Epochs | None = Field(2, description="Stop after N epochs without improvement; null never stops early.")

    _leaves_training_rows = model_validator(mode="after")(_leaves_training_rows)


class Test(Section):
    """How a model is tested."""

    __test__ = False  # tells pytest that this is not a test class

    sample_size: Rows | None = Field(
        None, description="Test on the first N rows of the split's fixed order; null is all."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Confidence level of the intervals.")
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples per interval.")
    baseline: bool = Field(True, description="Also test TF-IDF + logistic regression on the same rows.")


# --- all of it -------------------------------------------------------------------------------------------------------

#: The training of several heads together, where a model is named.
JOINT = "joint"


class _BeforeModels(Section):
    project: Project = Field(Project(), description="Name and seed.")
    paths: Paths = Field(Paths(), description="Files and directories.")
    cache: Cache = Field(Cache(), description="Size of the cache.")
    data: Data = Field(Data(), description="Sources, cleaning, splits.")
    encoder: Encoder = Field(Encoder(), description="The shared encoder.")


if TYPE_CHECKING:

    class _WithModels(_BeforeModels):
        pass
else:
    _models = {name: _model_section(name) for name in MODEL_NAMES}
    _fields = {name: (model, Field(model(), description=f"The {name} model.")) for name, model in _models.items()}
    _WithModels = create_model("_WithModels", __base__=_BeforeModels, **_fields)


class Config(_WithModels):
    """Everything that a command needs to know."""

    joint: Joint = Field(Joint(), description="Heads trained together.")
    pretrain: Pretrain = Field(Pretrain(), description="Pretraining of an encoder.")
    finetune: Finetune = Field(Finetune(), description="Fine-tuning.")
    test: Test = Field(Test(), description="Testing.")

    def model(self, name: str) -> Model:
        """The section of one model. Raises KeyError for a name that is not in MODEL_NAMES."""
        if name not in MODEL_NAMES:
            raise KeyError(name)
        section: Model = getattr(self, name)
        return section

    def heads(self, name: str) -> tuple[str, ...]:
        """The heads that a training has: one, or those of `joint`."""
        return self.joint.models if name == JOINT else (name,)

    def training(self, name: str) -> Train:
        """How one model, or `joint`, is trained. Raises KeyError for another name."""
        return self.joint.train if name == JOINT else self.model(name).train

    def to_keep(self) -> Config:
        """The same without the storages of searches, for a run or a result: a URL may contain a password."""
        sections = {}
        for name in MODEL_NAMES:
            section = self.model(name)
            sections[name] = section.model_copy(update={"hpo": section.hpo.model_copy(update={"storage": None})})
        return self.model_copy(update=sections)


class SharedHpo(Hpo):
    """The hyperparameter search of every model."""

    heads = tuple(head for head, _ in HEADS.values())


class ConfigFile(Config):
    """What a YAML file may contain: a Config, and the sections that models share."""

    train: Train = Field(Train(), description="Training of every model; `lstm.train` and the like override it.")
    hpo: SharedHpo = Field(SharedHpo(), description="Search of every model; `lstm.hpo` and the like override it.")


#: Shared section -> the sections that inherit from it.
SHARED: dict[str, tuple[str, ...]] = {
    part: tuple(
        name for name, field in Config.model_fields.items() if part in getattr(field.annotation, "model_fields", ())
    )
    for part in ("train", "hpo")
}
