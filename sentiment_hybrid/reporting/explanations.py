"""Explanations as one HTML page that needs no other file: words on green and red, the weights in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sentiment_hybrid.files import replace_text

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --for: 26, 152, 80; --against: 215, 48, 39; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .2rem; }}
p.text {{ margin: .3rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }}
mark {{ color: inherit; background: none; border-radius: .2rem; padding: 0 .1rem; }}
mark.against {{ text-decoration: underline dotted; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .1rem .8rem .1rem 0; text-align: right; vertical-align: top; white-space: nowrap; }}
.words {{ text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 4rem; }}
small {{ opacity: .75; }}
@media print {{ mark {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }} }}
</style>
<h1>{title}</h1>
<p><small>{about}</small></p>
{body}
</html>
"""
#: The columns of a word of a corpus.
CORPUS_COLUMNS = ("word", "example", "texts", "mean", "total")
_WORDS = ("word", "weight", "attention")
_TEXTS = ("word", "example")
_STRONGEST = 0.6  # opacity of the largest weight


def write_explanations(path: Path, explanations: Sequence[Mapping[str, Any]], *, title: str, about: str) -> None:
    """Write texts with their words marked.

    Args:
        explanations: text, label, score, logit, baseline, unread, and words: word, start, end, weight, attention.

    Raises:
        OutputError: it cannot be written.
    """
    _write(path, title, about, "\n".join(map(_text, explanations)))


def write_corpus(path: Path, words: Mapping[str, Sequence[Sequence[object]]], *, title: str, about: str) -> None:
    """Write the words of each label, as CORPUS_COLUMNS say. Raises OutputError."""
    tables = (f"<h2>{escape(label)}</h2>\n{_table(CORPUS_COLUMNS, rows)}" for label, rows in words.items())
    _write(path, title, about, "\n".join(tables))


def _write(path: Path, title: str, about: str, body: str) -> None:
    page = _PAGE.format(title=escape(title), about=escape(about), body=body)
    replace_text(path, page)


def _text(one: Mapping[str, Any]) -> str:
    if one["label"] is None:
        return "<h2>No label</h2>\n<p class=text><small>The text is empty after cleaning.</small></p>"
    facts = f"{one['score']:.1%}"
    if one["baseline"] is not None:
        facts += f", logit {one['baseline']:+.2f} without the words and {one['logit']:+.2f} with them"
    if one["error"] and abs(one["error"]) > 0.01 * max(1.0, abs(one["logit"] - one["baseline"])):
        facts += f"; the weights are estimates, which sum to {one['logit'] - one['baseline'] + one['error']:+.2f}"
    unread = f"<p><small>{one['unread']:,} further characters were not read.</small></p>" if one["unread"] else ""
    rows = [(word["word"], f"{word['weight']:+.3f}", f"{word['attention']:.3f}") for word in one["words"]]
    return (
        f"<h2>{escape(one['label'])} <small>{facts}</small></h2>\n<p class=text>{_marked(one)}</p>\n{unread}"
        f"<details><summary>Weights</summary>\n{_table(_WORDS, rows)}\n</details>"
    )


def _marked(one: Mapping[str, Any]) -> str:
    largest = max((abs(word["weight"]) for word in one["words"]), default=0.0) or 1.0
    parts, end = [], 0
    for word in one["words"]:
        share = _STRONGEST * abs(word["weight"]) / largest
        kind = "against" if word["weight"] < 0 else "for"
        parts += [
            escape(one["text"][end : word["start"]]),
            f'<mark class={kind} style="background:rgba(var(--{kind}),{share:.2f})" title="{word["weight"]:+.3f}">'
            f"{escape(word['word'])}</mark>",
        ]
        end = word["end"]
    return "".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    kinds = [" class=words" if name in _TEXTS else "" for name in columns]
    head = "".join(f"<th scope=col{kind}>{escape(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(str(value))}</td>" for value, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"
