"""AdamW with the usual parameter groups: head and encoder at their own learning rates, no decay on biases and norms."""

from __future__ import annotations

from typing import Any, cast

import torch

from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.module import depths


def _eager(method: Any) -> Any:
    """A method of an optimiser without the wrapper that imports torch's compiler, to exclude it from compilation."""
    return getattr(method, "__wrapped__", method)


class EagerAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` that does not import torch's compiler, which takes 1.1 s."""

    add_param_group = _eager(torch.optim.AdamW.add_param_group)
    state_dict = _eager(torch.optim.AdamW.state_dict)
    load_state_dict = _eager(torch.optim.AdamW.load_state_dict)
    zero_grad = _eager(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(_eager(torch.optim.AdamW.step))


def build_optimizer(
    classifier: torch.nn.Module, settings: Train, *, layer_decay: float | None = None
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019). An encoder without layers, which is a table, has the rate of the head.

    With ``layer_decay``, an encoder layer k below the top has the encoder's rate times layer_decay^k: discriminative
    rates (Howard and Ruder 2018, section 3.2), in the form of ELECTRA (Clark et al. 2020).

    Raises:
        EncoderError: ``layer_decay`` is given, and the layers of the encoder cannot be separated.
    """
    encoder = cast(Classifier, classifier).encoder
    layers = int(encoder.model.config.num_hidden_layers)
    depth: dict[str, int] = {}
    if layer_decay is not None and not encoder.frozen:
        depth = {f"encoder.model.{name}": above for name, above in depths(encoder.model).items()}
    decay = 1.0 if layer_decay is None else layer_decay
    # By (encoder layers above it, whether weight decay applies); -1 is the head, and an encoder without layers.
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            place = depth.get(name, 0) if layers and name.startswith("encoder.") else -1
            groups.setdefault((place, parameter.ndim >= 2), []).append(parameter)
    return EagerAdamW(
        [
            {
                "params": parameters,
                "lr": settings.learning_rate if place < 0 else settings.encoder_learning_rate * decay**place,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (place, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        # One pass over memory per parameter instead of one for each of a dozen operations.
        fused=True,
    )
