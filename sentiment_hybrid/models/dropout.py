"""Dropout with fast random numbers on a CPU, where torch's take a tenth of the time of training a layer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16  # the rate has a resolution of 1 / 65,536
_FEW = 4096  # values; for fewer, creating a generator costs more than it saves


class Dropout(nn.Dropout):
    """``nn.Dropout`` by way of `dropout`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """In training, the input with a share ``p`` of its values set to 0 and the others scaled by 1 / (1 - p)."""
        return dropout(input, self.p) if self.training else input


def dropout(states: Tensor, share: float) -> Tensor:
    """``F.dropout``; on a CPU with 16 bits of numpy's fastest generator per value, seeded by torch's generator.

    The result is therefore determined by ``torch.manual_seed``.
    """
    zeroed = round(share * _LEVELS)
    if zeroed == 0:
        return states
    if states.device.type != "cpu" or states.numel() < _FEW or zeroed == _LEVELS:
        return F.dropout(states, share)
    generator = np.random.SFC64(int(torch.randint(2**62, ())))
    bits = generator.random_raw(-(-states.numel() // 4)).view(np.uint16)[: states.numel()]
    kept = torch.from_numpy(bits >= zeroed).view(states.shape).to(states.dtype)
    return states * kept.mul_(_LEVELS / (_LEVELS - zeroed))
