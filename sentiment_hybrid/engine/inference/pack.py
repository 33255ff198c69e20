"""Models that share an encoder in one folder: the encoder once, every weight in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sentiment_hybrid import paths
from sentiment_hybrid.engine.inference.model_card import Card, write_card
from sentiment_hybrid.engine.inference.model_directory import LoadedModel, checksums, write_info
from sentiment_hybrid.errors import ModelError
from sentiment_hybrid.files import save_tensors, sha256
from sentiment_hybrid.models.encoder.hub import load_encoder_dir, save_encoder
from sentiment_hybrid.models.encoder.module import encoder_fingerprint
from sentiment_hybrid.models.encoder.roberta import WEIGHTS_FILE


def pack(models: Sequence[LoadedModel], directory: Path) -> None:
    """Write ``encoder/`` and a model directory for each head into ``directory``, which exists and is empty.

    Raises:
        ModelError: they do not share an encoder, or two have the same head.
        OutputError: it cannot be written.
    """
    first = models[0]
    if len({model.info.encoder_fingerprint for model in models}) > 1:
        raise ModelError(
            "these models do not share an encoder, and a pack has one",
            hint="Train the heads together (senthy train --model joint), or on a frozen encoder.",
        )
    if len({model.info.head for model in models}) < len(models):
        raise ModelError("two of these models have the same head", hint="Pack one model of each head.")
    encoder = directory / paths.ENCODER_DIR
    save_encoder(first.encoder.model, first.encoder.tokenizer, encoder)
    _write_half(encoder / WEIGHTS_FILE, first.encoder.model)
    # Of the stored, rounded weights.
    fingerprint = encoder_fingerprint(load_encoder_dir(encoder).model)
    for model in models:
        place = directory / model.info.head
        place.mkdir()
        _write_half(place / paths.MODEL_WEIGHTS, model.classifier.head)
        info = replace(
            model.info,
            encoder_fingerprint=fingerprint,
            encoder_inside=True,
            weights_sha256=sha256(place / paths.MODEL_WEIGHTS),
            files=checksums(place, encoder=True),
        )
        write_info(place, info)
        write_card(place, info, Card(original=model.directory))


def _write_half(path: Path, module: torch.nn.Module) -> None:
    """Write weights as float16, which has three more mantissa bits than bfloat16; weights are in its range."""
    weights = {name: value.detach().cpu().to(torch.float16) for name, value in module.state_dict().items()}
    save_tensors(path, weights)
