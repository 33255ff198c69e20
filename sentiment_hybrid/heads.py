"""The registry of heads: names and import strings, so that naming a head imports neither pydantic nor torch.

A package adds a head of its own by an entry point of the group `sentiment_hybrid.heads`, whose name is that of the head
and whose value is a `Head`.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

GROUP = "sentiment_hybrid.heads"
ROBERTA = "RoBERTa"
#: Families of encoders, by a word in their names; one word before those that it contains.
_FAMILIES = (
    ROBERTA,
    "MiniLM",
    "MPNet",
    "DeBERTa",
    "ModernBERT",
    "DistilBERT",
    "ALBERT",
    "ELECTRA",
    "CamemBERT",
    "BERT",
)


@dataclass(frozen=True)
class Head:
    """One head, by import strings ``package.module:Name``.

    display_name: what results and figures call a model with this head on a RoBERTa encoder.
    config: its section of the configuration, a `config.sections.Section`; importing it must not import torch.
    module: its ``nn.Module``, called as ``Name(config, input_size=H, num_classes=C)``, with the ``forward`` that
        models/classifier.py describes. Its last ``nn.Linear`` is the output layer.
    """

    display_name: str
    config: str
    module: str


_BUILT_IN = {
    "lstm": Head("LSTMRoBERTa", "sentiment_hybrid.config.heads:LstmHead", "sentiment_hybrid.models.lstm:LstmHead"),
    "han": Head("HANRoBERTa", "sentiment_hybrid.config.heads:HanHead", "sentiment_hybrid.models.han:HanHead"),
    "linear": Head(
        "LinearRoBERTa", "sentiment_hybrid.config.heads:LinearHead", "sentiment_hybrid.models.linear:LinearHead"
    ),
}


def _plugins() -> dict[str, Head]:
    found: dict[str, Head] = {}
    for entry in entry_points(group=GROUP):
        try:
            head = entry.load()
        # A package that is broken must not take every command with it.
        except Exception as error:  # noqa: BLE001
            warnings.warn(f"the head {entry.name} of {entry.value} cannot be loaded: {error}", stacklevel=2)
            continue
        if entry.name in _BUILT_IN or not entry.name.isidentifier() or not isinstance(head, Head):
            warnings.warn(f"{entry.value} is not a head that can be called {entry.name}", stacklevel=2)
            continue
        found[entry.name] = head
    return found


HEADS: dict[str, Head] = {**_BUILT_IN, **_plugins()}


def display_name(head: str, family: str = ROBERTA) -> str:
    """What results call a model: ``HANRoBERTa``, or ``HAN-MiniLM`` on an encoder of another family.

    The name itself if no such head is installed.
    """
    name = HEADS[head].display_name if head in HEADS else head
    return name if family == ROBERTA else f"{name.removesuffix(ROBERTA)}-{family}"


def encoder_family(encoder: str) -> str:
    """The family of the encoder that a config names, from its config.json if it is a directory, or its name."""
    if encoder in {"mini", "scratch"}:
        return ROBERTA
    place = Path(encoder).expanduser()
    try:
        architecture = str(json.loads((place / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return _family_in(place.name) or place.name
    if _family_in(architecture) == ROBERTA:
        return ROBERTA
    return _family_in(place.name.lower().replace("roberta", "")) or _family_in(architecture) or architecture


def _family_in(text: str) -> str | None:
    return next((family for family in _FAMILIES if family.lower() in text.lower()), None)
