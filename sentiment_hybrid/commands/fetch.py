"""``senthy fetch``: bring encoder, data and nltk data for later work without a network, or say what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import EncoderError, SenthyError, UsageError

KINDS = ("encoder", "data", "nltk")

#: What an encoder is loaded from; never a pickle.
_ENCODER_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")


@dataclass(frozen=True)
class Part:
    """One thing that work without a network needs: where it lies, or the ``problem`` why it does not."""

    what: str
    state: str
    where: str = ""
    problem: str = ""


@dataclass(frozen=True)
class FetchResult:
    """Everything that was asked for, in order."""

    parts: tuple[Part, ...]

    @property
    def missing(self) -> tuple[Part, ...]:
        """What is not there, and why."""
        return tuple(part for part in self.parts if part.problem)


def run(config: Config, *, what: Sequence[str] = (), offline: bool = False) -> FetchResult:
    """Bring what the config needs; one failure does not keep the others from being brought.

    Args:
        config: names the encoder, the sources and the normaliser.
        what: ``encoder``, ``data``, ``nltk``; empty is all that the config needs.
        offline: look only at what is there.

    Raises:
        UsageError: a kind that there is not.
    """
    unknown = [kind for kind in what if kind not in KINDS]
    if unknown:
        raise UsageError(f"--what {unknown[0]}: there is no such thing to fetch", hint=f"Known: {', '.join(KINDS)}.")
    steps: dict[str, Callable[[], Part]] = {
        "encoder": lambda: _encoder(config, offline=offline),
        "data": lambda: _data(config, offline=offline),
        "nltk": lambda: _nltk(config, offline=offline, asked="nltk" in what),
    }
    return FetchResult(tuple(_attempt(kind, steps[kind]) for kind in KINDS if kind in what or not what))


def _attempt(kind: str, step: Callable[[], Part]) -> Part:
    from sentiment_hybrid.console import note

    note(f"{kind} ...")
    try:
        return step()
    except SenthyError as error:
        return Part(kind, "missing", problem=" ".join(part for part in (error.message + ".", error.hint) if part))


def _encoder(config: Config, *, offline: bool) -> Part:
    name, revision = config.encoder.name, config.encoder.revision
    if name == "scratch":
        return Part("encoder", "not needed", "built from the data")
    if name == paths.MINI:
        return Part("encoder", "there", "it ships in the package")
    if Path(name).expanduser().is_dir():
        return Part("encoder", "there", str(Path(name).expanduser()))
    folder = _snapshot(name, revision, offline=offline)
    if not any(folder.glob("*.safetensors")):
        raise EncoderError(
            f"{name} has no safetensors weights at {folder}",
            hint="Only safetensors are loaded, never a pickle: choose another encoder or revision.",
        )
    return Part("encoder", "there", str(folder))


def _snapshot(name: str, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(_ENCODER_FILES), local_files_only=offline)
        )
    except HFValidationError as error:
        raise EncoderError(f"there is no directory {name}, and it is no hub name either") from error
    except LocalEntryNotFoundError as error:
        where = "is not in the hub's cache on this disk" if offline else "cannot be reached on the hub: no network?"
        raise EncoderError(
            f"the encoder {name} {where}",
            hint="Run `senthy fetch` with a network, or set encoder.name to a directory that holds it.",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"the hub does not give {name}: {reason}", hint="Check encoder.name and encoder.revision."
        ) from error


def _data(config: Config, *, offline: bool) -> Part:
    from sentiment_hybrid.data.sources import open_source

    data = config.data
    specs = [data.train_source, data.valid_source, data.test_source] if data.train_source else [data.source]
    names = [open_source(spec, data, offline=offline).name for spec in specs if spec is not None]
    return Part("data", "there", ", ".join(names))


def _nltk(config: Config, *, offline: bool, asked: bool) -> Part:
    from sentiment_hybrid.data.normalizers import prepare_nltk

    if config.data.normalizer != "classic" and not asked:
        return Part("nltk", "not needed", f"for the normaliser {config.data.normalizer}")
    cache = paths.cache_dir(config.paths.cache_dir)
    prepare_nltk(cache, offline)
    return Part("nltk", "there", f"NLTK_DATA or {paths.nltk_dir(cache)}")
