"""A tokenizer stored as tokenizer.json, loaded with the tokenizers library, without importing transformers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.config.schema import ScratchEncoder
from sentiment_hybrid.errors import DataError, SourceError
from sentiment_hybrid.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

#: RoBERTa's special tokens in the order of its ids, 0 to 3; the mask token has the next free id.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
_SPECIAL_FILE = "special_tokens_map.json"

#: Variation selectors and skin tones; removed, so that all variants of an emoji are one token.
_DROPPED = "[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]"
_LONGEST_ADDED = 100
#: Bytes of a tokenizer.json, at most: several times the largest vocabularies.
_LARGEST_FILE = 200_000_000


class Tokenizer:
    """A tokenizer with the methods of a transformers tokenizer that are used here.

    A `</s>` in a text is four characters, not a special token; stored padding and truncation settings are ignored.
    ``settings`` is the content of tokenizer_config.json, kept so that transformers can load the directory.
    """

    def __init__(self, backend: Backend, settings: dict[str, Any]) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend_tokenizer = backend
        self.settings = settings
        #: Ids of the tokens at the beginning and end of a text, of padding and of the mask; None if there is none.
        tokens = (settings.get(kind) for kind in ("bos_token", "eos_token", "pad_token", "mask_token"))
        names = (token.get("content") if isinstance(token, dict) else token for token in tokens)
        self.bos_token_id, self.eos_token_id, self.pad_token_id, self.mask_token_id = (
            None if name is None else backend.token_to_id(name) for name in names
        )

    @classmethod
    def load(cls, directory: Path, *, pad_token_id: int | None = None) -> Tokenizer | None:
        """The tokenizer of a directory; None if it has no tokenizer.json or no padding token.

        ``pad_token_id`` is the encoder's, for directories that do not specify the padding token.

        Raises:
            Exception: the file is damaged; the tokenizers library raises no more specific type.
        """
        file = directory / TOKENIZER_FILE
        if not file.is_file():
            return None
        settings: dict[str, Any] = {}
        for name in (_SPECIAL_FILE, SETTINGS_FILE):
            if (directory / name).is_file():
                settings |= read_json(directory / name)
        tokenizer = cls(_backend(file), settings)
        if tokenizer.pad_token_id is None and pad_token_id is not None:
            token = tokenizer.backend_tokenizer.id_to_token(pad_token_id)
            tokenizer = cls(tokenizer.backend_tokenizer, {**settings, "pad_token": token})
        return tokenizer if tokenizer.pad_token_id is not None else None

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size())

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the special tokens."""
        added = self.backend_tokenizer.get_added_tokens_decoder()
        return sorted(number for number, token in added.items() if token.special)

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        return dict(self.backend_tokenizer.get_vocab())

    def __call__(self, texts: str | Sequence[str], *, add_special_tokens: bool = True, **unused: Any) -> dict[str, Any]:
        """``input_ids`` of one or several texts, without truncation and padding; several are processed in parallel."""
        if isinstance(texts, str):
            return {"input_ids": self.backend_tokenizer.encode(texts, add_special_tokens=add_special_tokens).ids}
        encoded = self.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [one.ids for one in encoded]}

    def add_tokens(self, tokens: Iterable[str]) -> dict[int, list[int]]:
        """Add ``tokens`` to the vocabulary; returns new id -> the ids of the same text before.

        They are matched in the normalised text, the longest first, and include the space before them. A token that
        begins or ends with a letter or digit is matched as a whole word, and skipped if it is a single token already.
        Tokens added earlier are kept.
        """
        from tokenizers import AddedToken

        backend = self.backend_tokenizer
        backend.normalizer = _unified_emoji(backend.normalizer)
        there = {token.content for token in backend.get_added_tokens_decoder().values()} | {""}
        normalized = dict.fromkeys(backend.normalizer.normalize_str(token).strip() for token in tokens)
        unknown = [token for token in normalized if token not in there]
        pieces = zip(unknown, self(unknown, add_special_tokens=False)["input_ids"], strict=True)
        former = {token: ids for token, ids in pieces if len(ids) > 1 or not _is_word(token)}
        if not former:
            return {}
        backend.normalizer = _without_space_before(list(former), backend.normalizer)
        backend.add_tokens(
            [AddedToken(token, lstrip=True, normalized=True, single_word=_is_word(token)) for token in former]
        )
        number_of = self.get_vocab()
        return {number_of[token]: ids for token, ids in former.items()}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self.backend_tokenizer.decode(list(ids)))

    def save_pretrained(self, directory: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json into ``directory``, which is created. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENIZER_FILE).write_text(self.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
        document = {"tokenizer_class": "PreTrainedTokenizerFast", **self.settings}
        text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        (directory / SETTINGS_FILE).write_text(text, encoding="utf-8")


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of the special tokens before and after a sequence."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _backend(file: Path) -> Backend:
    """Load a tokenizer.json and use it once, because some damage shows only then."""
    from tokenizers import Tokenizer as Backend

    if file.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes")
    try:
        backend = Backend.from_file(str(file))
        backend.encode("a")
    except BaseException as error:
        # A panic of the library's Rust code is no Exception, and would end the program.
        if type(error).__name__ == "PanicException":
            raise ValueError(f"{file.name} is damaged: {error}") from error
        raise
    return backend


#: Pieces that BPE does not merge across: masked handles and links, contractions, single pictographs, words, numbers,
#: other characters, each with the space before it. GPT-2's pattern (Radford et al. 2019) plus masks and pictographs.
_PIECES = (
    r" ?@user(?!\w)| ?http(?!\w)|'(?:s|t|re|ve|m|ll|d)(?!\w)| ?\p{Extended_Pictographic}"
    r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}\p{Extended_Pictographic}]+|\s+(?!\S)|\s+"
)


def train_tokenizer(
    texts: Iterable[str], scratch_config: ScratchEncoder, *, max_length: int, added_tokens: Sequence[str] = ()
) -> Tokenizer:
    """Train a byte-level BPE with RoBERTa's special tokens; the same texts give the same tokenizer.

    ``@user`` and ``http`` are tokens, and emoji are never merged. The vocabulary is smaller than requested if there are
    few texts. ``added_tokens`` (see :func:`read_added_tokens`) get ids above it, and are not used to train the BPE.
    """
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Backend

    bpe = Backend(models.BPE())
    # With a space before it, the first word is the same token as within a text.
    folded = [normalizers.Lowercase()] if scratch_config.lowercase else []
    cleaned = [normalizers.Replace(Regex(_DROPPED), ""), *folded]
    without_added = [normalizers.Replace(Regex(_any_of(added_tokens)), " ")] if added_tokens else []
    bpe.normalizer = normalizers.Sequence([*cleaned, *without_added, normalizers.Prepend(" ")])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=scratch_config.vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.normalizer = normalizers.Sequence([*cleaned, normalizers.Prepend(" ")])
    bpe.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    start, pad, end, unknown, mask = SPECIAL_TOKENS
    tokens = {"bos_token": start, "cls_token": start, "pad_token": pad, "eos_token": end, "sep_token": end}
    settings = {**tokens, "unk_token": unknown, "mask_token": mask, "model_max_length": max_length}
    tokenizer = Tokenizer(bpe, settings)
    tokenizer.add_tokens(added_tokens)
    return tokenizer


def read_added_tokens(file: Path) -> tuple[str, ...]:
    """The tokens of a UTF-8 file with one per line; blank lines and duplicates are skipped.

    Variation selectors and skin tones of emoji are removed.

    Raises:
        SourceError: the file cannot be read.
        DataError: a line is not UTF-8, is too long, or cannot be matched by the tokenizer.
    """
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}", hint="Check pretrain.added_tokens.") from error
    tokens = (_added_token(line, f"{file}, line {number}") for number, line in enumerate(lines, 1))
    return tuple(dict.fromkeys(token for token in tokens if token))


def _added_token(line: bytes, place: str) -> str:
    try:
        token = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8", hint="Save the file as UTF-8, one token per line.") from error
    if len(token) > _LONGEST_ADDED:
        raise DataError(
            f"{place} has {len(token)} characters; an added token has at most {_LONGEST_ADDED}",
            hint="Write one token per line.",
        )
    unified = re.sub(_DROPPED, "", token).strip()
    if (token and not unified) or any(unicodedata.category(character) == "Cc" for character in token):
        raise DataError(
            f"{place}: {token!a} has a control character, or is only a variation selector or skin tone, which "
            "the tokenizer drops",
            hint="Remove the line.",
        )
    return unified


def _unified_emoji(normalizer: Any) -> Any:
    """The normalizer, preceded by the removal of variation selectors and skin tones."""
    from tokenizers import Regex, normalizers

    if normalizer is not None and _DROPPED.encode() in normalizer.__getstate__():
        return normalizer
    return normalizers.Sequence([normalizers.Replace(Regex(_DROPPED), ""), *([normalizer] if normalizer else [])])


def _without_space_before(tokens: Sequence[str], normalizer: Any) -> Any:
    """Extend a normalizer so that it inserts no space before a text that begins with one of the tokens.

    Tokens are normalised before they are matched; with the inserted space, they would match only after a space.
    """
    from tokenizers import Regex, normalizers

    return normalizers.Sequence([normalizer, normalizers.Replace(Regex(rf"\A (?={_any_of(tokens)})"), "")])


def _any_of(tokens: Sequence[str]) -> str:
    """A regular expression for any of the tokens, the longest first."""
    return "|".join(
        rf"(?<!\w){re.escape(token)}(?!\w)" if _is_word(token) else re.escape(token)
        for token in sorted(tokens, key=len, reverse=True)
    )


def _is_word(token: str) -> bool:
    return re.match(r"\w", token[0]) is not None or re.match(r"\w", token[-1]) is not None
