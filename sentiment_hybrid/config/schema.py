"""``Config``: every setting with its type, bounds, default and meaning; frozen, and unknown names are errors."""

from __future__ import annotations

import difflib
from collections.abc import Set
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from sentiment_hybrid import paths
from sentiment_hybrid.config.sections import (
    AttentionHeads,
    BatchSize,
    Dropout,
    Encoding,
    Epochs,
    Fraction,
    HomePath,
    HostNames,
    LabelText,
    LicenseId,
    MaxLength,
    MaxWindows,
    Metric,
    Names,
    Rate,
    Rows,
    Section,
    Seed,
    Strict,
    TrainableLayers,
    default,
    not_a_bool,
    part,
    plain_types,
)
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.redaction import remember


def _leaves_training_rows(section: Any) -> Any:
    if section.valid_size + section.test_size >= 0.95:
        raise ValueError("valid_size + test_size must leave at least 5 % of the rows for training")
    return section


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{next(value for value in values if values.count(value) > 1)!r} is listed twice")
    return values


#: Longer texts are cut.
MAX_TEXT_BYTES = 1_000_000


# --- project, files, data, encoder -----------------------------------------------------------------------------------


class Project(Section):
    """Name of the project, its random seed, and the format of its figures."""

    name: str = default("senthy", "Shown in results and figures.", min_length=1, max_length=100)
    seed: Seed = default(42, "Seed of weights, dropout and batch order; it never affects the splits.")
    figure_format: Literal["png", "pdf", "svg"] = default("png", "Format of all figures.")

    def figure(self, png: Path) -> Path:
        """The path of a figure in this format."""
        return png.with_suffix(f".{self.figure_format}")


class Paths(Section):
    """Where files are read and written. Relative paths start at the working directory; ~ is the home directory."""

    data_db: HomePath = default(Path("data/tweets.db"), "Database of prepared texts that `senthy data` writes.")
    models_dir: HomePath = default(Path("models"), "Trained models: lstm_roberta_model_final/ and so on.")
    results_dir: HomePath = default(Path("results"), "model_results.json, figures, predictions and runs/.")
    cache_dir: HomePath | None = default(
        None, "Token states and fitted baselines; null is the system's cache directory."
    )

    @property
    def cache(self) -> Path:
        """The cache directory in use."""
        return paths.cache_dir(self.cache_dir)


class Cache(Section):
    """Size of the cache directory. `senthy cache info` shows it, `senthy cache clear` empties it."""

    max_gb: float | None = default(
        50.0,
        "Limit in GB for all cached token states; beyond it the encoder runs in every epoch. null: no limit.",
        gt=0.0,
        le=1e6,
    )


class Models(Section):
    """Trained models, each in a folder of its own in `paths.models_dir`/runs. `senthy models list` shows them."""

    keep: int | None = default(
        3,
        "Earlier models of each kind that stay beside the published ones, those with a name, and the best one on each "
        "data by validation; older ones are removed. null: all.",
        ge=0,
    )
    license: LicenseId | None = default(
        None, "License of the models, for their cards (README.md): an identifier of the Hugging Face Hub, such as mit."
    )
    language: Names = default((), "Languages of the texts, for the cards: en, or [en, de].")
    datasets: Names = default((), "Data sets of the Hub that the texts are from, for the cards: OWNER/NAME.")


class Data(Section):
    """Where texts come from, which rows are dropped, and how they are split."""

    source: str = default(
        "kaggle:zphudzz/tweets-clean-posneg-v1",
        "kaggle[:OWNER/NAME[/versions/N]], sample, or a csv, tsv, jsonl, json or parquet file (or .gz), .xlsx or "
        "SQLite; a folder or pattern of such files.",
        min_length=1,
    )
    train_source: str | None = default(None, "Official training split; with test_source it replaces source.")
    valid_source: str | None = default(None, "Official validation split; null takes valid_size from the training rows.")
    test_source: str | None = default(None, "Official test split; training rows that also occur in it are left out.")
    table: str | None = default(None, "Table of an SQLite source; null detects it.")
    encoding: Encoding = default("auto", "Encoding of text files, such as utf-8 or cp1252; auto detects it.")
    delimiter: str | None = default(
        None, "Character between the fields of csv and tsv; null detects it.", min_length=1, max_length=1
    )
    quoting: Literal["auto", "minimal", "none", "backslash"] = default(
        "auto",
        "Quotes in csv and tsv: minimal (quoted fields, quotes doubled), backslash (quoted fields, quotes escaped), "
        "none (ordinary characters); auto detects it.",
    )
    text_column: str | None = default(None, "Column to train on; null detects it and prefers raw text to cleaned text.")
    raw_text_column: str | None = default(
        None, "Column that determines the split; null is the raw text, or text_column."
    )
    label_column: str | None = default(None, "Column of labels; null detects it.")
    label_map: dict[LabelText, LabelText] | None = default(
        None, "Value -> label, in label order: {0: negative, 4: positive}; or --label-map 0=negative, repeated."
    )
    unknown_labels: Literal["error", "drop"] = default("error", "What to do with a label not in the map.")
    label_case: Literal["error", "merge"] = default("error", "Labels that differ by case alone, such as Spam and spam.")
    max_labels: int = default(50, "Maximum number of distinct labels.", ge=2, le=100_000)
    bad_rows: Literal["error", "skip"] = default("error", "What to do with an unreadable row; skip counts it.")
    max_text_bytes: int = default(
        MAX_TEXT_BYTES,
        "Maximum size of a text in UTF-8 bytes; longer texts are cut, counted and reported.",
        ge=100,
        le=50_000_000,
    )
    corrections: HomePath | None = default(
        None, "File of `senthy check` in which labels were corrected and rows marked to be left out."
    )
    conflicts: Literal["drop", "keep"] = default("drop", "Identical texts with different labels.")
    repeats: Literal["drop", "keep"] = default("drop", "Identical texts with the same label after the first.")
    normalizer: Literal["tweet", "classic", "none"] = default(
        "tweet", "Text cleaning: tweet keeps case, emoji and negation; classic removes stopwords and lemmatizes."
    )
    valid_size: Fraction = default(0.1, "Fraction of the rows for validation.")
    test_size: Fraction = default(0.2, "Fraction of the rows held out for testing.")
    split_seed: Seed = default(0, "Seed of the splits alone.")
    split_key_version: Literal[1, 2] = default(
        2,
        "Rules that decide which texts count as equal; 1 reproduces splits made before handles and links ended sooner.",
    )

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

    vocab_size: int = default(8000, "Byte-level BPE tokens, learned on the training rows.", ge=300, le=100_000)
    hidden_size: int = default(128, "Size of a token state.", ge=8, le=4096)
    layers: int = default(2, "Transformer layers.", ge=1, le=48)
    attention_heads: AttentionHeads = default(4, "Heads per layer; must divide hidden_size.")
    intermediate_size: int = default(512, "Size of the feed-forward layers.", ge=8, le=16_384)
    dropout: Dropout = default(0.1, "Dropout inside the encoder while it trains.")
    lowercase: bool = default(False, "Lowercase texts: more whole words in a small vocabulary.")

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchEncoder:
        if self.hidden_size % self.attention_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must divide hidden_size ({self.hidden_size})")
        return self


class StaticEncoder(Section):
    """The tables of vectors of `encoder.name: static`: of tokens, distilled from another encoder, and of pairs."""

    base: str = default(
        "mini", "Encoder to distil: Hugging Face name (at encoder.revision), directory, or mini.", min_length=1
    )
    size: int = default(64, "Size of a token vector: principal components of the base's states.", ge=4, le=4096)
    pairs: int = default(
        32_768,
        "Vectors for pairs of adjacent tokens, shared by hash, learned from the labels; 0: none.",
        ge=0,
        le=2**24,
    )

    @field_validator("base")
    @classmethod
    def _base_is_trained(cls, value: str) -> str:
        if value in {paths.SCRATCH, paths.STATIC}:
            raise ValueError(f"must be a trained encoder, such as mini or roberta-base, not {value}")
        return value


#: Tokens per window of the encoder in the package.
MINI_MAX_LENGTH = 128


class Encoder(Section):
    """The encoder that all heads share."""

    name: str = default(
        "roberta-base", "Hugging Face name, directory, mini (ships in the package), scratch, or static.", min_length=1
    )
    revision: str | None = default(None, "Branch, tag or commit on the hub; pin it for reproducible runs.")
    trainable_layers: TrainableLayers = default(
        0, "0 freezes the encoder, which is fast; N trains its last N layers, all everything."
    )
    dropout: Dropout | None = default(None, "Dropout of trainable layers; null is the encoder's own.")
    max_length: MaxLength = default(128, "Tokens per window, including special tokens.")
    max_windows: MaxWindows = default(32, "Windows per text; longer texts are cut, and counted.")
    scratch: ScratchEncoder = part(ScratchEncoder, "Used when name is scratch.")
    static: StaticEncoder = part(StaticEncoder, "Used when name is static.")

    @property
    def origin(self) -> str:
        """The encoder whose files are needed: the name, or what `static` is distilled from."""
        return self.static.base if self.name == paths.STATIC else self.name

    def facts(self, *, without: Set[str] = frozenset()) -> dict[str, Any]:
        """The settings as plain values; those of `static`, which are newer than earlier models, where they are used."""
        unused = set() if self.name == paths.STATIC else {"static"}
        return self.model_dump(mode="json", exclude=unused | without)

    @model_validator(mode="before")
    @classmethod
    def _replaces_any(cls, value: Any) -> Any:
        """Static and mini can replace the frozen encoder of any configuration, also of one with longer windows."""
        if not isinstance(value, dict):
            return value
        name, length = value.get("name"), value.get("max_length", MINI_MAX_LENGTH + 1)
        # Vectors that nobody trained know too little.
        if name == paths.STATIC and value.get("trainable_layers", 0) == 0:
            return {**value, "trainable_layers": "all"}
        if name == paths.MINI and isinstance(length, int) and length > MINI_MAX_LENGTH:
            return {**value, "max_length": MINI_MAX_LENGTH}
        return value

    @model_validator(mode="after")
    def _is_trained(self) -> Encoder:
        if self.name == paths.SCRATCH and self.trainable_layers != "all":
            raise ValueError("a scratch encoder starts from random weights: set trainable_layers to all")
        if self.name == paths.STATIC and self.trainable_layers != "all":
            raise ValueError(
                "a static encoder has no layers, only a table: set trainable_layers to all, or leave it out"
            )
        return self


# --- training --------------------------------------------------------------------------------------------------------


class Optimization(Section):
    """What every training needs, of labels or of an encoder."""

    learning_rate: Rate = default(
        1e-3, "Peak learning rate of the head; 1e-4 to 5e-3 for a new head on a frozen encoder."
    )
    weight_decay: float = default(0.01, "AdamW weight decay; not for biases and norms.", ge=0.0, le=1.0)
    batch_size: BatchSize = default(32, "Texts per batch.")
    accumulation: int = default(1, "Batches per optimizer step.", ge=1, le=4096)
    epochs: Epochs = default(5, "Passes over the training rows.")
    warmup_steps: int = default(100, "Steps over which the rate rises from 0.", ge=0, le=10_000_000)
    schedule: Literal["linear", "cosine", "constant"] = default("linear", "Learning rate after warm-up.")
    clip_norm: float | None = default(1.0, "Maximum gradient norm; null does not clip.", gt=0.0, le=1e6)
    sample_size: Rows | None = default(None, "Train on the first N rows of the split's fixed order; null is all.")
    valid_sample_size: Rows | None = default(20_000, "Rows to validate on after each epoch; null is all.")
    patience: Epochs | None = default(3, "Stop after N epochs without improvement; null never stops early.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = default(
        "auto", "auto: bf16 if supported, else fp16 on a GPU, fp32 on a CPU."
    )
    token_budget: int = default(
        16_384,
        "Tokens per forward pass, including padding; lower it to save memory. It does not change results.",
        ge=64,
        le=10**9,
    )
    checkpoint_minutes: float = default(5.0, "Minutes between checkpoints: the most that is lost.", ge=0.0, le=1440.0)


class Train(Optimization):
    """How a model is trained."""

    encoder_learning_rate: Rate = default(2e-5, "Peak learning rate of trainable encoder layers.")
    label_smoothing: float = default(0.0, "Probability mass spread over all labels.", ge=0.0, lt=1.0)
    class_weights: Literal["none", "balanced"] | dict[LabelText, Annotated[float, Field(gt=0.0, le=1e6)]] = default(
        "none", "none, balanced (inverse frequency), or a map of label to weight."
    )
    metric: Metric = default("macro_f1", "Selects the best epoch, on the validation split.")
    promise_size: float = default(
        0.0,
        "Fraction of the validation rows that neither select nor calibrate: `senthy test` takes the thresholds for "
        "`--target-accuracy` from them.",
        ge=0.0,
        le=0.9,
    )


# --- hyperparameter search -------------------------------------------------------------------------------------------

Real = Annotated[float, BeforeValidator(not_a_bool)]
Whole = Annotated[int, BeforeValidator(not_a_bool)]


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
    choices: Annotated[tuple[str | int | float | bool | None, ...], AfterValidator(_distinct)] = Field(min_length=1)


Space = Annotated[FloatSpace | IntSpace | CategoricalSpace, Field(discriminator="type")]
SearchSpace = dict[str, Space]

_COMMON_SPACE: dict[str, Any] = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 5e-3, "log": True},
    "dropout": {"type": "float", "low": 0.1, "high": 0.5},
    "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
}

#: Settings of `train` that a search must not vary: they determine its cost or its objective.
_NOT_TUNABLE = {"epochs", "sample_size", "valid_sample_size", "metric", "patience"}
_NOT_TUNABLE |= {"precision", "checkpoint_minutes", "token_budget", "promise_size"}


class HpoFinal(Section):
    """The model that is trained with the best hyperparameters after the search."""

    include_valid: bool = default(False, "Train the final model on validation rows too, for the best trial's epochs.")


_SPACES = TypeAdapter(SearchSpace)
_MEANING = "Hyperparameter -> range: {type: float or int, low, high, log, step} or {type: categorical, choices}."


class Hpo(Section):
    """The hyperparameter search."""

    #: The heads whose settings the search space may name.
    heads: ClassVar[tuple[type[Section], ...]]

    enabled: bool = default(True, "false makes the search refuse to run.")
    n_trials: int = default(50, "Trials in all, including pruned ones.", ge=1, le=100_000)
    epochs: Epochs = default(10, "Epochs per trial.")
    sample_size: Rows | None = default(10_000, "Training rows per trial; null is all.")
    valid_sample_size: Rows | None = default(10_000, "Validation rows per trial; null is all.")
    sampler: Literal["tpe", "random", "gp", "qmc", "nsgaii"] = default("tpe", "Optuna sampler.")
    pruner: Literal["median", "hyperband", "none"] = default("median", "Optuna pruner; hyperband is for long trials.")
    workers: int = default(1, "Parallel trials on this machine: one per GPU, or sharing the CPU's cores.", ge=1, le=256)
    storage: str | None = default(
        None,
        "Optuna storage: sqlite:///FILE, or postgresql+psycopg://... for several machines; null: file in results_dir.",
    )
    study_name: str | None = default(
        None, "Name of the study; null derives it from model, space and data, so that it resumes."
    )
    timeout: float | None = default(None, "Seconds after which no new trial starts.", gt=0.0, le=1e9)
    final: HpoFinal = part(HpoFinal, "The model trained with the best hyperparameters.")
    search_space: SearchSpace = default(_SPACES.validate_python(_COMMON_SPACE), _MEANING)

    @field_validator("storage")
    @classmethod
    def _password_is_hidden(cls, url: str | None) -> str | None:
        if url is not None:
            remember(url)
        return url

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
            if misfit := cls._misfit(str(name), space.get(name)):
                errors.append({"type": "value_error", "loc": (name,), "input": entry, "ctx": {"error": misfit}})
        if errors:
            raise ValidationError.from_exception_data("search_space", errors)
        return space

    @classmethod
    def _misfit(cls, name: str, space: Any) -> str:
        """Why a model has no such hyperparameter, or it does not allow all of these values; empty if it does."""
        known = cls.tunable()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            mean = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
            return f"is not a hyperparameter of {'this' if len(cls.heads) == 1 else 'any'} model; {mean}"
        field = known[name]
        if isinstance(space, FloatSpace) and float not in plain_types(field.annotation):
            return "takes whole numbers only: use `type: int`, or `type: categorical` with choices"
        values: Any = Annotated[field.annotation, Field(), *field.metadata]
        adapter: TypeAdapter[Any] = TypeAdapter(values)
        tried = space.choices if isinstance(space, CategoricalSpace) else (space.low, space.high) if space else ()
        for value in tried:
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Input ")
                return f"{value!r} is outside what the setting allows ({reason})"
        return ""

    @classmethod
    def tunable(cls) -> dict[str, Any]:
        """Name -> field of what a search may vary: of the head, of the training, and of the encoder."""
        heads = {name: field for head in cls.heads for name, field in head.model_fields.items()}
        train = {name: field for name, field in Train.model_fields.items() if name not in _NOT_TUNABLE}
        encoder = {name: Encoder.model_fields[name] for name in ("trainable_layers", "max_length")}
        return {**heads, **train, **encoder}


# --- models ----------------------------------------------------------------------------------------------------------


MODEL_NAMES: tuple[str, ...] = tuple(HEADS)
#: Head -> its section.
_SECTIONS: dict[str, type[Section]] = {name: resolve_name(head.config) for name, head in HEADS.items()}


class Model(Section):
    """A head on the encoder. What `train` and `hpo` do not set here is as in the shared sections of these names."""

    head: Section
    train: Train = part(Train, "Training of this model.")
    hpo: Hpo


def _model_section(name: str) -> type[Model]:
    head = _SECTIONS[name]
    space = getattr(head, "search_space", {})
    title = name.capitalize()
    known = head.model_fields.keys() | Train.model_fields.keys()  # a head need not have a dropout
    space = {name: entry for name, entry in (_COMMON_SPACE | space).items() if name in known}
    searched = (SearchSpace, default(_SPACES.validate_python(space), _MEANING))
    hpo = create_model(f"{title}Hpo", __base__=Hpo, __module__=__name__, search_space=searched)
    hpo.heads = (head,)
    model = create_model(
        f"{title}Model",
        __base__=Model,
        __module__=__name__,
        __doc__=head.__doc__,
        head=(head, part(head, "Architecture.")),
        hpo=(hpo, part(hpo, "Search for this model.")),
    )
    # Other processes receive a Config pickled, that is with its classes by name.
    globals().update({hpo.__name__: hpo, model.__name__: model})
    return model


if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[MODEL_NAMES]


class Joint(Section):
    """Several heads trained together on one encoder (`--model joint`), each configured in its own section."""

    models: Annotated[tuple[ModelName, ...], AfterValidator(_distinct)] = default(
        ("lstm", "han"), "The heads; their losses are added.", min_length=2
    )
    train: Train = part(Train, "Training of these heads.")
    further_source: str | None = default(None, "Additional labelled texts, as in data.source.", min_length=1)
    further_label_map: dict[LabelText, LabelText] | None = default(None, "As data.label_map; other rows are left out.")
    further_partial: bool = default(False, "Labels that do not occur in these texts are ignored in their loss.")
    further_repeat: int = default(1, "How often each additional text occurs in an epoch.", ge=1, le=1000)
    further_valid_size: Fraction = default(0.1, "Fraction of them for validation; none if they are partial.")
    heads_from: HomePath | None = default(
        None, "Continue the heads of this pack; its encoder is DIR/encoder, for encoder.name. null: new heads."
    )


class Distill(Section):
    """Knowledge distillation: a model also learns from a teacher's probabilities (`senthy train`)."""

    teacher: str | None = default(
        None,
        "Model directory, mini, or a file with a column of probabilities for each label; null: no teacher.",
        min_length=1,
    )
    temperature: float = default(
        2.0, "Softens the probabilities of teacher and student in the loss; 1 leaves them.", gt=0.0, le=100.0
    )
    weight: float = default(0.5, "Weight of the teacher's loss; the labels have the rest.", ge=0.0, le=1.0)
    source: str | None = default(
        None, "Texts without labels, as in data.source, which only the teacher labels.", min_length=1
    )
    states: float = default(
        0.0, "Weight of the distance from the teacher's pooled states; only trainable layers learn it.", ge=0.0, le=1e4
    )

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Distill:
        if self.teacher is None and (self.source is not None or self.states):
            raise ValueError("source and states need a teacher: set distill.teacher")
        return self


# --- pretraining, fine-tuning, testing, serving ----------------------------------------------------------------------


class Pretrain(Optimization):
    """Masked-language-model training of an encoder on texts without labels (`senthy pretrain`)."""

    base: str | None = default(
        None,
        "Encoder to start from: a Hugging Face name, a directory, or scratch (encoder.scratch); null is encoder.name.",
        min_length=1,
    )
    output_dir: HomePath = default(Path("models/pretrained_encoder"), "Directory of the new encoder, for encoder.name.")
    source: str | None = default(
        None,
        "Texts: a file, an SQLite database, kaggle:..., or sample; null is the training split of paths.data_db.",
        min_length=1,
    )
    added_tokens: HomePath | None = default(None, "UTF-8 file of texts that become tokens, one per line.")
    valid_size: float = default(0.01, "Fraction of a source's texts held out to measure perplexity.", gt=0.0, lt=0.5)
    mask_probability: float = default(0.15, "Fraction of tokens to predict (80 % of them are masked).", gt=0.0, le=0.9)
    dropout: Dropout | None = default(None, "Null is the encoder's own; 0 suits few epochs over many texts.")
    learning_rate: Rate = default(5e-4, "Peak learning rate; 1e-4 or less for a pretrained encoder.")
    batch_size: BatchSize = default(256, "Texts per batch.")
    epochs: Epochs = default(1, "Passes over the texts; each masks different tokens.")
    warmup_steps: int = default(500, "Steps over which the rate rises from 0.", ge=0, le=10_000_000)
    sample_size: Rows | None = default(None, "Train on the first N texts in a fixed order; null is all.")
    valid_sample_size: Rows | None = default(10_000, "Held-out texts to evaluate after each epoch; null is all.")
    patience: Epochs | None = default(None, "Stop after N epochs without improvement; null never stops early.")

    def as_train(self) -> Train:
        """As settings of the trainer, which minimizes the held-out loss; encoder and LM head have one learning rate."""
        shared = {name: getattr(self, name) for name in Optimization.model_fields}
        return Train(**shared, encoder_learning_rate=self.learning_rate, metric="loss")


class Finetune(Section):
    """Further training of a trained model on new texts; all else is as in the model's own `train`."""

    epochs: Epochs = default(3, "Passes over the new training rows.")
    learning_rate: Rate = default(2e-4, "Peak learning rate of the head, lower than for a new one.")
    encoder_learning_rate: Rate = default(1e-5, "Peak learning rate of the encoder's top layer, if it is trained.")
    layer_decay: Rate | None = default(
        None, "Factor on the rate of each layer below the top: 0.4 as in ULMFiT, 0.8 as in ELECTRA; null is 1."
    )
    trainable_layers: TrainableLayers | None = default(None, "Encoder layers to train; null is as before.")
    batch_size: BatchSize | None = default(None, "Texts per batch; null is the model's own.")
    sample_size: Rows | None = default(None, "Train on the first N new rows of the split's fixed order; null is all.")
    valid_size: Fraction = default(0.1, "Fraction of the new rows that selects the best epoch.")
    test_size: Fraction = default(0.2, "Fraction of the new rows held out for tests before and after.")
    metric: Metric | None = default(None, "Selects the best epoch; null is the model's own.")
    patience: Epochs | None = default(2, "Stop after N epochs without improvement; null never stops early.")

    _leaves_training_rows = model_validator(mode="after")(_leaves_training_rows)


class Test(Section):
    """How a model is tested."""

    __test__ = False  # not a test class for pytest

    sample_size: Rows | None = default(None, "Test on the first N rows of the split's fixed order; null is all.")
    confidence: float = default(0.95, "Confidence level of the intervals.", gt=0.5, lt=1.0)
    resamples: int = default(2000, "Bootstrap resamples per interval.", ge=100, le=100_000)
    baseline: bool = default(True, "Also test TF-IDF + logistic regression on the same rows.")
    slice_by: str | None = default(
        None, "Column of the source whose values are kept with the predictions, for accuracy by value in reports."
    )


class Serve(Section):
    """The HTTP service (`senthy serve`)."""

    host: str = default("127.0.0.1", "Address to listen on; beyond this machine, a token is required.", min_length=1)
    port: int = default(8000, "Port to listen on; 0 is any free one.", ge=0, le=65_535)
    token_file: HomePath | None = default(
        None, "File with the token that requests must carry; the variable SENTHY_TOKEN is an alternative."
    )
    allowed_hosts: HostNames = default(
        (), "Further names of the service that requests may carry, where there is no token; this machine's always may."
    )
    batch_wait_ms: float = default(2.0, "How long a batch waits for more requests under load.", ge=0.0, le=1000.0)
    max_waiting: int = default(5000, "Texts that may wait for an answer; further requests get 429.", ge=1, le=10**7)
    max_texts: int = default(1000, "Texts per request.", ge=1, le=10**6)
    max_text_bytes: int = default(100_000, "Size of a text in UTF-8 bytes.", ge=1, le=50_000_000)
    max_body_bytes: int = default(4_000_000, "Size of the body of a request.", ge=100, le=10**9)
    max_explained_texts: int = default(32, "Texts per request with explanations.", ge=1, le=10**4)
    max_explained_bytes: int = default(2000, "Size of a text that is explained.", ge=1, le=100_000)
    timeout: float = default(
        30.0, "Seconds in which a request is received, and in which it is answered.", gt=0, le=3600
    )
    stop_timeout: float = default(30.0, "Seconds that a stop waits for the requests in progress.", gt=0, le=3600)
    reload_seconds: float | None = default(
        2.0, "How often to look for a newly published model; null: never.", ge=0.05, le=86_400
    )

    @model_validator(mode="after")
    def _limits_agree(self) -> Serve:
        if self.max_texts > self.max_waiting:
            raise ValueError(f"max_texts ({self.max_texts}) must not exceed max_waiting ({self.max_waiting})")
        return self


# --- all of it -------------------------------------------------------------------------------------------------------

#: The name of joint training, wherever a model is named.
JOINT = "joint"


class _BeforeModels(Section):
    project: Project = part(Project, "Name, seed, figures.")
    paths: Paths = part(Paths, "Files and directories.")
    cache: Cache = part(Cache, "Size of the cache.")
    models: Models = part(Models, "Trained models.")
    data: Data = part(Data, "Sources, cleaning, splits.")
    encoder: Encoder = part(Encoder, "The shared encoder.")


if TYPE_CHECKING:

    class _WithModels(_BeforeModels):
        pass
else:
    _models = {name: _model_section(name) for name in MODEL_NAMES}
    _fields = {name: (model, part(model, f"The {name} model.")) for name, model in _models.items()}
    _WithModels = create_model("_WithModels", __base__=_BeforeModels, **_fields)


class Config(_WithModels):
    """The complete configuration."""

    joint: Joint = part(Joint, "Heads trained together.")
    distill: Distill = part(Distill, "Learning from a teacher.")
    pretrain: Pretrain = part(Pretrain, "Pretraining of an encoder.")
    finetune: Finetune = part(Finetune, "Fine-tuning.")
    test: Test = part(Test, "Testing.")
    serve: Serve = part(Serve, "The HTTP service.")

    def model(self, name: str) -> Model:
        """The section of one model. Raises KeyError for a name that is not in MODEL_NAMES."""
        if name not in MODEL_NAMES:
            raise KeyError(name)
        section: Model = getattr(self, name)
        return section

    def heads(self, name: str) -> tuple[str, ...]:
        """The heads of a training: one, or those of `joint`."""
        return self.joint.models if name == JOINT else (name,)

    def training(self, name: str) -> Train:
        """How one model, or `joint`, is trained. Raises KeyError for another name."""
        return self.joint.train if name == JOINT else self.model(name).train

    def to_keep(self) -> Config:
        """The same without the storages of searches, for a run or a result: a URL may contain a password."""
        return self.changed({f"{name}.hpo.storage": None for name in MODEL_NAMES})


class SharedHpo(Hpo):
    """The hyperparameter search of every model."""

    heads = tuple(_SECTIONS.values())


class ConfigFile(Config):
    """The content of a YAML file: a Config, and the sections that models share."""

    train: Train = part(Train, "Training of every model; `lstm.train` and the like override it.")
    hpo: SharedHpo = part(SharedHpo, "Search of every model; `lstm.hpo` and the like override it.")


#: Shared section -> the sections that inherit from it.
SHARED: dict[str, tuple[str, ...]] = {
    part: tuple(
        name for name, field in Config.model_fields.items() if part in getattr(field.annotation, "model_fields", ())
    )
    for part in ("train", "hpo")
}
