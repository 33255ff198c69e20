"""All names of files that the program reads or writes."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

MODEL_JSON = "model.json"
MODEL_CARD = "README.md"
MODEL_WEIGHTS = "model.safetensors"
ENCODER_DIR = "encoder"
TOKENIZER_DIR = "tokenizer"
ONNX_MODEL = "model.onnx"
ONNX_DATA = "model.onnx.data"
TOKENIZER_JSON = "tokenizer.json"
PRETRAINED_JSON = "pretrained.json"
SEEN_TEXTS = "seen.npz"
TRIAGE_JSON = "triage.json"

#: As the name of an encoder, the one in the package; as the name of a model, the best one with it.
MINI = "mini"
SCRATCH = "scratch"
#: As the name of an encoder, a table of token vectors made from another one; also its `model_type`.
STATIC = "static"

RUN_CONFIG = "config.yaml"
RUN_META = "meta.json"
RUN_METRICS = "metrics.jsonl"
RUN_CURVES = "learning_curves.png"
RUN_LOCK = ".lock"
CHECKPOINTS_DIR = "checkpoints"
CHECKPOINT_POINTERS = "pointers.json"
CHECKPOINT_STATE = "state.safetensors"
CHECKPOINT_JSON = "state.json"

RESULTS_JSON = "model_results.json"

STORE_JSON = "store.json"
SHARD_JSON = "shard.json"
BASELINE_JSON = "baseline.json"
TEACHER_JSON = "teacher.json"

#: Environment variable for the location of all state that no config names, which is the cache; tests set it.
HOME_VARIABLE = "SENTHY_HOME"


def cache_dir(configured: Path | None) -> Path:
    """The directory of stored states, baselines and downloads: as configured, $SENTHY_HOME/cache, or the system's."""
    if configured is not None:
        return configured.expanduser()
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home).expanduser() / "cache"
    return user_cache_path("senthy", appauthor=False)


def states_dir(cache: Path) -> Path:
    """Stored token states of frozen encoder layers."""
    return cache / "states"


def baselines_dir(cache: Path) -> Path:
    """Fitted TF-IDF baselines, one folder per training-set fingerprint."""
    return cache / "baselines"


def teachers_dir(cache: Path) -> Path:
    """Predictions of teachers, one folder per teacher and precision."""
    return cache / "teachers"


def nltk_dir(cache: Path) -> Path:
    """The directory of downloaded nltk data, searched after NLTK_DATA."""
    return cache / "nltk_data"


def published_model(models_dir: Path, head: str) -> Path:
    """``models/lstm_roberta_model_final``."""
    return models_dir / f"{head}_roberta_model_final"


def finetuned_model(models_dir: Path, head: str) -> Path:
    """``models/lstm_roberta_model_finetuned``."""
    return models_dir / f"{head}_roberta_model_finetuned"


def finetune_dir(cache: Path) -> Path:
    """Prepared texts of fine-tuning runs, one database each."""
    return cache / "finetune"


def packed_models(models_dir: Path) -> Path:
    """``models/packed``."""
    return models_dir / "packed"


def exported_model(models_dir: Path, head: str, quantized: str | None = None) -> Path:
    """``models/lstm_roberta_model_onnx``, or ``..._onnx_int8``."""
    return models_dir / f"{head}_roberta_model_onnx{f'_{quantized}' if quantized else ''}"


def finetune_db(cache: Path, fingerprint: str) -> Path:
    """The prepared texts of a fine-tuning run, by their fingerprint: heads and resumed runs share them."""
    return finetune_dir(cache) / f"{fingerprint[:20]}.db"


def kept_models(models_dir: Path) -> Path:
    """``models/runs``: one folder per trained model."""
    return models_dir / "runs"


def runs_dir(results_dir: Path) -> Path:
    """``results/runs``: one folder per training run."""
    return results_dir / "runs"


def results_json(results_dir: Path) -> Path:
    """``results/model_results.json``: a list of results, to which entries are only added."""
    return results_dir / RESULTS_JSON


#: Files that a test writes, by kind.
TEST_FILES = {
    "predictions": "predictions.csv",
    "confusion_matrix": "confusion_matrix.png",
    "reliability": "reliability.png",
    "risk_coverage": "risk_coverage.png",
}


def test_files(results_dir: Path, model: str, rows: str) -> dict[str, Path]:
    """``results/tests/<model>/test_predictions.csv`` and so on, of any model, by kind."""
    return {kind: results_dir / "tests" / model / f"{rows}_{name}" for kind, name in TEST_FILES.items()}


def public_test_files(results_dir: Path, head: str, rows: str) -> dict[str, Path]:
    """``results/lstm_roberta_test_predictions.csv`` and so on, of the published model, by kind."""
    return {kind: results_dir / f"{head}_roberta_{rows}_{name}" for kind, name in TEST_FILES.items()}


def check_json(results_dir: Path) -> Path:
    """``results/check.json``: the report of `senthy check`, for other programs."""
    return results_dir / "check.json"


def study_db(results_dir: Path, head: str) -> Path:
    """``results/optuna_lstm_roberta.db``: the searches of one model."""
    return results_dir / f"optuna_{head}_roberta.db"


def best_params(results_dir: Path, head: str) -> Path:
    """``results/lstm_roberta_best_params.yaml``: the best parameters of a search, as part of a config."""
    return results_dir / f"{head}_roberta_best_params.yaml"


def comparison_png(results_dir: Path) -> Path:
    """``results/comparison.png``, drawn by run-all."""
    return results_dir / "comparison.png"


def configs_dir() -> Path:
    """The folder of the shipped configs: inside the wheel, or next to the package in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Name -> file of each shipped config."""
    return {file.stem: file for file in sorted(configs_dir().glob("*.yaml"))}


def mini_dir() -> Path:
    """The encoder and the models that ship in the package: encoder/, lstm/, han/."""
    return Path(__file__).parent / "assets" / "mini"


def sample_csv() -> Path:
    """The bundled sample texts."""
    return Path(__file__).parent / "data" / "sample.csv"
