"""The card of a model directory (README.md): written with the model, and given the figures of later tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.files import replace_text
from sentiment_hybrid.reporting.card import NAMED, Tested, new_card, taken_over, with_figures

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.model_directory import ModelInfo


@dataclass(frozen=True)
class Card:
    """What a card says beside model.json.

    ``named`` are license, language and datasets, as far as the user named them; ``settings`` are those of the training;
    an ``export`` has facts about its graph; the figures are taken over from ``original``, a model directory.
    """

    named: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] | None = None
    original: Path | None = None


def named(config: Config) -> dict[str, Any]:
    """What the user has named for the header of a card."""
    values = config.models.model_dump(mode="json", include=set(NAMED))
    return {name: value for name, value in values.items() if value}


def card_of(config: Config, head: str, **sections: Any) -> Card:
    """The card of a training: its encoder, head and training settings, or other ``sections``."""
    model = config.model(head)
    settings = {
        "encoder": config.encoder.facts(without={"scratch"}),
        head: {"head": model.head.model_dump(mode="json"), "train": model.train.model_dump(mode="json")},
        "project": {"seed": config.project.seed},
    }
    return Card(named(config), {**settings, **sections})


def write_card(directory: Path, info: ModelInfo, card: Card) -> None:
    """Write the card into a model directory that is being made."""
    text = _new(info, card)
    if card.original is not None:
        with contextlib.suppress(OSError, ValueError):  # the original has none, or one of somebody else
            original = (card.original / paths.MODEL_CARD).read_text(encoding="utf-8")
            text = taken_over(text, original, same=card.export is None)
    (directory / paths.MODEL_CARD).write_text(text, encoding="utf-8", newline="\n")


def _new(info: ModelInfo, card: Card) -> str:
    encoder = _encoder(info)
    tags = ["sentiment-analysis", "senthy", info.head, *(["onnx"] if card.export else [])]
    header = {
        "pipeline_tag": "text-classification",
        "library_name": "senthy",
        "tags": tags,
        "metrics": ["accuracy", "f1"],
        **({"base_model": encoder} if info.encoder_revision else {}),
        **card.named,
    }
    facts = {
        "title": info.name or info.display_name,
        "info": asdict(info),
        "encoder": encoder,
        "export": card.export,
        "versions": {name: info.versions[name] for name in ("senthy", "torch") if name in info.versions},
        "coding": [pair for pair in (info.label_coding or {}).items() if pair[0] != pair[1]],
        "settings": yaml.safe_dump(_settings(info, card), sort_keys=False, allow_unicode=True).rstrip(),
    }
    return new_card(header, facts)


def _encoder(info: ModelInfo) -> str:
    """The encoder's name; of a folder, whose path is private to the machine, the last part."""
    place = Path(info.encoder_name).expanduser()
    return info.encoder_name if info.encoder_revision or not (place.is_absolute() or place.is_dir()) else place.name


def _settings(info: ModelInfo, card: Card) -> dict[str, Any]:
    if not card.settings:
        return {info.head: {"head": info.head_config}}
    encoder = card.settings.get("encoder")
    return {**card.settings, **({"encoder": {**encoder, "name": _encoder(info)}} if encoder else {})}


def add_figures(config: Config, places: Iterable[Path], info: ModelInfo, tests: Sequence[Tested]) -> None:
    """Add tests to the cards of a model, and what the user has named since; a note says why one is left as it is.

    A model of an earlier version gets a card.
    """
    for place in places:
        file = place / paths.MODEL_CARD
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else _new(info, Card())
            replace_text(file, with_figures(text, tests, name=info.name or info.run_id, named=named(config)))
        except (OSError, ValueError, OutputError) as error:
            note(f"{file} does not get the figures of this test: {error}")
