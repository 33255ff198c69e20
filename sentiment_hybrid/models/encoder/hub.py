"""Loads encoders safely from the hub or a directory, builds them from scratch, and saves them."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Encoder as EncoderConfig
from sentiment_hybrid.config.schema import ScratchEncoder, StaticEncoder
from sentiment_hybrid.errors import ConfigError, EncoderError, first_line
from sentiment_hybrid.files import recover, written
from sentiment_hybrid.models.encoder.module import OWN, Encoder, check_max_length, encoder_fingerprint, max_positions
from sentiment_hybrid.models.encoder.roberta import (
    CONFIG_FILE,
    FAMILIES,
    WEIGHTS_FILE,
    Architecture,
    Roberta,
    is_supported,
    load_weights,
    read_architecture,
)
from sentiment_hybrid.models.encoder.sizes import check_sizes, check_weights_suffice
from sentiment_hybrid.models.encoder.static import Static, distilled
from sentiment_hybrid.models.tokenizer import SPECIAL_TOKENS, Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sentiment_hybrid.models.encoder.module import Model

    AnyTokenizer: TypeAlias = Tokenizer | PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "bpe.codes")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model*.bin")


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder, before any of it is frozen.

    ``revision`` is the commit of a hub model; ``fingerprint`` is :func:`encoder_fingerprint` of ``model``.
    """

    model: Model
    tokenizer: AnyTokenizer
    name: str
    revision: str | None
    fingerprint: str
    source: Literal["hub", "local", "scratch", "package", "static"]


def load_encoder(encoder_config: EncoderConfig, *, offline: bool = False, check_length: bool = True) -> LoadedEncoder:
    """Load the encoder of a config: a hub model, a local directory, or ``mini``, which ships with the package.

    ``static`` is distilled from one of these, which takes seconds for ``mini``.

    Weights are read as float32 from safetensors only, without a pooler; code from the hub is never run.

    Raises:
        EncoderError: it cannot be loaded, is unsafe or incomplete, or lacks a tokenizer.
        ConfigError: ``max_length`` exceeds the positions of the encoder, unless ``check_length`` is False; or its
            states have fewer numbers than the vectors of ``static``.
        ValueError: the name is ``scratch``; see :func:`build_scratch`.
    """
    name = encoder_config.name
    if name == paths.STATIC:
        base = load_encoder(
            encoder_config.changed({"name": encoder_config.origin}), offline=offline, check_length=False
        )
        return _static(base, encoder_config.static)
    if name == paths.SCRATCH:
        raise ValueError("a scratch encoder is built with build_scratch, not loaded")
    directory = recover(Path(name).expanduser())
    if name == paths.MINI:
        loaded = replace(load_encoder_dir(paths.mini_dir() / paths.ENCODER_DIR), name=name, source="package")
    elif directory.is_dir():
        loaded = load_encoder_dir(directory)
    else:
        loaded = _load_hub(name, encoder_config.revision, offline=offline or _offline_environment())
    if check_length:
        check_max_length(loaded.model, encoder_config.max_length, name=name)
    return loaded


def _static(base: LoadedEncoder, settings: StaticEncoder) -> LoadedEncoder:
    encoder = Encoder(base.model)
    if settings.size > encoder.hidden_size:
        raise ConfigError(
            f"encoder.static.size is {settings.size}, but the states of {base.name} have {encoder.hidden_size} numbers",
            hint=f"Set encoder.static.size to {encoder.hidden_size} or less.",
        )
    # More than the tokenizer's length, whose ids may have gaps.
    entries = base.model.get_input_embeddings().num_embeddings
    model = distilled(
        encoder, base.tokenizer, base=base.name, entries=entries, size=settings.size, pairs=settings.pairs
    )
    return replace(base, model=model, name=paths.STATIC, fingerprint=encoder_fingerprint(model), source="static")


def load_encoder_dir(directory: Path) -> LoadedEncoder:
    """Load an encoder and its tokenizer from a directory written by :func:`save_encoder`.

    Raises:
        EncoderError: something is missing, damaged, or stored as a pickle.
    """
    _check_directory(recover(directory))
    name = str(directory)
    model, tokenizer = _own(name, directory) or _by_transformers(name, revision=None, local_only=True)
    return LoadedEncoder(model, tokenizer, name, None, encoder_fingerprint(model), "local")


def load_tokenizer(directory: Path, model: Model) -> AnyTokenizer:
    """Load the tokenizer of an encoder from ``directory``.

    Raises:
        EncoderError: it is damaged, or does not match the encoder.
    """
    try:
        tokenizer = Tokenizer.load(directory, pad_token_id=model.config.pad_token_id)
        if tokenizer is None:
            tokenizer = _slow_tokenizer(directory, model)
    # The exceptions of transformers have no common base, and tokenizers raises Exception itself.
    except Exception as error:
        raise EncoderError(
            f"the tokenizer in {directory} cannot be loaded: {first_line(error)}", hint="Restore it, or train again."
        ) from error
    _check_tokenizer(str(directory), model, tokenizer)
    return tokenizer


def _slow_tokenizer(directory: Path, model: Model) -> Any:
    """Load with transformers, which supports tokenizers without a tokenizer.json."""
    from transformers import AutoConfig, AutoTokenizer

    config = model.config
    if isinstance(config, Architecture):
        config = AutoConfig.for_model(**config.document)
    with _quiet():
        return _plain(
            AutoTokenizer.from_pretrained(str(directory), config=config, local_files_only=True, trust_remote_code=False)
        )


def save_encoder(model: Model, tokenizer: AnyTokenizer, directory: Path) -> None:
    """Write the weights (safetensors), the config and the tokenizer to ``directory``, which is created.

    Raises:
        OutputError: it cannot be written.
    """
    hint = "Check that the directory is writable and the disk has free space."
    quiet = contextlib.nullcontext() if isinstance(model, OWN) else _quiet()
    with written(f"the encoder to {directory}", hint=hint), quiet:
        directory.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def build_scratch(scratch_config: ScratchEncoder, *, tokenizer: Tokenizer, max_length: int) -> LoadedEncoder:
    """A small RoBERTa with random weights for a tokenizer of :func:`train_tokenizer`; seed torch before."""
    padding = tokenizer.pad_token_id
    assert padding is not None
    document = {
        "model_type": "roberta",
        "vocab_size": len(tokenizer),
        "hidden_size": scratch_config.hidden_size,
        "num_hidden_layers": scratch_config.layers,
        "num_attention_heads": scratch_config.attention_heads,
        "intermediate_size": scratch_config.intermediate_size,
        "hidden_dropout_prob": scratch_config.dropout,
        "attention_probs_dropout_prob": scratch_config.dropout,
        # RoBERTa's first position is the padding id + 1.
        "max_position_embeddings": max_length + padding + 1,
        "type_vocab_size": 1,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": padding,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = Roberta(Architecture(document)).eval()
    return LoadedEncoder(model, tokenizer, paths.SCRATCH, None, encoder_fingerprint(model), "scratch")


def extend(loaded: LoadedEncoder, *, added_tokens: Sequence[str] = (), max_length: int) -> dict[int, list[int]]:
    """Add tokens to an encoder and its tokenizer, and allow windows of ``max_length``, in place.

    The embedding of an added token starts as the mean of the embeddings of its text before, whose ids are returned
    (new id -> ids). The encoder's ``fingerprint`` is not updated.

    Raises:
        EncoderError: the encoder is not a RoBERTa or BERT encoder with a tokenizer.json.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    most = max_positions(model)
    longer = most is not None and max_length > most
    if not (added_tokens or longer):
        return {}
    if not isinstance(model, Roberta) or not isinstance(tokenizer, Tokenizer):
        raise EncoderError(
            f"{loaded.name} is a {model.config.model_type} encoder"
            + (f" that reads at most {most} tokens" if longer else "")
            + "; tokens and positions can only be added to RoBERTa and BERT encoders with a tokenizer.json",
            hint=f"Omit pretrain.added_tokens, and set encoder.max_length to {most or max_length} or less.",
        )
    former = tokenizer.add_tokens(added_tokens)
    model.grow_vocabulary(len(tokenizer), former)
    if longer:
        model.grow_positions(max_length)
        tokenizer.settings["model_max_length"] = max_length
    return former


def _load_hub(name: str, revision: str | None, *, offline: bool) -> LoadedEncoder:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise EncoderError(
            f"{name} is neither a directory nor a valid hub name",
            hint="encoder.name is a local directory, a name such as roberta-base or owner/model, or scratch.",
        )
    if offline:
        commit = None
    elif revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        commit = revision
    else:
        commit = _commit_now(name, revision)
    if commit is None:
        model, tokenizer = _from_pretrained(name, revision=revision, local_only=True)
        directory = directory_of(name, revision)
        commit = revision if directory is None else directory.name
    else:
        model, tokenizer = _of_commit(name, commit)
    return LoadedEncoder(model, tokenizer, name, commit, encoder_fingerprint(model), "hub")


def _of_commit(name: str, commit: str) -> tuple[Model, AnyTokenizer]:
    """A commit of a hub model; from the cache without contacting the hub if it is complete."""
    try:
        return _from_pretrained(name, revision=commit, local_only=True)
    except EncoderError as error:
        logging.getLogger(__name__).info("there is no complete copy in the cache, asking the hub: %s", error)
    return _from_pretrained(name, revision=commit, local_only=False)


def _commit_now(name: str, revision: str | None) -> str | None:
    """The current commit of a revision of a hub model; None if the hub cannot be reached.

    A single request with a timeout; transformers' requests for each file retry for minutes without a network.
    """
    from huggingface_hub import model_info
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    # OSError and the base error of the HTTP library, which differs between versions of huggingface_hub.
    unreachable = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    try:
        found: str | None = model_info(name, revision=revision, timeout=10).sha
    except (RepositoryNotFoundError, RevisionNotFoundError, ValueError) as error:
        raise unavailable(name, revision, error, local_only=False) from error
    except unreachable as error:
        logging.getLogger(__name__).info("the hub cannot be reached, looking in the local cache: %s", error)
        return None
    return found


def _from_pretrained(name: str, *, revision: str | None, local_only: bool) -> tuple[Model, AnyTokenizer]:
    """Model and tokenizer of a hub name or a directory, after checking that they match."""
    directory = directory_of(name, revision)
    own = _own(name, directory, revision) if directory is not None else None
    return own or _by_transformers(name, revision=revision, local_only=local_only)


def _own(name: str, directory: Path, revision: str | None = None) -> tuple[Model, Tokenizer] | None:
    """The same without transformers, from a directory or the hub's cache; None if that is not possible."""
    config = read_architecture(directory)
    if config is None or not (directory / WEIGHTS_FILE).is_file():
        return None
    try:
        tokenizer = Tokenizer.load(directory, pad_token_id=config.pad_token_id)
        if tokenizer is None:
            return None
        with torch.device("meta"):
            model = (Static if config.model_type == paths.STATIC else Roberta)(config).eval()
        missing = load_weights(model, directory)
    # For a damaged file, tokenizers raises Exception itself, and safetensors its own type.
    except Exception as error:
        raise unavailable(name, revision, error, local_only=True) from error
    _check_loaded(name, model, tokenizer, missing)
    return model, tokenizer


def directory_of(name: str, revision: str | None) -> Path | None:
    """The directory of an encoder's name, or of its revision in the hub's cache."""
    directory = paths.mini_dir() / paths.ENCODER_DIR if name == paths.MINI else recover(Path(name).expanduser())
    if directory.is_dir():
        return directory
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    return Path(file).parent if isinstance(file, str) else None


def _by_transformers(name: str, *, revision: str | None, local_only: bool) -> tuple[Model, AnyTokenizer]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where: dict[str, Any] = {"revision": revision, "local_files_only": local_only, "trust_remote_code": False}
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(name, **where)
            check_sizes(config, name=name)
            options = _architecture_options(config)
            _check_weights(name, revision, config, options)
            tokenizer = AutoTokenizer.from_pretrained(name, **where)
            model, report = AutoModel.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **where,
                **options,
            )
    except EncoderError:
        raise
    # The exceptions of transformers for missing, damaged or unsupported models have no common base.
    except Exception as error:
        raise unavailable(name, revision, error, local_only=local_only) from error
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key and "position_ids" not in key)
    _check_loaded(name, model, tokenizer, missing)
    return _as_ours(model.eval()), _plain(tokenizer)


def _check_weights(name: str, revision: str | None, config: Any, options: dict[str, Any]) -> None:
    """Refuse, of what is on this machine, a configuration that describes far more than the weights there."""
    from safetensors import safe_open
    from transformers import AutoModel

    directory = directory_of(name, revision)
    files = sorted(directory.glob("*.safetensors")) if directory is not None else []
    if not files:
        return
    there = 0
    for file in files:
        with safe_open(file, framework="np") as content:
            there += sum(math.prod(content.get_slice(key).get_shape()) for key in content.keys())  # noqa: SIM118
    with torch.device("meta"):
        model = AutoModel.from_config(config, **options)
    check_weights_suffice(sum(value.numel() for value in model.parameters()), there, name=name)


def _as_ours(model: PreTrainedModel) -> Model:
    """The same weights in our own implementation, if it supports the model."""
    document = model.config.to_dict()
    if not is_supported(document):
        return model
    with torch.device("meta"):
        own = Roberta(Architecture(document))
    weights = model.state_dict()
    own.load_state_dict({name: weights[name] for name in own.state_dict()}, assign=True)
    return own.requires_grad_(True).eval()


def _architecture_options(config: Any) -> dict[str, Any]:
    """SDPA attention and no pooler, if the architecture supports them."""
    from transformers import MODEL_MAPPING

    model_class = MODEL_MAPPING.get(type(config), None)
    if model_class is None or isinstance(model_class, tuple):
        return {"attn_implementation": "eager"}
    options: dict[str, Any] = {"attn_implementation": "sdpa" if model_class._supports_sdpa else "eager"}
    if "add_pooling_layer" in inspect.signature(model_class).parameters:
        options["add_pooling_layer"] = False
    return options


def _check_loaded(name: str, model: Any, tokenizer: Any, missing: list[str]) -> None:
    """Refuse random weights, token ids without an embedding, and other kinds of models."""
    if missing:
        raise EncoderError(
            f"the weights of {name} are incomplete: {len(missing)} are missing, such as {missing[0]}",
            hint="The checkpoint has another architecture, or the file is damaged: download it again.",
        )
    if model.config.is_encoder_decoder or model.get_input_embeddings() is None:
        raise EncoderError(
            f"{name} is a {model.config.model_type} model, not a text encoder",
            hint="Use an encoder such as roberta-base.",
        )
    _check_tokenizer(name, model, tokenizer)
    # Other families do not use this id, and some of their published configs have a wrong one.
    expected = model.config.pad_token_id if model.config.model_type in FAMILIES else tokenizer.pad_token_id
    if expected != tokenizer.pad_token_id:
        raise EncoderError(
            f"the tokenizer of {name} pads with id {tokenizer.pad_token_id}, but its {model.config.model_type} encoder "
            f"expects id {expected}: they do not match",
            hint="Copy the tokenizer files of the same model into its directory.",
        )


def _check_tokenizer(name: str, model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer without a padding token, or whose size does not match the encoder."""
    entries = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > entries or len(tokenizer) <= len(SPECIAL_TOKENS):
        raise EncoderError(
            f"the tokenizer of {name} has {len(tokenizer)} entries, but its encoder has {entries}: they do not match",
            hint="Copy the tokenizer files of the same model into its directory.",
        )
    if tokenizer.pad_token_id is None:
        raise EncoderError(f"the tokenizer of {name} has no padding token", hint="Use an encoder such as roberta-base.")


def _plain(tokenizer: Any) -> Any:
    """As in our own Tokenizer: `</s>` in a text is not special; stored padding and truncation are ignored."""
    tokenizer.split_special_tokens = True
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
    return tokenizer


def _check_directory(directory: Path) -> None:
    """Report what a local directory lacks; the messages of transformers refer to the hub."""
    if not (directory / "config.json").is_file():
        raise EncoderError(
            f"{directory} is not an encoder: it has no config.json",
            hint="Use a directory written by save_pretrained, or a hub name such as roberta-base.",
        )
    if not any(directory.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
        if pickles:
            raise EncoderError(
                f"{directory} stores its weights as a pickle ({pickles[0]}), which can run code when loaded",
                hint="If you trust the file, convert it to safetensors once with model.save_pretrained(directory).",
            )
        raise EncoderError(
            f"{directory} has no weights (model.safetensors)",
            hint="Copy the whole model, including the weights.",
        )
    if not any(path for pattern in _TOKENIZER_FILES for path in directory.glob(pattern)):
        raise EncoderError(
            f"{directory} has no tokenizer (tokenizer.json)",
            hint="Copy the tokenizer files of the same model, too.",
        )


def unavailable(name: str, revision: str | None, error: Exception, *, local_only: bool) -> EncoderError:
    """The error that says why an encoder cannot be loaded; with ``local_only``, the hub was not asked."""
    reason = first_line(error)
    if find_spec("sentencepiece") is None and re.search("sentencepiece|tiktoken|protobuf", reason, re.IGNORECASE):
        # transformers tries one package after the other, and names the last.
        return EncoderError(
            f"the tokenizer of {name} is a SentencePiece model, which needs one more package",
            hint='In the checkout: pip install ".[sentencepiece]"',
        )
    if Path(name).expanduser().is_dir():
        return EncoderError(f"the encoder in {name} cannot be loaded: {reason}", hint="Copy or save it again.")
    at = f" (revision {revision})" if revision else ""
    local = "or set encoder.name to a local directory with it (config.json, model.safetensors, tokenizer.json)"
    no_download = "The encoders mini, static and scratch need no download: --set encoder.name=mini"
    if "safetensors" in reason and "not appear" in reason:
        return EncoderError(
            f"the encoder {name}{at} has no model.safetensors on the hub, and pickles can run code when loaded",
            hint="Its page may offer a conversion as a pull request: set encoder.revision to refs/pr/N.",
        )
    if local_only:
        return EncoderError(
            f"the encoder {name}{at} is not in the local Hugging Face cache, and the hub is out of reach (offline)",
            hint=f"Run `senthy fetch` while online, {local}. {no_download}",
        )
    return EncoderError(
        f"the encoder {name}{at} cannot be loaded from the Hugging Face hub: {reason}",
        hint=f"Check the name and the network, {local}. {no_download}",
    )


def _offline_environment() -> bool:
    return any(
        os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and warnings of transformers, but not the hub's download progress."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    downloads_shown = not are_progress_bars_disabled()
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    if downloads_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if not downloads_shown:
            disable_progress_bars()
