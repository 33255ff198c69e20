"""Average the weights of two packs, the second of which was trained from the first (Wortsman et al. 2022, WiSE-FT).

python recipes/mini/average.py FIRST SECOND --share 0.5 --output PACK

Both lie in one valley of the loss, so that a point between them keeps most of what each has learned.
"""

from __future__ import annotations

import argparse
import math
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from sentiment_hybrid import paths
from sentiment_hybrid.engine.inference.model_directory import LoadedModel, load_model
from sentiment_hybrid.engine.inference.pack import pack
from sentiment_hybrid.files import atomic_dir


def between(first: LoadedModel, second: LoadedModel, share: float) -> LoadedModel:
    """The second model with weights between the two; ``share`` is that of the second, as for log T."""
    for one, other in (
        (first.encoder.model, second.encoder.model),
        (first.classifier.head, second.classifier.head),
    ):
        before = one.state_dict()
        with torch.no_grad():
            for name, value in other.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.lerp(before[name].float(), value.float(), share))
    logs = (math.log(model.info.temperature) for model in (first, second))
    temperature = math.exp(sum(part * log for part, log in zip((1 - share, share), logs, strict=True)))
    return replace(second, info=replace(second.info, temperature=temperature))


def main() -> None:
    """Write the pack; its filter of seen texts is that of the second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second, from 0 to 1")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    heads = sorted(place.parent.name for place in arguments.second.glob(f"*/{paths.MODEL_JSON}"))
    models = [
        between(load_model(arguments.first / head), load_model(arguments.second / head), arguments.share)
        for head in heads
    ]
    with atomic_dir(arguments.output) as aside:
        pack(models, aside)
        shutil.copyfile(arguments.second / paths.SEEN_TEXTS, aside / paths.SEEN_TEXTS)


if __name__ == "__main__":
    main()
