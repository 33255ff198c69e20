"""Checkpoints of a run: safetensors and JSON, each a new directory, never a pickle."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sentiment_hybrid import paths
from sentiment_hybrid.errors import ModelError, OutputError, TrainingError
from sentiment_hybrid.files import atomic_dir, replace_json, save_tensors, write_json, written


@dataclass(frozen=True)
class TrainerState:
    """A state to save: tensors by name, and the progress as JSON."""

    tensors: dict[str, torch.Tensor]
    progress: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names start with ``prefix``, without it."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class RunCheckpoints:
    """Checkpoints of one run: each is a new directory; one small file names the `best` and the `last`."""

    folder: Path

    def pointers(self) -> dict[str, str]:
        """Name (`best`, `last`) -> directory name; empty before the first save."""
        try:
            pointers: dict[str, str] = json.loads((self.folder / paths.CHECKPOINT_POINTERS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ModelError(
                f"{self.folder / paths.CHECKPOINT_POINTERS} is damaged", hint="Start a new run."
            ) from error
        return pointers

    def save(self, state: TrainerState, *, is_best: bool = False) -> None:
        """Write a state as the new `last` (and `best`), then remove the directories that are neither.

        Raises:
            OutputError: it cannot be written; the earlier checkpoints are untouched.
        """
        check_present(self.folder.parent)
        name = f"step-{state.progress['global_step']:08d}-{uuid.uuid4().hex[:6]}"
        with written(self.folder):
            with atomic_dir(self.folder / name) as aside:
                save_tensors(aside / paths.CHECKPOINT_STATE, state.tensors)
                write_json(aside / paths.CHECKPOINT_JSON, state.progress)
            pointers = {**self.pointers(), "last": name}
            if is_best:
                pointers["best"] = name
            replace_json(self.folder / paths.CHECKPOINT_POINTERS, pointers)
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name not in pointers.values():
                shutil.rmtree(folder, ignore_errors=True)

    def load(self, which: str) -> TrainerState:
        """The `best` or `last` state. Raises ModelError if it is missing or damaged."""
        from safetensors.torch import load_file

        name = self.pointers().get(which)
        if name is None:
            raise ModelError(f"{self.folder} has no {which} checkpoint", hint="Start a new run.")
        folder = self.folder / name
        try:
            return TrainerState(
                load_file(folder / paths.CHECKPOINT_STATE),
                json.loads((folder / paths.CHECKPOINT_JSON).read_text(encoding="utf-8")),
            )
        except Exception as error:  # safetensors raises its own type for any damage
            raise ModelError(f"the checkpoint {folder} is damaged: {error}", hint="Start a new run.") from error

    def remove(self) -> None:
        """Remove all of them, after the run has been published."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_present(run: Path) -> None:
    """Raise OutputError if a run's folder was deleted, instead of creating one without its first epochs."""
    if not run.is_dir():
        raise OutputError(f"{run} was deleted during the training", hint="Run the command again; a new run starts.")


def trainable_state(classifier: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: value for name, value in classifier.named_parameters() if value.requires_grad}


def load_trainable(classifier: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the weights of a `trainable_state`. Raises TrainingError if names or shapes differ."""
    own = trainable_state(classifier)
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        raise TrainingError("the checkpoint belongs to a model of another shape than this run's")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
