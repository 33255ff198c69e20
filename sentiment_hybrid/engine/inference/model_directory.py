"""Model directories: safetensors and JSON, written atomically, never a pickle."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from sentiment_hybrid import paths
from sentiment_hybrid.config.sections import MaxLength, MaxWindows, TrainableLayers
from sentiment_hybrid.errors import EncoderError, ModelError
from sentiment_hybrid.files import (
    atomic_dir,
    link_or_copy,
    read_json,
    recover,
    save_tensors,
    sha256,
    write_json,
    written,
)
from sentiment_hybrid.heads import HEADS, ROBERTA, display_name

if TYPE_CHECKING:
    from sentiment_hybrid.engine.evaluation.seen import SeenTexts
    from sentiment_hybrid.engine.inference.model_card import Card
    from sentiment_hybrid.models.classifier import Classifier
    from sentiment_hybrid.models.encoder.hub import LoadedEncoder

FORMAT_VERSION = 1
#: Files of a tokenizer or an encoder that decide what is computed; the weights have checksums of their own.
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
#: The entry of model.json that is the checksum of all others.
_CHECKSUM = "checksum"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of a model: the content of model.json."""

    head: str
    head_config: dict[str, Any]
    labels: tuple[str, ...]
    normalizer: str
    max_length: MaxLength
    max_windows: MaxWindows
    encoder_name: str
    encoder_revision: str | None
    encoder_fingerprint: str
    encoder_inside: bool
    trainable_layers: TrainableLayers
    data_fingerprint: str
    split_fingerprint: str
    train_fingerprint: str
    run_id: str
    created: str
    train_rows: Annotated[int, Field(ge=0, le=10**12)]
    weights_sha256: str = ""
    #: sha256 of the other files that decide what is computed, by name, such as ``tokenizer/tokenizer.json``.
    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    #: For a fine-tuned model: path, weights_sha256, run_id and created of the original model, and its parent.
    parent: dict[str, Any] | None = None
    #: Whether it was also trained on the validation rows; ``train_rows`` does not count them.
    trained_on_valid: bool = False
    #: The first rows of the validation split, which selected the epoch or hyperparameters, calibrated, or were trained
    #: on; None in models of earlier versions.
    valid_rows: Annotated[int, Field(ge=0, le=10**12)] | None = None
    #: The validation rows that were set aside for thresholds (``train.promise_size``).
    set_aside: Annotated[int, Field(ge=0, le=10**12)] = 0
    #: Divides the logits, so that probabilities are calibrated; fitted on the validation rows.
    temperature: Annotated[float, Field(ge=0.01, le=100.0)] = 1.0
    #: Accuracy, macro_f1 and loss on the validation rows; empty without any.
    valid: dict[str, float] = field(default_factory=dict)
    #: The source of its database.
    data: str = ""
    #: Name given by the user (``--name``).
    name: str = ""
    #: As in `heads.encoder_family`.
    encoder_family: str = ROBERTA
    #: Value -> label in the training data.
    label_coding: dict[str, str] | None = None
    #: Column of the training texts.
    text_column: str | None = None

    @property
    def display_name(self) -> str:
        """``LSTMRoBERTa``."""
        return display_name(self.head, self.encoder_family)

    @property
    def ancestors(self) -> list[dict[str, Any]]:
        """The parent of a fine-tuned model, its parent, and so on."""
        found, parent = [], self.parent
        while parent is not None:
            found.append(parent)
            parent = parent.get("parent")
        return found


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to classify, in eval mode on the CPU."""

    classifier: Classifier
    encoder: LoadedEncoder
    info: ModelInfo
    directory: Path


def save_model(
    directory: Path,
    *,
    classifier: Classifier,
    encoder: LoadedEncoder,
    info: ModelInfo,
    bundle: bool,
    seen: SeenTexts | None = None,
    card: Card | None = None,
) -> None:
    """Write a model directory atomically; an old one is replaced.

    ``bundle`` includes the encoder; the tokenizer is always included. ``seen`` are training texts that are not in its
    database, ``card`` what its model card adds. If the process is killed, `load_model` finds the old or the new model.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; the old model is unchanged.
    """
    from sentiment_hybrid.engine.inference.model_card import Card, write_card
    from sentiment_hybrid.models.encoder.hub import save_encoder

    with written(directory), atomic_dir(directory) as aside:
        weights = {name: value.detach().cpu() for name, value in classifier.head.state_dict().items()}
        if not all(value.isfinite().all() for value in weights.values()):
            raise ModelError("the trained weights are not finite numbers", hint="Lower the learning rate, train again.")
        save_tensors(aside / paths.MODEL_WEIGHTS, weights)
        if bundle:
            save_encoder(encoder.model, encoder.tokenizer, aside / paths.ENCODER_DIR)
        else:
            encoder.tokenizer.save_pretrained(aside / paths.TOKENIZER_DIR)
        if seen is not None:
            seen.save(aside / paths.SEEN_TEXTS)
        digest = sha256(aside / paths.MODEL_WEIGHTS)
        info = replace(info, encoder_inside=bundle, weights_sha256=digest, files=checksums(aside, encoder=bundle))
        write_info(aside, info)
        write_card(aside, info, card or Card())


def write_info(directory: Path, info: ModelInfo, **more: Any) -> None:
    """Write model.json: the metadata, ``more`` about an export, and the checksum of both."""
    document = {**asdict(info), **more}
    write_json(directory / paths.MODEL_JSON, {**document, _CHECKSUM: _checksum(document)})


def _checksum(document: dict[str, Any]) -> int:
    values = {name: value for name, value in document.items() if name != _CHECKSUM}
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def checksums(directory: Path, *, encoder: bool) -> dict[str, str]:
    """sha256 of the tokenizer's files of a model directory and, with ``encoder``, of those of the encoder inside."""
    places = {paths.TOKENIZER_DIR: directory / paths.TOKENIZER_DIR}
    if encoder:
        places[paths.ENCODER_DIR] = _encoder_inside(directory)
    return {
        f"{place}/{name}": sha256(folder / name)
        for place, folder in places.items()
        for name in _SMALL_FILES
        if (folder / name).is_file()
    }


def check_files(directory: Path, info: ModelInfo, *, encoder: bool) -> None:
    """Raises ModelError when a file is not the one that was saved; earlier versions noted none."""
    for name, found in checksums(directory, encoder=encoder).items():
        if info.files.get(name, found) != found:
            raise ModelError(
                f"{name} of {directory} is not the file that was saved with this model",
                hint="Restore the directory, or train again.",
            )


def _encoder_inside(directory: Path) -> Path:
    """Where a model directory keeps its encoder; models that were packed together have one, beside them."""
    inside, beside = (place / paths.ENCODER_DIR for place in (directory, directory.parent))
    return beside if beside.is_dir() and not inside.exists() else inside


def read_info(directory: Path) -> ModelInfo:
    """The validated metadata of a model directory.

    Raises:
        ModelError: there is no model, only a pickle, or it is damaged or of a newer format.
    """
    recover(directory)
    path = directory / paths.MODEL_JSON
    if not path.is_file():
        raise no_model(directory)
    try:
        document = read_json(path)
        version = document["format_version"]
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            f"{directory} has model format {version}, but this version of senthy reads up to {FORMAT_VERSION}",
            hint="Upgrade senthy.",
        )
    if missing := {"weights_sha256", "versions"} - document.keys():  # what no earlier version lacks
        raise _damaged(path, f"it lacks {', '.join(sorted(missing))}")
    info = _checked(document, path)
    if document.get(_CHECKSUM) not in (None, _checksum(document)):
        raise ModelError(
            f"{path} is damaged: its checksum is wrong",
            hint=f"Restore the directory, or train again. If you changed the file yourself, remove its {_CHECKSUM}.",
        )
    return info


def head_of(directory: Path, wanted: str | None = None) -> str:
    """The head of a model. Raises ModelError, as `read_info`, or if another one is wanted."""
    head = read_info(directory).head
    if wanted not in (None, head):
        raise ModelError(f"{directory} is a {head} model, not {wanted}", hint=f"Use --model {head}.")
    return head


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(f"{file} is damaged: {why}", hint="Train again, or restore the directory.")


def _checked(document: dict[str, Any], path: Path) -> ModelInfo:
    """Metadata with valid types and values. Raises ModelError."""
    try:
        info = TypeAdapter(ModelInfo).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise _damaged(path, wrong) from error
    if len(set(info.labels)) < max(2, len(info.labels)):
        raise _damaged(path, f"its labels are {', '.join(info.labels) or 'none'}, but two or more are required")
    if info.head not in HEADS:
        raise ModelError(
            f"{path} names an unknown head: {info.head}",
            hint=f"Known heads: {', '.join(HEADS)}. Upgrade senthy, install the package of the head, or train again.",
        )
    return info


def load_model(directory: Path, *, encoder: str | Path | None = None, offline: bool = False) -> LoadedModel:
    """Load a model directory onto the CPU, with its own sizes, labels, tokenizer and encoder.

    ``encoder`` is a local copy of the frozen encoder, if it is not included; it must be the one used in training.

    Raises:
        ModelError: as read_info, or the weights are damaged or do not fit.
        EncoderError: the encoder is unavailable, or another one.
    """
    import torch
    from safetensors.torch import load_file

    from sentiment_hybrid.models import build_head, head_config
    from sentiment_hybrid.models.classifier import Classifier
    from sentiment_hybrid.models.encoder.module import Encoder

    info = read_info(directory)
    weights_path = directory / paths.MODEL_WEIGHTS
    if not weights_path.is_file():
        raise no_model(directory)
    settings = head_config(info.head, info.head_config)
    check_files(directory, info, encoder=info.encoder_inside)
    loaded = _load_encoder(directory, info, encoder, offline)
    try:
        weights = load_file(weights_path)
    except Exception as error:  # safetensors raises its own type for any damage
        raise _damaged(weights_path, str(error)) from error
    if info.weights_sha256 and sha256(weights_path) != info.weights_sha256:
        raise ModelError(f"{weights_path} is not the file that was saved with this model", hint="Train again.")
    if not all(value.isfinite().all() for value in weights.values()):
        raise ModelError(f"{weights_path} has weights that are not finite numbers", hint="Train again.")
    shared = Encoder(loaded.model, 0)
    with torch.device("meta"):  # no random weights: the file replaces them
        head = build_head(info.head, settings, input_size=shared.hidden_size, num_classes=len(info.labels))
    try:
        head.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{weights_path} does not fit its model.json", hint="Train again.") from error
    classifier = Classifier(shared, head, temperature=info.temperature)
    classifier.eval()
    return LoadedModel(classifier, loaded, info, directory)


def publish_copy(source: Path, directory: Path) -> None:
    """Copy a model directory atomically."""
    with written(directory), atomic_dir(directory) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True, copy_function=link_or_copy)


def _load_encoder(directory: Path, info: ModelInfo, given: str | Path | None, offline: bool) -> LoadedEncoder:
    from sentiment_hybrid.config.schema import Encoder as EncoderConfig
    from sentiment_hybrid.models.encoder.hub import load_encoder, load_encoder_dir, load_tokenizer
    from sentiment_hybrid.models.encoder.module import max_positions

    if info.encoder_inside:
        loaded = load_encoder_dir(_encoder_inside(directory))
        hint = "The model directory is damaged; train again."
    else:
        name = str(given) if given is not None else info.encoder_name
        config = EncoderConfig(name=name, revision=None if given else info.encoder_revision, max_length=info.max_length)
        loaded = load_encoder(config, offline=offline, check_length=False)
        hint = f"It was trained on {info.encoder_name} (revision {info.encoder_revision}); set --encoder to it."
        if loaded.source == "package":
            hint = f"{loaded.name} is another encoder in this version of senthy: train again."
    if loaded.fingerprint != info.encoder_fingerprint:
        raise EncoderError(f"the encoder at {loaded.name} is not the one that {directory} was trained on", hint=hint)
    most = max_positions(loaded.model)
    if most is not None and info.max_length > most:
        why = f"max_length is {info.max_length}, but its encoder reads at most {most} tokens"
        raise _damaged(directory / paths.MODEL_JSON, why)
    kept = directory / paths.TOKENIZER_DIR
    if not info.encoder_inside and kept.is_dir():
        # Copies of the same weights may have other tokenizer settings; the model needs its own tokenizer.
        loaded = replace(loaded, tokenizer=load_tokenizer(kept, loaded.model))
    return loaded


def _remedy(directory: Path) -> str:
    """How to get a model where none is; if the published one of a head is missing, also those of other heads."""
    places = {paths.published_model(directory.parent, head): head for head in HEADS}
    others = [head for place, head in places.items() if directory in places and recover(place).is_dir()]
    found = " or ".join(others)
    start = f"Use the trained {found} model (--model {found}), or train one" if found else "Train one first"
    train = f"senthy train --model {places[directory]}" if directory in places else "senthy train"
    return f"{start} ({train}), or name another directory, or mini, mini-lstm or mini-han (--load-model-path)."


def no_model(directory: Path) -> ModelError:
    """The error of a directory that is not a model, with what it is instead."""
    why = f"{directory} is not a model directory: it lacks {paths.MODEL_JSON} or {paths.MODEL_WEIGHTS}"
    hint = "Use a directory written by `senthy train`."
    if not directory.exists():
        why = f"there is no model at {directory}"
        hint = _remedy(directory)
    elif not directory.is_dir():
        why = f"{directory} is a file, not a model directory"
    elif heads := sorted(head for head in HEADS if (directory / head / paths.MODEL_JSON).is_file()):
        why = f"{directory} is a pack of several models"
        hint = f"Use one of them: {', '.join(str(directory / head) for head in heads)}"
    elif pickles := sorted(file.name for file in directory.iterdir() if file.suffix in _PICKLES):
        why = f"{directory} has {', '.join(pickles)}, which can run code when loaded, but no "
        why += f"{paths.MODEL_WEIGHTS}; senthy never loads pickles"
    elif (directory / paths.ONNX_MODEL).is_file() and not (directory / paths.MODEL_JSON).is_file():
        why, hint = f"{directory} is a damaged ONNX export: it lacks {paths.MODEL_JSON}", "Export the model again."
    elif (directory / paths.ONNX_MODEL).is_file():
        why = f"{directory} is an ONNX export, which can only be used for prediction"
        hint = "Use it with senthy predict or Predictor, or use the original model directory."
    return ModelError(why, hint=hint)
