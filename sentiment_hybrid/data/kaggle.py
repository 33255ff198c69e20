"""Downloads a Kaggle dataset with kagglehub, or finds it in kagglehub's cache."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

from sentiment_hybrid.errors import SourceError

DEFAULT_HANDLE = "zphudzz/tweets-clean-posneg-v1"
#: The two names under which the default dataset has been published; the first has kept its stopwords.
KNOWN_FILES = ("final_clean_no_neutral_no_duplicates.csv", "final_clean_no_neutral_no_duplicates_v1.csv")

_HANDLE = re.compile(r"(?P<owner>[\w-]+)/(?P<name>[\w-]+)(?:/versions/(?P<version>[1-9]\d*))?")
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_FILE_HINT = "Use a file of your own (--source FILE), or the sample texts (--source sample)."


def download(handle: str, *, offline: bool) -> Path:
    """The dataset's data file.

    Args:
        handle: ``OWNER/NAME`` or ``OWNER/NAME/versions/N``.
        offline: use only the cache.

    Raises:
        SourceError: no such dataset, no network and no cached copy, no credentials, or no usable file.
    """
    match = _HANDLE.fullmatch(handle)
    if match is None:
        raise SourceError(
            f"{handle!r} is not a Kaggle dataset", hint="Use kaggle:OWNER/NAME or kaggle:OWNER/NAME/versions/N."
        )
    folder = _kept(match) if offline else _fetched(handle, match)
    return _data_file(folder, handle)


def _fetched(handle: str, match: re.Match[str]) -> Path:
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub's own, of requests and of its SDK
        if _is_unreachable(error):
            with contextlib.suppress(SourceError):
                folder = _kept(match)
                logging.getLogger(__name__).warning("Kaggle cannot be reached: using the copy in %s", folder)
                return folder
        raise _explained(handle, error) from error


def _is_unreachable(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ConnectionError", "ConnectTimeout", "Timeout", "gaierror", "URLError"})


def _explained(handle: str, error: Exception) -> SourceError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    names = {kind.__name__ for kind in type(error).__mro__}
    if _is_unreachable(error):
        return SourceError(f"cannot download {handle} from Kaggle: is there a network connection?", hint=_FILE_HINT)
    if status == 404 or "NotFoundError" in names:
        return SourceError(f"Kaggle has no dataset {handle}", hint="See its page for the exact OWNER/NAME.")
    if status in (401, 403) or names & {"UnauthenticatedError", "CredentialError"}:
        return SourceError(
            f"Kaggle requires credentials for {handle}, or there is no such dataset",
            hint="Create a token at kaggle.com/settings and set KAGGLE_USERNAME and KAGGLE_KEY, or save it as "
            f"~/.kaggle/kaggle.json. {_FILE_HINT}",
        )
    return SourceError(f"cannot download {handle} from Kaggle: {type(error).__name__}: {error}", hint=_FILE_HINT)


def _kept(match: re.Match[str]) -> Path:
    """The newest complete version (or the pinned one) in kagglehub's cache."""
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
    base = cache / "datasets" / match["owner"] / match["name"]
    complete = {int(mark.stem) for mark in base.glob("*.complete") if mark.stem.isdecimal()}
    wanted = complete & {int(match["version"])} if match["version"] else complete
    for version in sorted(wanted, reverse=True):
        folder = base / "versions" / str(version)
        if folder.is_dir():
            return folder
    raise SourceError(
        f"{match[0]} of Kaggle is not in {base}, and downloads are disabled (offline)",
        hint=f"Run `senthy fetch` while online. {_FILE_HINT}",
    )


def _data_file(folder: Path, handle: str) -> Path:
    for name in KNOWN_FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _TABLES and file.is_file())
    if len(files) == 1:
        return files[0]
    shown = ", ".join(str(file.relative_to(folder)) for file in files) or "no csv, tsv, jsonl or parquet file"
    raise SourceError(
        f"the Kaggle dataset {handle} contains {shown}",
        hint=f"Choose one: --source {folder}{os.sep}..." if files else _FILE_HINT,
    )
