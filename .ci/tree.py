"""Prints the package tree with the first sentence of each module's docstring; --write puts it into the documents."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sentiment_hybrid"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: python .ci/tree.py --write -->\n```text\n", "```\n<!-- end of tree -->"
WIDTH, INDENT = 120, 28


def summary(module: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<!et al)\. ", paragraph)[0].rstrip(".")


def entries(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line or more for a package and each module in it, subpackages last."""
    yield from entry(f"{folder.name}/", summary(folder / "__init__.py"), depth)
    for module in sorted(folder.glob("*.py")):
        if module.name != "__init__.py":
            yield from entry(module.name, summary(module), depth + 1)
    for child in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from entries(child, depth + 1)


def entry(name: str, words: str, depth: int) -> list[str]:
    """A name and its summary, in two columns."""
    first = f"{'  ' * depth}{name:<{INDENT - 2 * depth - 1}} "
    rest = " " * INDENT
    lines = textwrap.wrap(words, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return lines or [first.rstrip()]


def tree() -> str:
    """The whole block."""
    return "".join(f"{line}\n" for line in entries(PACKAGE))


def page_with(block: str) -> str:
    """The page with ``block`` in place of its tree."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + block + END + after


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with(tree()), encoding="utf-8")
    else:
        sys.stdout.write(tree())
