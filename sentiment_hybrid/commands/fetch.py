"""``senthy fetch``: downloads the encoder, the data and nltk data for offline use, or reports what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentiment_hybrid import console, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.errors import EncoderError, SenthyError, UsageError

KINDS = ("encoder", "data", "nltk")

#: What an encoder is loaded from; never a pickle.
_ENCODER_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")


@dataclass(frozen=True)
class Requirement:
    """One requirement of offline use: its location, or the ``problem`` if it is missing."""

    what: str
    state: str
    where: str = ""
    problem: str = ""


@dataclass(frozen=True)
class FetchResult:
    """Everything that was requested, in order."""

    parts: tuple[Requirement, ...]

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """The missing parts; ``problem`` says why."""
        return tuple(part for part in self.parts if part.problem)


def run(config: Config, *, what: Sequence[str] = (), offline: bool = False) -> FetchResult:
    """Download what the configuration needs; a failure does not stop the other downloads.

    Args:
        what: ``encoder``, ``data``, ``nltk``; empty means everything that the configuration needs.
        offline: only check what is available.

    Raises:
        UsageError: an unknown kind.
    """
    unknown = [kind for kind in what if kind not in KINDS]
    if unknown:
        raise UsageError(f"--what {unknown[0]}: unknown", hint=f"Choose from: {', '.join(KINDS)}.")
    steps: dict[str, Callable[[], Requirement]] = {
        "encoder": lambda: _encoder(config, offline=offline),
        "data": lambda: _data(config, offline=offline),
        "nltk": lambda: _nltk(config, offline=offline, asked="nltk" in what),
    }
    return FetchResult(tuple(_attempt(kind, steps[kind]) for kind in KINDS if kind in what or not what))


def _attempt(kind: str, step: Callable[[], Requirement]) -> Requirement:
    note(f"{kind} ...")
    try:
        return step()
    except SenthyError as error:
        return Requirement(kind, "missing", problem=f"{error.message}. {error.hint}".strip())


def _encoder(config: Config, *, offline: bool) -> Requirement:
    name, revision = config.encoder.origin, config.encoder.revision
    if name == "scratch":
        return Requirement("encoder", "not needed", "built from the data")
    if name == paths.MINI:
        return Requirement("encoder", "available", "ships in the package")
    if Path(name).expanduser().is_dir():
        return Requirement("encoder", "available", str(Path(name).expanduser()))
    folder = _snapshot(name, revision, offline=offline)
    if not any(folder.glob("*.safetensors")):
        raise EncoderError(
            f"{name} has no safetensors weights at {folder}",
            hint="senthy never loads pickle files. Choose another encoder or revision.",
        )
    return Requirement("encoder", "available", str(folder))


def _snapshot(name: str, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    files = list(_ENCODER_FILES)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=offline))
    except HFValidationError as error:
        raise EncoderError(f"{name} is neither a directory nor a valid hub name") from error
    except (HfHubHTTPError, OSError) as error:
        from sentiment_hybrid.models.encoder.hub import unavailable

        raise unavailable(name, revision, error, local_only=offline) from error


def _data(config: Config, *, offline: bool) -> Requirement:
    data = config.data
    specs = [data.train_source, data.valid_source, data.test_source] if data.train_source else [data.source]
    names = [open_source(spec, data, offline=offline).name for spec in specs if spec is not None]
    return Requirement("data", "available", ", ".join(names))


def _nltk(config: Config, *, offline: bool, asked: bool) -> Requirement:
    from sentiment_hybrid.data.normalizers import get_normalizer, prepare_nltk

    if get_normalizer(config.data.normalizer).preparation is None and not asked:
        return Requirement("nltk", "not needed", f"by the normaliser {config.data.normalizer}")
    cache = config.paths.cache
    prepare_nltk(cache, offline)
    return Requirement("nltk", "available", f"NLTK_DATA or {paths.nltk_dir(cache)}")


def show(result: FetchResult) -> None:
    """Show what is available for offline use, and what is missing."""
    console.table(
        "", ["what", "state", "where"], [[part.what, part.state, part.where] for part in result.parts], left=3
    )
    for part in result.missing:
        console.warn(f"{part.what}: {part.problem}")
