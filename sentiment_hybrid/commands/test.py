"""``senthy test``: evaluates a model on held-out rows, with intervals and a baseline on the same rows."""

from __future__ import annotations

from pathlib import Path

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import Split
from sentiment_hybrid.engine.inference import testing
from sentiment_hybrid.engine.inference.testing import TestResult
from sentiment_hybrid.engine.training.runs import now, versions
from sentiment_hybrid.reporting.results import append_result
from sentiment_hybrid.runtime import Runtime

__test__ = False  # pytest, this module is a verb


def evaluate(
    config: Config,
    model: str | None = None,
    *,
    load_model_path: Path | None = None,
    split: Split = "test",
    data_file: Path | None = None,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
) -> TestResult:
    """Test a model with its own labels, normaliser and encoder; writes figures and predictions.

    Args:
        config: locations of the database and the results, and test settings.
        model: the published model to test if ``load_model_path`` is None (default ``lstm``).
        load_model_path: a model directory.
        split: ``test``, ``valid`` or ``train``.
        data_file: a file with labelled texts, instead of a split of the database.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never use the network.
        encoder: directory of the encoder that the model was trained on.

    Raises:
        ModelError, EncoderError: the model cannot be loaded, or has another head.
        LabelError: the data has other labels than the model.
        DatabaseError: the model was trained on another split, so its test rows may be among its training rows.
    """
    runtime = Runtime(device, offline, encoder)
    return testing.evaluate(config, model, runtime, load_model_path=load_model_path, split=split, data_file=data_file)


def run(
    config: Config,
    model: str | None = None,
    runtime: Runtime = Runtime(),
    *,
    load_model_path: Path | None = None,
    split: Split = "test",
    data_file: Path | None = None,
) -> TestResult:
    """As `evaluate`, and add an entry ``LSTMRoBERTa_Test`` to the results file."""
    result = testing.evaluate(config, model, runtime, load_model_path=load_model_path, split=split, data_file=data_file)
    entry = {
        "name": f"{result.model}_Test",
        "created": now(),
        "model_dir": str(result.model_dir),
        **result.entry,
        "versions": versions(),
    }
    append_result(paths.results_json(config.paths.results_dir), entry)
    return result
