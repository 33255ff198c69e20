"""Jinja environments over the templates of a package: a misspelt name is an error, and tags leave no blank lines."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, *, html: bool = True, **filters: Callable[..., object]) -> Environment:
    """The templates in the folder ``templates`` of a package, in which values are escaped if they are HTML."""
    found = Environment(
        loader=PackageLoader(package),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= filters
    return found
