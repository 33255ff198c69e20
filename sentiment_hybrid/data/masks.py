"""Masks handles and links of tweets, by version: what normalisers and split keys replace by `@user` and `http`."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What a link may hold behind its scheme (RFC 3986), parentheses in pairs. Punctuation at its end is the sentence's.
_INSIDE = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'*+,;=%]"
_LAST = r"[A-Za-z0-9\-_~/#@$&*+=%]"
_ADDRESS = rf"(?:{_INSIDE}*(?:{_LAST}|\({_INSIDE}*\)))+"
#: Letters with accents: a name that goes on with one is no handle, and composing them must not make it one.
_ACCENTED = r"\u00c0-\u024f\u0300-\u036f\u1e00-\u1eff"
_NAME = rf"[A-Za-z0-9_]{{1,15}}(?![A-Za-z0-9_{_ACCENTED}])"


@dataclass(frozen=True)
class Masks:
    """One version of the rules. Patterns start with plain characters, so that the search can jump to them.

    One pattern for all of them is twenty times as slow.
    """

    link: re.Pattern[str]
    www: re.Pattern[str]
    handle: re.Pattern[str]
    #: Links in capitals too.
    any_link: re.Pattern[str]

    def lower(self, text: str) -> str:
        """The text with its handles, and those links that are written in lower case, masked."""
        if "://" in text:
            text = self.link.sub("http", text)
        if "www." in text:
            text = self.www.sub("http", text)
        return self.handle.sub("@user", text) if "@" in text else text

    def all(self, text: str) -> str:
        """The text with all handles and links masked."""
        if "://" in text or "www." in text.lower():
            text = self.any_link.sub("http", text)
        return self.lower(text)


def _masks(address: str, handle: str) -> Masks:
    return Masks(
        link=re.compile(rf"https?://{address}"),
        # The look-behinds stand after what the search can jump to.
        www=re.compile(rf"www\.(?<!\wwww\.){address}"),
        handle=re.compile(handle),
        any_link=re.compile(rf"(?i:https?://|\bwww\.){address}"),
    )


#: Version 1 takes everything up to a space for a link, and letters of any script for a name.
VERSION_1 = _masks(r"\S+", r"@(?<![\w@]@)\w+")
#: Split keys of version 1 mask a name behind a word, too.
KEY_VERSION_1 = _masks(r"\S+", r"@\w+")
#: A name has at most 15 of A-Z, a-z, 0-9 and _; a link ends before the first character that none can hold.
VERSION_2 = _masks(_ADDRESS, rf"@(?<![\w@]@){_NAME}")
