"""AdamW with the field's usual groups, and the learning rate over steps."""

from __future__ import annotations

import math
from typing import cast

import torch

from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.module import depths

#: Kinds of devices for which torch has a fused AdamW.
_FUSED_ON = frozenset({"cpu", "cuda", "mps"})
#: How the classifier calls the parameters of the transformers model inside its encoder.
_ENCODER = "encoder.model."


def build_optimizer(
    classifier: torch.nn.Module, settings: Train, *, layer_decay: float | None = None
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019): head and encoder at their own rates; no decay on biases and norms.

    With ``layer_decay``, an encoder layer k below the top has the encoder's rate times layer_decay^k: discriminative
    rates (Howard and Ruder 2018, section 3.2), in the form of ELECTRA (Clark et al. 2020).

    Raises:
        EncoderError: ``layer_decay`` is given, and the encoder's layers cannot be told apart.
    """
    depth = _encoder_depths(classifier, layer_decay)
    decay = 1.0 if layer_decay is None else layer_decay
    # By (encoder layers above it, whether it decays); -1 is the head.
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            place = depth.get(name, 0) if name.startswith("encoder.") else -1
            groups.setdefault((place, parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": settings.learning_rate if place < 0 else settings.encoder_learning_rate * decay**place,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (place, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        # One pass over memory for all of a parameter's moments; without it each of a dozen operations makes its own.
        fused=all(
            parameter.device.type in _FUSED_ON and parameter.is_floating_point()
            for parameters in groups.values()
            for parameter in parameters
        ),
    )


def _encoder_depths(classifier: torch.nn.Module, layer_decay: float | None) -> dict[str, int]:
    encoder = cast(Classifier, classifier).encoder
    if layer_decay is None or encoder is None or encoder.frozen:
        return {}
    return {f"{_ENCODER}{name}": depth for name, depth in depths(encoder.model).items()}


class Schedule:
    """Warm-up from 0, then linear or cosine decay to 0, or constant; sets the rate of every group."""

    def __init__(self, optimizer: torch.optim.Optimizer, settings: Train, total_steps: int) -> None:
        self.optimizer = optimizer
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.kind = settings.schedule
        # A short run would otherwise end before it has warmed up.
        self.warmup = min(settings.warmup_steps, total_steps // 4)
        self.total = total_steps

    def factor(self, step: int) -> float:
        """Share of the peak rate at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.kind == "constant":
            return 1.0
        done = (step - self.warmup) / max(1, self.total - self.warmup)
        return 0.5 * (1.0 + math.cos(math.pi * done)) if self.kind == "cosine" else max(0.0, 1.0 - done)

    def apply(self, step: int) -> float:
        """Set the rates for a step; returns the head's."""
        factor = self.factor(step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        return max(group["lr"] for group in self.optimizer.param_groups)
