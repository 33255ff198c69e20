"""AdamW with the field's usual groups, and the learning rate over steps."""

from __future__ import annotations

import math

import torch

from sentiment_hybrid.config.schema import Train


def build_optimizer(classifier: torch.nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019): head and encoder at their own rates; no decay on biases and norms."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("encoder."), parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": settings.encoder_learning_rate if in_encoder else settings.learning_rate,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (in_encoder, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]
    )


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
