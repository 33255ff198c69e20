"""A classifier on its device, with its tokenizer and state store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentiment_hybrid import distributed, paths
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.states.store import StateStore, StoredStates
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.models.classifier import Classifier, JointClassifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder


@dataclass(frozen=True)
class EncodedDataset:
    """Texts ready for a classifier: tokenised, with labels (N,) int64 and, if available, stored states.

    ``compared`` (N, C) bool marks the labels among which each row's label was chosen; None: all. ``soft`` (N, C)
    float32 are a teacher's softened probabilities, NaN for none, and ``pooled`` (N, H) its states; with them a label
    may be missing, -1.
    """

    tokenized: TokenizedTexts
    labels: np.ndarray
    states: StoredStates | None = None
    compared: np.ndarray | None = None
    soft: np.ndarray | None = None
    pooled: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def full_labels(self) -> np.ndarray:
        """The labels of rows whose label was chosen among all labels."""
        full = self.labels >= 0
        return self.labels[full if self.compared is None else full & self.compared.all(axis=1)]


class Session:
    """A classifier on its device, with the tokenizer and the store of token states that prepare texts for it.

    Args:
        classifier: moved to the device of ``compute``.
        cache: where the states below the trained layers are stored.
        token_budget: the most tokens of a batch, padding included.
        max_windows: windows of a text; the rest is truncated.
        keep_states: False to compute all states live.
        max_gb: limit on the size of all stored states.
    """

    def __init__(
        self,
        classifier: Classifier | JointClassifier,
        encoder: LoadedEncoder,
        *,
        compute: Compute,
        cache: Path,
        token_budget: int,
        max_length: int,
        max_windows: int,
        keep_states: bool = True,
        max_gb: float | None = None,
    ) -> None:
        self.classifier, self.encoder, self.compute = classifier.to(compute.device), encoder, compute
        self.token_budget, self.max_length, self.max_windows = token_budget, max_length, max_windows
        self.states: StateStore | None = None
        shared = classifier.encoder
        # If all layers are trained, only the embeddings could be stored, which are cheap to compute.
        if keep_states and shared.stored_layer:
            self.states = StateStore(
                paths.states_dir(cache),
                shared,
                fingerprint=encoder.fingerprint,
                compute=compute,
                name=encoder.name,
                max_gb=max_gb,
                process=(distributed.local_rank(), distributed.local_world()),
            )

    @property
    def single(self) -> Classifier:
        """The classifier, unless it is joint."""
        assert isinstance(self.classifier, Classifier)
        return self.classifier

    def dataset(
        self,
        texts: Sequence[str],
        labels: np.ndarray,
        compared: np.ndarray | None = None,
        *,
        progress: Callable[..., object] = lambda *windows, **total: None,
    ) -> EncodedDataset:
        """Tokenise, and compute or load the states of every window below the trainable layers.

        Without a state store, the dataset has no states, and the encoder runs live.
        """
        tokenized = self.tokenize(texts)
        if self.states is None:
            return EncodedDataset(tokenized, labels, compared=compared)
        stored = self.states.ensure(tokenized, token_budget=self.token_budget, progress=progress)
        return EncodedDataset(tokenized, labels, stored, compared)

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Texts as flat windows of token ids."""
        return tokenize(texts, self.encoder.tokenizer, max_length=self.max_length, max_windows=self.max_windows)

    def predict(
        self, dataset: EncodedDataset, *, progress: Callable[[int], object] = lambda texts: None, **result: Any
    ) -> np.ndarray:
        """Probabilities (N, C) of the classifier as it is now; ``result`` is as in `predict_probabilities`."""
        return predict_probabilities(
            self.single,
            dataset.tokenized,
            compute=self.compute,
            token_budget=self.token_budget,
            states=dataset.states,
            progress=progress,
            **result,
        )
