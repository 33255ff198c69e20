"""The thresholds of a model: from which probability on its answers have an accuracy, kept beside its weights."""

from __future__ import annotations

import json
from pathlib import Path

from sentiment_hybrid import paths
from sentiment_hybrid.engine.evaluation.triage import Calibration, Threshold
from sentiment_hybrid.engine.inference.model_directory import ModelInfo
from sentiment_hybrid.errors import ModelError, UsageError, promised_by
from sentiment_hybrid.files import write_json, written


def save_calibration(directory: Path, info: ModelInfo, calibration: Calibration) -> None:
    """Write the counts of the validation rows into a model directory. Raises OutputError."""
    with written(directory / paths.TRIAGE_JSON):
        write_json(directory / paths.TRIAGE_JSON, {"model": _identity(info), **calibration.to_dict()})


def load_calibration(directory: Path, info: ModelInfo) -> Calibration:
    """The counts that a test of this model has written.

    Raises:
        ModelError: there are none, they are damaged, or of another model.
    """
    path = directory / paths.TRIAGE_JSON
    again = "Test the model on the database that it was trained on: senthy test."
    if not path.is_file():
        shipped = directory.parent == paths.mini_dir()
        raise ModelError(
            f"{f'mini-{directory.name}' if shipped else directory} has no thresholds for a target accuracy",
            hint=(
                "Choose a probability (--abstain-below 90%), or train a model of your own: thresholds come from its "
                "validation rows."
                if shipped
                else f"{again} Or choose a probability: --abstain-below 90%."
            ),
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["model"] != _identity(info):
            raise ValueError("it is of another model")
        return Calibration.from_dict(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be used: {error}", hint=again) from error


def _identity(info: ModelInfo) -> list[object]:
    return [info.weights_sha256, info.encoder_fingerprint, info.temperature]


def promised(directory: Path, info: ModelInfo, target: float) -> tuple[Threshold, str]:
    """The threshold that promises an accuracy, and by which rows it does.

    Raises:
        UsageError: none does; says which accuracy can be had.
        ModelError: as `load_calibration`.
    """
    calibration = load_calibration(directory, info)
    threshold = calibration.threshold(target)
    if threshold is None:
        best = calibration.best()
        can = f"The best that can be promised is {100 * best:.5g} %." if best else "None can be promised."
        raise UsageError(
            f"an accuracy of {100 * target:.5g} % cannot be promised from {calibration.rows:,} validation rows",
            hint=f"{can} More validation rows or a better model allow more.",
        )
    return threshold, promised_by(calibration.rows, calibration.fresh)
