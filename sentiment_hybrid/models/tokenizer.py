"""A tokenizer as one tokenizer.json: read by the tokenizers library alone, without importing transformers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sentiment_hybrid.config.schema import ScratchEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

#: RoBERTa's special tokens in the order of its ids, 0 to 3; the mask takes the next free id.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
_SPECIAL_FILE = "special_tokens_map.json"


class Tokenizer:
    """What turns texts into token ids, with the few methods of a transformers tokenizer that are used here.

    Texts are data: a `</s>` typed by a user is four characters, and nobody's stored padding or cut applies.
    ``settings`` is the content of tokenizer_config.json, kept for whoever loads the directory with transformers.
    """

    def __init__(self, backend: Backend, settings: dict[str, Any]) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend_tokenizer = backend
        self.settings = settings

    @classmethod
    def load(cls, directory: Path, *, pad_token_id: int | None = None) -> Tokenizer | None:
        """The tokenizer of a directory, or None where it has no tokenizer.json or nothing says what fills up a batch.

        ``pad_token_id`` is the encoder's, for directories that leave it to the class of the tokenizer.

        Raises:
            Exception: the file is damaged; the tokenizers library raises nothing more special.
        """
        from tokenizers import Tokenizer as Backend

        file = directory / TOKENIZER_FILE
        if not file.is_file():
            return None
        settings: dict[str, Any] = {}
        for name in (_SPECIAL_FILE, SETTINGS_FILE):
            if (directory / name).is_file():
                settings |= json.loads((directory / name).read_text(encoding="utf-8"))
        tokenizer = cls(Backend.from_file(str(file)), settings)
        if tokenizer.pad_token_id is None and pad_token_id is not None:
            settings["pad_token"] = tokenizer.backend_tokenizer.id_to_token(pad_token_id)
        return tokenizer if tokenizer.pad_token_id is not None else None

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size())

    @property
    def pad_token_id(self) -> int | None:
        """The id that fills up a batch."""
        return self._id("pad_token")

    @property
    def bos_token_id(self) -> int | None:
        """The id that a text begins with."""
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id that a text ends with."""
        return self._id("eos_token")

    @property
    def mask_token_id(self) -> int | None:
        """The id that stands for a hidden token."""
        return self._id("mask_token")

    @property
    def all_special_ids(self) -> list[int]:
        """The ids that stand for no text."""
        added = self.backend_tokenizer.get_added_tokens_decoder()
        return sorted(number for number, token in added.items() if token.special)

    def _id(self, kind: str) -> int | None:
        token = self.settings.get(kind)
        if isinstance(token, dict):
            token = token.get("content")
        return None if token is None else self.backend_tokenizer.token_to_id(token)

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        return dict(self.backend_tokenizer.get_vocab())

    @overload
    def __call__(self, texts: str, *, add_special_tokens: bool = True, **unused: Any) -> dict[str, list[int]]: ...

    @overload
    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, **unused: Any
    ) -> dict[str, list[list[int]]]: ...

    def __call__(self, texts: str | Sequence[str], *, add_special_tokens: bool = True, **unused: Any) -> dict[str, Any]:
        """``input_ids`` of one text or of several, neither cut nor padded; several are done in parallel."""
        if isinstance(texts, str):
            return {"input_ids": self.backend_tokenizer.encode(texts, add_special_tokens=add_special_tokens).ids}
        encoded = self.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [one.ids for one in encoded]}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.backend_tokenizer.decode(list(ids)))

    def save_pretrained(self, directory: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json into ``directory``, which is made. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENIZER_FILE).write_text(self.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
        document = {"tokenizer_class": "PreTrainedTokenizerFast", **self.settings}
        text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        (directory / SETTINGS_FILE).write_text(text, encoding="utf-8")


#: What BPE never joins across: masked handles and links, contractions, single pictographs, words, numbers, the rest;
#: a space belongs to what follows it. GPT-2's pattern (Radford et al. 2019) with the first two and the pictographs.
_PIECES = (
    r" ?@user(?!\w)| ?http(?!\w)|'(?:s|t|re|ve|m|ll|d)(?!\w)| ?\p{Extended_Pictographic}"
    r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}\p{Extended_Pictographic}]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], scratch_config: ScratchEncoder, *, max_length: int) -> Tokenizer:
    """Learn a byte-level BPE with RoBERTa's special tokens; the same texts give the same tokenizer.

    ``@user`` and ``http`` are tokens, and emoji are never joined. A vocabulary smaller than asked for is what few
    texts give.
    """
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Backend

    bpe = Backend(models.BPE())
    # A space before the first word makes it the same token as in the middle of a text.
    folded = [normalizers.Lowercase()] if scratch_config.lowercase else []
    bpe.normalizer = normalizers.Sequence([*folded, normalizers.Prepend(" ")])
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
    bpe.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    start, pad, end, unknown, mask = SPECIAL_TOKENS
    tokens = {"bos_token": start, "cls_token": start, "pad_token": pad, "eos_token": end, "sep_token": end}
    return Tokenizer(bpe, {**tokens, "unk_token": unknown, "mask_token": mask, "model_max_length": max_length})
