"""``senthy config show|check|init|schema``: shows, checks and explains settings, and writes a file to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sentiment_hybrid import console, paths
from sentiment_hybrid.config import describe
from sentiment_hybrid.config.load import load_config, resolve, to_yaml
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import ConfigError, OutputError
from sentiment_hybrid.redaction import redact


def show(config: Config) -> str:
    """The resolved configuration as YAML that loads to the same Config, but for passwords, which are hidden."""
    return redact(to_yaml(config))


def check(source: str | None, overrides: Sequence[str] = (), **options: Any) -> str:
    """A sentence that says the configuration is valid; ``options`` as for `load_config`.

    Raises ConfigError with every problem.
    """
    load_config(source, overrides, **options)
    return f"{resolve(source) if source is not None else 'defaults'}: valid"


def init(path: Path, *, name: str = "default", force: bool = False) -> Path:
    """Write a commented copy of a shipped configuration; in a directory, as ``senthy.yaml``.

    Raises:
        ConfigError: no shipped configuration has this name.
        OutputError: the file exists (without ``force``), or cannot be written.
    """
    shipped = paths.shipped_configs()
    if name not in shipped:
        raise ConfigError(f"there is no shipped configuration {name!r}", hint=f"Available: {', '.join(shipped)}.")
    target = path / "senthy.yaml" if path.is_dir() else path
    if target.exists() and not force:
        raise OutputError(f"{target} already exists", hint="Choose another name, or overwrite it with --force.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(shipped[name].read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", hint="Choose another location.") from error
    return target


def schema(style: Literal["table", "json", "markdown"]) -> None:
    """Print every setting: a table (in a pipe, one per line), the JSON Schema for editors, or the documentation."""
    if style == "json":
        console.as_json(describe.json_schema())
    elif style == "markdown":
        console.raw(describe.markdown())
    else:
        rows = [[one.key, one.allowed, one.default, one.meaning] for one in describe.listed()]
        console.table("", ["setting", "allowed", "default", "meaning"], rows, left=4)
