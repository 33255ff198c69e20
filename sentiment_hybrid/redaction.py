"""Passwords in URLs and connection strings, hidden from everything that is shown or stored."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"

_NAME = re.compile(
    r"(?:ssl|db|user|pg|client)?_?(?:password|passwd|passphrase|pass|pwd|secret)|"
    r"(?:auth|access|session|security|sas)?[_-]?token|(?:api|account|access|(?:aws_)?secret_access)[_-]?key|"
    r"(?:x-(?:amz|goog)-)?(?:sig|signature|credential|security-token)|sas",
    re.I,
)
#: //user:PASSWORD@host; a password may contain @, and then ends at the last one, or spaces. A path has one slash.
_USER = re.compile(r"(?P<before>(?:/|:)/[^\s:/@'\"]*:)(?P<secret>[^\s'\"]*(?=@)|[^\n'\"@]*)@")
#: key=VALUE in a query or a keyword DSN, and 'key': VALUE in the text of a dictionary.
_PAIR = re.compile(
    r"(?P<before>(?P<key>[\w%+.-]+)\s*=\s*|(?P<quote>['\"])(?P<name>\w+)(?P=quote)\s*:\s*)"
    r"(?P<secret>'(?:\\.|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?|\{[^}]*\}|[^\s&;,'\"]+)"
)

_known: set[str] = set()


def redact(text: str) -> str:
    """The text with passwords replaced by ***: those of URLs and connection strings, and those to `remember`."""
    if _known:  # at once: a password may be part of the mask
        known = "|".join(map(re.escape, sorted(_known, key=len, reverse=True)))
        text = re.sub(rf"(?<!\w)(?:{known})(?!\w)", MASK, text)
    return _PAIR.sub(_without_value, _USER.sub(rf"\g<before>{MASK}@", text))


def _without_value(match: re.Match[str]) -> str:
    # The key may be percent-encoded, and the value may be a percent-encoded connection string of its own.
    is_secret = _NAME.fullmatch(unquote_plus(match["key"] or match["name"]))
    inside = unquote_plus(match["secret"])
    if is_secret or (inside != match["secret"] and redact(inside) != inside):
        return match["before"] + MASK
    return match[0]


def remember(url: str) -> None:
    """Hide the passwords of this URL wherever they appear by themselves, as in the messages of database drivers."""
    found = [match["secret"] for match in _USER.finditer(url)]
    found += [match["secret"] for match in _PAIR.finditer(url) if _without_value(match) != match[0]]
    for secret in filter(None, found):
        for plain in {secret, unquote(secret), unquote_plus(secret)}:
            _known.update({plain, quote(plain, safe=""), quote_plus(plain)})
