"""Versioned pure text normalisers: tweet (the default), classic (the public predecessor's steps, with nltk), none."""

from __future__ import annotations

import functools
import html
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sentiment_hybrid import paths
from sentiment_hybrid.data import masks
from sentiment_hybrid.data.lines import joined, odd_bytes, squeezed
from sentiment_hybrid.data.masks import Masks
from sentiment_hybrid.errors import DataError, ModelError

#: Printable ASCII but &: no entities, no mojibake, no white space but spaces.
_PLAIN = odd_bytes("".join(map(chr, range(32, 127))).replace("&", ""))
#: Repairing may reveal a handle, and masking that something else to repair; two rounds are usual.
_MOST_REPAIRS = 20

_CONTRACTIONS = (
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bcan't\b|\bcannot\b"), "can not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"\bain't\b"), "is not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"\b(it|he|she|that|what|who|where|there|here|how)'s\b"), r"\1 is"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'d\b"), " would"),
)
_NOT_LETTERS = re.compile(r"[\W\d_]+")
#: Stopwords that reverse a sentiment; the classic normaliser keeps them.
NEGATORS = frozenset({"no", "not", "nor", "never", "none", "neither", "nobody", "nothing", "without", "against", "but"})
_NLTK_NEEDS = {"stopwords": "corpora/stopwords", "wordnet": "corpora/wordnet"}


@dataclass(frozen=True)
class Normalizer:
    """A pure function text -> text with a name, and a version that is increased when any output changes."""

    name: str
    version: int
    function: Callable[[str], str]
    batched: Callable[[Sequence[str]], list[str]] | None = None
    #: Provides the data that the function needs; its arguments are the cache directory and whether to stay offline.
    preparation: Callable[[Path, bool], None] | None = None

    @property
    def id(self) -> str:
        """The name in databases and models, such as ``tweet@1``."""
        return f"{self.name}@{self.version}"

    def __call__(self, text: str) -> str:
        """The cleaned text; may be empty."""
        return self.function(text)

    def prepare(self, cache: Path, *, offline: bool) -> None:
        """Provide the data that the function needs, before its first use. Raises DataError if it is not available."""
        if self.preparation is not None:
            self.preparation(cache, offline)

    def many(self, texts: Sequence[str]) -> list[str]:
        """The cleaned texts; faster than one by one if the normaliser has a batched version."""
        return [self.function(text) for text in texts] if self.batched is None else self.batched(texts)


def tweet(text: str, masks: Masks = masks.VERSION_3) -> str:
    """HTML entities, mojibake, handles, links, white space, invisible characters; keeps case, emoji and punctuation.

    Negation stays. Its own output comes back unchanged.
    """
    if "&" not in text and text.isascii() and (masks.invisible is None or text.isprintable()):
        return _mask(text, masks)
    text = _mask(_unescape(text, masks), masks)
    for _ in range(_MOST_REPAIRS):
        decoded = _decode(text)
        text = _mask(_unescape(_straighten(decoded), masks), masks)
        # The result of _decode is fully decoded; if nothing else changed it either, there is nothing left to repair.
        if text == decoded:
            break
    return text


def tweets(texts: Sequence[str], masks: Masks = masks.VERSION_3) -> list[str]:
    """``tweet`` of each text; plain ones are cleaned all at once, which is several times as fast."""
    if not texts:
        return []
    text, odd = joined([html.unescape(text) if "&" in text else text for text in texts], _PLAIN)
    text = masks.lower_links(text)
    small = text.lower()
    with_capital_links = {
        small.count("\n", 0, found.start())
        for mark, pattern in (("://", masks.link), ("www.", masks.www))
        if mark in small
        for found in pattern.finditer(small)
    }
    cleaned = squeezed(masks.handles(text)).split("\n")
    for place in with_capital_links.union(odd):
        cleaned[place] = tweet(texts[place], masks)
    return cleaned


def _mask(text: str, masks: Masks) -> str:
    return " ".join(masks.all(text).split())


def _unescape(text: str, masks: Masks) -> str:
    return masks.visible(html.unescape(text) if "&" in text else text)


def _decode(text: str) -> str:
    """Repair UTF-8 that was read as another encoding, once or several times."""
    if text.isascii():
        return text
    from ftfy import fix_encoding

    return str(fix_encoding(text))


def _straighten(text: str) -> str:
    """Straight quotes, letters instead of ligatures and wide forms, no control characters, composed accents."""
    if text.isascii():
        return text
    from ftfy import fixes

    text = fixes.fix_character_width(fixes.fix_latin_ligatures(fixes.uncurl_quotes(text)))
    return unicodedata.normalize("NFC", fixes.remove_control_chars(fixes.fix_surrogates(text)))


def classic(text: str, masks: Masks = masks.VERSION_3) -> str:
    """Lower case, contractions written out, letters only, English stopwords out except negators, lemmas.

    Raises DataError if nltk's stopwords or wordnet are not available.
    """
    stopwords, lemma = _nltk_tools()
    text = tweet(text, masks).lower()
    text = re.sub(r"@user|\bhttp\b", " ", text)
    for pattern, full in _CONTRACTIONS:
        text = pattern.sub(full, text)
    words = _NOT_LETTERS.sub(" ", text).split()
    return " ".join(lemma(word) for word in words if word not in stopwords)


def prepare_nltk(cache: Path, offline: bool) -> None:
    """Find nltk's stopwords and wordnet in NLTK_DATA or the cache, or download them.

    Raises:
        DataError: the files are missing and cannot be downloaded, or nltk refuses them.
    """
    import nltk

    folder = paths.nltk_dir(cache)
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))
    missing = [name for name, place in _NLTK_NEEDS.items() if not _has(place)]
    if missing and not offline:
        _download(missing, folder)
    if still := [name for name in missing if not _has(_NLTK_NEEDS[name])]:
        why = "offline" if offline else "the download failed; is there a network connection?"
        raise _no_nltk(still, folder, why)


def _has(place: str) -> bool:
    import nltk

    for name in (place, f"{place}.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        except (OSError, ValueError) as error:
            raise DataError(
                f"nltk refuses to read its data file {place}: {error}",
                hint="nltk rejects files that are writable by others: run chmod -R go-w on the nltk_data directory.",
            ) from error
        return True
    return False


def _download(names: list[str], folder: Path) -> None:
    """Download to a temporary directory first, so that a killed download leaves no incomplete file."""
    import nltk

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            for name in names:
                nltk.download(name, download_dir=aside, quiet=True, raise_on_error=False)
            shutil.copytree(aside, folder, dirs_exist_ok=True)
    except (OSError, ValueError) as error:
        raise _no_nltk(names, folder, str(error)) from error


def _no_nltk(names: list[str], folder: Path, why: str) -> DataError:
    return DataError(
        f"the classic normalizer requires nltk's {' and '.join(names)}, not found under NLTK_DATA or {folder} ({why})",
        hint="Run `senthy fetch` while online, point NLTK_DATA at a directory with them, or use --set "
        "data.normalizer=tweet.",
    )


@functools.cache
def _nltk_tools() -> tuple[frozenset[str], Callable[[str], str]]:
    """Stopwords without negators, and a lemmatiser with a cache."""
    prepare_nltk(paths.cache_dir(None), offline=True)
    from nltk.corpus import stopwords
    from nltk.stem import WordNetLemmatizer

    words = frozenset(word for word in stopwords.words("english") if word not in NEGATORS)
    return words, functools.lru_cache(maxsize=200_000)(WordNetLemmatizer().lemmatize)


#: Every version that databases and models may name, for each name in ascending order.
_VERSIONS = (
    Normalizer("tweet", 1, partial(tweet, masks=masks.VERSION_1), partial(tweets, masks=masks.VERSION_1)),
    Normalizer("classic", 1, partial(classic, masks=masks.VERSION_1), preparation=prepare_nltk),
    Normalizer("tweet", 2, partial(tweet, masks=masks.VERSION_2), partial(tweets, masks=masks.VERSION_2)),
    Normalizer("classic", 2, partial(classic, masks=masks.VERSION_2), preparation=prepare_nltk),
    Normalizer("tweet", 3, tweet, tweets),
    Normalizer("classic", 3, classic, preparation=prepare_nltk),
    Normalizer("none", 1, str.strip),
)
NORMALIZERS: dict[str, Normalizer] = {item.name: item for item in _VERSIONS}


def get_normalizer(name: str) -> Normalizer:
    """The newest normaliser of one of the names that data.normalizer may have."""
    return NORMALIZERS[name]


def from_id(identifier: str) -> Normalizer:
    """The normaliser that a database or a model names, such as ``tweet@1``. Raises ModelError if it is not known."""
    normalizer = next((item for item in _VERSIONS if item.id == identifier), None)
    if normalizer is None:
        known = ", ".join(item.id for item in _VERSIONS)
        raise ModelError(
            f"the texts were cleaned with {identifier!r}, which this version of senthy does not have",
            hint=f"It has {known}. Install the version that wrote the model, or prepare and train again.",
        )
    return normalizer
