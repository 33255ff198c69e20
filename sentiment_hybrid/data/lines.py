"""Many texts as the lines of one, so that a pattern runs over all at once; texts that this does not suit stay apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_BREAK, _SPACE = ord("\n"), ord(" ")


def odd_bytes(suited: str) -> bytes:
    """For ``joined``: a table of bytes that marks every character as odd but these, all ASCII, and the line break."""
    plain = {*suited.encode("ascii"), _BREAK}
    return bytes(code not in plain for code in range(256))


def joined(texts: Sequence[str], odd: bytes | None = None) -> tuple[str, list[int]]:
    """The texts as lines of ASCII, and the places of those whose line is empty instead.

    These contain a line break, a character that is not ASCII, or one of ``odd`` (see ``odd_bytes``). There is at least
    one text.
    """
    apart = [place for place, plain in enumerate(map(str.isascii, texts)) if not plain]
    lines = _without(texts, apart)
    text = "\n".join(lines)
    if text.count("\n") >= len(lines):
        breaks = [place for place, line in enumerate(lines) if "\n" in line]
        lines, apart = _without(lines, breaks), apart + breaks
        text = "\n".join(lines)
    if odd is None:
        return text, apart
    data = text.encode()
    found = np.flatnonzero(np.frombuffer(data.translate(odd), dtype=bool))
    if len(found):
        ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _BREAK)
        places = np.unique(np.searchsorted(ends, found)).tolist()
        text, apart = "\n".join(_without(lines, places)), apart + places
    return text, apart


def _without(lines: Sequence[str], places: Iterable[int]) -> list[str]:
    """The lines, those at these places empty."""
    rest = list(lines)
    for place in places:
        rest[place] = ""
    return rest


def squeezed(text: str) -> str:
    """ASCII lines with each run of spaces as one, and none at their ends."""
    data = np.frombuffer(f"\n{text}\n".encode("ascii"), dtype=np.uint8)
    space = data == _SPACE
    data = data[1:][~(space[1:] & (space | (data == _BREAK))[:-1])]
    # One space is left of those at the end of a line.
    data = data[:-1][~((data[:-1] == _SPACE) & (data[1:] == _BREAK))]
    return data.tobytes().decode("ascii")
