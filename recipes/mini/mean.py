"""The mean of the weights of two packs of one lineage, calibrated anew (Wortsman et al. 2022, "Model soups").

    python recipes/mini/mean.py FIRST SECOND OUT --share 0.7 --valid valid.tsv

`--share` is that of SECOND. The temperature of each head is fitted to the file, which must not be trained on.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, f1_score, log_loss
from teachers import rows

from sentiment_hybrid import Predictor, paths
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.model_directory import read_info, write_info
from sentiment_hybrid.files import sha256
from sentiment_hybrid.models.encoder.hub import load_encoder_dir

MOST = 8000  # texts that a temperature is fitted to


def main() -> None:
    """Write the third pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.out.exists():
        shutil.rmtree(arguments.out)
    shutil.copytree(arguments.second, arguments.out)
    for path in arguments.out.rglob("*.safetensors"):
        average(arguments.first / path.relative_to(arguments.out), path, arguments.share)
    valid = rows(arguments.valid)
    chosen = np.random.default_rng(0).permutation(len(valid))[:MOST]
    for document in arguments.out.glob("*/model.json"):
        calibrate(document.parent, [valid[place] for place in chosen])


def average(first: Path, second: Path, share: float) -> None:
    """Overwrite ``second`` with (1 - share) x first + share x second, in the precision of ``second``."""
    one, other = load_file(first), load_file(second)
    with safe_open(second, "pt") as file:
        metadata = file.metadata()
    mean = {
        name: ((1 - share) * one[name].float() + share * value.float()).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in other.items()
    }
    save_file({name: value.contiguous() for name, value in mean.items()}, second, metadata=metadata)


def calibrate(directory: Path, valid: list[list[str]]) -> None:
    """Fit the temperature of a head, and write it, new checksums and the scores on these rows into its model.json."""
    info = replace(
        read_info(directory),
        temperature=1.0,
        weights_sha256=sha256(directory / paths.MODEL_WEIGHTS),
        encoder_fingerprint=load_encoder_dir(directory.parent / paths.ENCODER_DIR).fingerprint,
    )
    write_info(directory, info)
    predictor = Predictor(directory, device="cpu")
    texts, labels, *_ = zip(*valid, strict=True)
    truth = np.array([predictor.labels.index(label) for label in labels])
    probabilities = predictor.predict_proba(list(texts))
    found = probabilities.argmax(1)
    scores = {
        "macro_f1": float(f1_score(truth, found, average="macro")),
        "accuracy": float(accuracy_score(truth, found)),
        "loss": float(log_loss(truth, probabilities, labels=range(len(predictor.labels)))),
    }
    fitted = metrics.temperature(truth, probabilities)
    write_info(directory, replace(info, temperature=round(fitted, 4), valid=scores))
    print(f"{directory.name}: temperature {fitted:.4f}, {scores}")


if __name__ == "__main__":
    main()
