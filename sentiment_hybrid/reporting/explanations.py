"""Explanations as one HTML page that needs no other file: words on green and red, the weights in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sentiment_hybrid.files import replace_text
from sentiment_hybrid.reporting.rendering import environment

#: The columns of a word of a corpus.
CORPUS_COLUMNS = ("word", "example", "texts", "mean", "total")


def write_explanations(
    path: Path,
    explanations: Sequence[Mapping[str, Any]] = (),
    words: Mapping[str, Sequence[Sequence[object]]] = MappingProxyType({}),
    *,
    title: str,
    about: str,
) -> None:
    """Write texts with their words marked, and the words of labels.

    Args:
        explanations: text, label, score, logit, baseline, unread, and words: word, start, end, weight, attention.
        words: of each label, as CORPUS_COLUMNS say.

    Raises:
        OutputError: it cannot be written.
    """
    template = environment("sentiment_hybrid.reporting").get_template("explanations.html")
    facts = {"title": title, "about": about, "explanations": explanations, "words": words}
    replace_text(path, template.render(corpus_columns=CORPUS_COLUMNS, **facts))
