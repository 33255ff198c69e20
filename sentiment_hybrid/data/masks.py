"""What normalisers and split keys replace in tweets, by version: handles by `@user`, links by `http`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

#: Characters of a link after its scheme (RFC 3986), parentheses in pairs. Punctuation at the end is not part of it.
_INSIDE = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'*+,;=%]"
_LAST = r"[A-Za-z0-9\-_~/#@$&*+=%]"
_ADDRESS = rf"(?:{_INSIDE}*(?:{_LAST}|\({_INSIDE}*\)))+"
#: Letters with accents: a name followed by one is not a handle, and must not become one when accents are composed.
_ACCENTED = r"\u00c0-\u024f\u0300-\u036f\u1e00-\u1eff"
_NAME = rf"[A-Za-z0-9_]{{1,15}}(?![A-Za-z0-9_{_ACCENTED}])"
#: Controls but for white space, zero-width spaces, direction marks; joiners beside letters and digits of ASCII. Other
#: joiners make emoji and belong to some scripts. Controls of Latin-1 and soft hyphens may be parts of mojibake.
_INVISIBLE = (
    r"[\x00-\x08\x0e-\x1b\x7f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]+"
    r"|(?<=[A-Za-z0-9])[\u200c\u200d]+|[\u200c\u200d]+(?=[A-Za-z0-9])"
)
_MATHEMATICAL = re.compile("[\U0001d400-\U0001d7ff]+")


def _plain(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found[0])


@dataclass(frozen=True)
class Masks:
    """One version of the rules. Patterns start with literal characters, so that the search can skip to them.

    A single pattern for all of them is twenty times slower.
    """

    link: re.Pattern[str]
    www: re.Pattern[str]
    handle: re.Pattern[str]
    #: Links in capitals too.
    any_link: re.Pattern[str]
    #: Characters without a shape, which hide words from a tokenizer; None: they and mathematical letters stay.
    invisible: re.Pattern[str] | None = None

    def visible(self, text: str) -> str:
        """The text without invisible characters, and with mathematical letters and digits (𝓵𝓸𝓿𝓮) as plain ones."""
        if self.invisible is None:
            return text
        return self.invisible.sub("", _MATHEMATICAL.sub(_plain, text))

    def lower(self, text: str) -> str:
        """The text with its handles, and those links that are written in lower case, masked."""
        return self.handles(self.lower_links(text))

    def lower_links(self, text: str) -> str:
        """The text with the links that are written in lower case masked."""
        if "://" in text:
            text = self.link.sub("http", text)
        return self.www.sub("http", text) if "www." in text else text

    def handles(self, text: str) -> str:
        """The text with its handles masked."""
        return self.handle.sub("@user", text) if "@" in text else text

    def all(self, text: str) -> str:
        """The text with all handles and links masked."""
        if "://" in text or "www." in text.lower():
            text = self.any_link.sub("http", text)
        return self.handles(self.lower_links(text))


def _masks(address: str, handle: str) -> Masks:
    return Masks(
        link=re.compile(rf"https?://{address}"),
        # The lookbehind follows the literal characters that the search can skip to.
        www=re.compile(rf"www\.(?<!\wwww\.){address}"),
        handle=re.compile(handle),
        any_link=re.compile(rf"(?i:https?://|\bwww\.){address}"),
    )


#: In version 1, a link extends to the next space, and names consist of letters of any script.
VERSION_1 = _masks(r"\S+", r"@(?<![\w@]@)\w+")
#: Split keys of version 1 also mask a name directly after a word.
KEY_VERSION_1 = _masks(r"\S+", r"@\w+")
#: A name has at most 15 of A-Z, a-z, 0-9 and _; a link ends before the first character that links cannot contain.
VERSION_2 = _masks(_ADDRESS, rf"@(?<![\w@]@){_NAME}")
VERSION_3 = replace(VERSION_2, invisible=re.compile(_INVISIBLE))
