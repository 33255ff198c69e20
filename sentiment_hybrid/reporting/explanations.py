"""Explanations as one HTML page that needs no other file: words on green and red, the weights in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentiment_hybrid.files import replace_text
from sentiment_hybrid.reporting.rendering import environment

#: The columns of a word of a corpus.
CORPUS_COLUMNS = ("word", "example", "texts", "mean", "total")


def write_explanations(path: Path, explanations: Sequence[Mapping[str, Any]], *, title: str, about: str) -> None:
    """Write texts with their words marked.

    Args:
        explanations: text, label, score, logit, baseline, unread, and words: word, start, end, weight, attention.

    Raises:
        OutputError: it cannot be written.
    """
    _write(path, title=title, about=about, explanations=explanations, words={})


def write_corpus(path: Path, words: Mapping[str, Sequence[Sequence[object]]], *, title: str, about: str) -> None:
    """Write the words of each label, as CORPUS_COLUMNS say. Raises OutputError."""
    _write(path, title=title, about=about, explanations=(), words=words)


def _write(path: Path, **facts: object) -> None:
    template = environment("sentiment_hybrid.reporting").get_template("explanations.html")
    replace_text(path, template.render(corpus_columns=CORPUS_COLUMNS, **facts))
