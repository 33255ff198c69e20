"""Heads by name: their classes, their settings, fresh ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sentiment_hybrid.config.sections import Section
from sentiment_hybrid.errors import ConfigError, ModelError
from sentiment_hybrid.heads import HEADS, resolve

if TYPE_CHECKING:
    from torch import nn


def head_class(name: str) -> type[nn.Module]:
    """The class of a head. Raises ConfigError for a name that is not registered, with the near ones."""
    if name not in HEADS:
        near = difflib.get_close_matches(name, HEADS, n=1)
        mean = f"Did you mean `{near[0]}`? " if near else ""
        raise ConfigError(f"there is no model called {name!r}", hint=f"{mean}Known models: {', '.join(HEADS)}.")
    found: type[nn.Module] = resolve(HEADS[name].module)
    return found


def head_config(name: str, values: Mapping[str, Any]) -> Section:
    """The head's config section from plain values, as ``model.json`` keeps them.

    Raises:
        ConfigError: the name is not registered.
        ModelError: the values do not fit the section; every misfit is named.
    """
    head_class(name)
    section: type[Section] = resolve(HEADS[name].config)
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        misfits = "; ".join(f"{'.'.join(map(str, item['loc'])) or name}: {item['msg']}" for item in error.errors())
        raise ModelError(
            f"the stored settings of the {name} head do not fit this program: {misfits}",
            hint="The model was made by another version, or its files were edited: train it again.",
        ) from error


def build_head(name: str, head_config: Section, *, input_size: int, num_classes: int) -> nn.Module:
    """A head with fresh weights; its ``forward`` is the one that models/classifier.py describes.

    Args:
        name: a key of HEADS.
        head_config: the head's section of the config (``config.lstm.head``).
        input_size: width of a token state, H.
        num_classes: labels, at least 2.

    Raises:
        ConfigError: the name is not registered.
        ValueError: fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
    return head_class(name)(head_config, input_size=input_size, num_classes=num_classes)


def renew_output(head: nn.Module, num_classes: int) -> None:
    """Give a head a fresh output layer for other classes, in place; all below it stays as it was trained."""
    from torch import nn

    # The output layer is the last linear layer of every head; a test goes through all of them.
    name, old = [(name, module) for name, module in head.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, attribute = name.rpartition(".")
    setattr(head.get_submodule(parent), attribute, nn.Linear(old.in_features, num_classes))
