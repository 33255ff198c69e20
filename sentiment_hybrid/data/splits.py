"""Train, validation and test by hash of a split key made from the raw text alone; no other setting moves a row."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sentiment_hybrid.data import masks
from sentiment_hybrid.data.lines import joined
from sentiment_hybrid.data.masks import Masks

#: By version of the key, which is another one when any key or hash changes, and part of every split fingerprint;
#: databases and models keep the version that they were made with.
_MASKS = {1: masks.KEY_VERSION_1, 2: masks.VERSION_2}
KNOWN_VERSIONS = tuple(_MASKS)
#: The index of a split is its code, and its priority: a text that occurs in two splits belongs to the lower one.
SPLITS: tuple[str, ...] = ("test", "valid", "train")
TEST, VALID, TRAIN = range(3)

UInt64s = npt.NDArray[np.uint64]


class _Collapse(dict[int, int | None]):
    """For ``str.translate``: removes spaces, punctuation, controls and joiners; keeps letters, digits and emoji."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        gone = category[0] in "PZC" or category in ("Sm", "Sc") or (code < 128 and category[0] == "S")
        self[code] = None if gone or 0xFE00 <= code <= 0xFE0F else code
        return self[code]


_COLLAPSE = _Collapse()
#: Bytes to remove from ASCII text, which is four times as fast.
_VANISH_ASCII = bytes(code for code in range(128) if not chr(code).isalnum())
_VANISH_BUT_BREAKS = _VANISH_ASCII.replace(b"\n", b"")


def split_key(raw: str, *, version: int) -> str:
    """What determines the split of a raw text: NFKC, case, handles, links, punctuation and spaces make no difference.

    Emoji count. A text of punctuation alone is its own key. Empty only for an empty text.
    """
    return _key(raw, _MASKS[version]).decode("utf-8", "surrogatepass")


def _key(raw: str, masks: Masks) -> bytes:
    ascii_only = raw.isascii()
    text = raw.lower() if ascii_only else unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", raw).casefold())
    text = masks.lower(text)
    key = text.encode().translate(None, _VANISH_ASCII) if ascii_only else _bytes(text.translate(_COLLAPSE))
    return key or _bytes(" ".join(text.split()))


def _keys(raws: Sequence[str], masks: Masks) -> list[bytes]:
    """``_key`` of each; those of ASCII texts are made all at once, which is twice as fast."""
    if not raws:
        return []
    text, odd = joined(raws)
    keys = masks.lower(text.lower()).encode().translate(None, _VANISH_BUT_BREAKS).split(b"\n")
    for place in odd:
        keys[place] = _key(raws[place], masks)
    return [key or _key(raw, masks) for raw, key in zip(raws, keys, strict=True)] if b"" in keys else keys


def hash_raw(raws: Sequence[str], split_seed: int, *, version: int) -> tuple[UInt64s, UInt64s]:
    """Hashes of the split keys of raw texts: (split hashes (N,), order hashes (N,)), independent of each other.

    ``version`` is one of `KNOWN_VERSIONS`: that of the database or filter to compare the hashes with.
    """
    base = hashlib.blake2b(digest_size=16, salt=split_seed.to_bytes(16, "little"))
    pairs = np.frombuffer(_hashes(_keys(raws, _MASKS[version]), base), dtype="<u8").reshape(-1, 2)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def identities(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A hash of each text, (N,), by which equal texts are found; the same in every process."""
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:
        encoded = list(map(_bytes, texts))
    return np.frombuffer(_hashes(encoded, hashlib.blake2b(digest_size=8)), dtype="<i8")


def _hashes(values: Sequence[bytes], base: hashlib.blake2b) -> bytes:
    """The digests of many values; copying a prepared hash is faster than preparing one for each."""
    found = []
    for value in values:
        state = base.copy()
        state.update(value)
        found.append(state.digest())
    return b"".join(found)


def assign(split_hashes: UInt64s, *, test_size: float, valid_size: float) -> npt.NDArray[np.uint8]:
    """Split code of each row: test below ``test_size`` of the hash range, then valid, then train."""
    share = split_hashes.astype(np.float64) / 2.0**64
    codes = np.full(len(split_hashes), TRAIN, dtype=np.uint8)
    codes[share < test_size + valid_size] = VALID
    codes[share < test_size] = TEST
    return codes


def fingerprint(
    splits: npt.NDArray[np.uint8], split_hashes: UInt64s, keys: UInt64s, *, split_seed: int, sizes: str, version: int
) -> str:
    """Hash of a split that does not depend on the order of rows, the normaliser or the trained column.

    Args:
        splits: split codes (N,) of all rows with a label and raw text, and their hashes as of `hash_raw`.
        sizes: how the rows were assigned: the two sizes, or ``official``.
    """
    parts = [f"v{version}", str(split_seed), sizes]
    for code in np.unique(splits).tolist():
        rows = splits == code
        sums = ":".join(str(hashes[rows].sum()) for hashes in (split_hashes, keys))  # modulo 2**64
        parts.append(f"{SPLITS[code]}:{rows.sum()}:{sums}")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
