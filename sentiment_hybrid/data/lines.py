"""Many texts as the lines of one, so that a pattern runs over all at once; those that it does not suit stay apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BREAK, _SPACE = ord("\n"), ord(" ")


def odd_bytes(suited: str) -> bytes:
    """For ``joined``: a table of bytes that calls every character odd but these, all ASCII, and the line break."""
    plain = {*suited.encode("ascii"), _BREAK}
    return bytes(code not in plain for code in range(256))


def joined(texts: Sequence[str], odd: bytes | None = None) -> tuple[str, list[int]]:
    """The texts as lines, and the places of those that hold an odd character or a line break: their lines are empty.

    The lines are ASCII whatever the others hold. There is at least one text.

    Args:
        texts: to be joined.
        odd: of ``odd_bytes``; None calls odd what is not ASCII.
    """
    text = "\n".join(texts)
    plain = list(texts)
    if text.count("\n") >= len(texts):
        plain = ["\x80" if "\n" in one else one for one in texts]
        text = "\n".join(plain)
    if odd is None:
        places = [place for place, ascii_only in enumerate(map(str.isascii, plain)) if not ascii_only]
    else:
        data = text.encode("utf-8", "surrogatepass")
        found = np.flatnonzero(np.frombuffer(data.translate(odd), dtype=bool))
        breaks = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _BREAK) if len(found) else found
        places = np.unique(np.searchsorted(breaks, found)).tolist()
    if places:
        for place in places:
            plain[place] = ""
        text = "\n".join(plain)
    return text, places


def squeezed(text: str) -> str:
    """ASCII lines with each run of spaces as one, and none at their ends."""
    data = np.frombuffer(f"\n{text}\n".encode("ascii"), dtype=np.uint8)
    space = data == _SPACE
    data = data[1:][~(space[1:] & (space | (data == _BREAK))[:-1])]
    # Of the spaces at the end of a line one is left.
    data = data[:-1][~((data[:-1] == _SPACE) & (data[1:] == _BREAK))]
    return data.tobytes().decode("ascii")
