"""Shards and outputs in object stores and on other machines, through fsspec (extra ``remote``).

Files are copied to a local folder, labelled there, and copied back; an object store shows an object once it is whole.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.errors import OutputError, SenthyError, SourceError
from sentiment_hybrid.files import has_no_room, reason, write_json
from sentiment_hybrid.redaction import redact, remember

if TYPE_CHECKING:
    import fsspec

#: What distinguishes a version of an object from others, best first; stores differ in what they know.
_VERSION = ("ETag", "etag", "content_md5", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")

#: Where an object appears once it is whole, and where making folders would make buckets.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"}


@dataclass(frozen=True)
class Shard:
    """A file to read: its name under the common folder, its place (path or URL), and what changes with its content."""

    name: str
    place: str
    stamp: list[int | str]


def is_url(spec: str | Path) -> bool:
    """Whether it is ``PROTOCOL://...``."""
    return re.match(r"[a-z][a-z0-9+.-]+://", str(spec)) is not None


def located(spec: str | Path) -> str:
    """A path or URL in one of the ways of writing it: ``s3://b/c`` for ``s3a://b//c/``; absolute if it is local.

    Raises SourceError: nothing is known of such URLs, or a package is missing.
    """
    if not is_url(spec):
        return Path(spec).expanduser().resolve().as_posix()
    protocol, _, rest = str(spec).partition("://")
    with _errors_as(SourceError, "read", str(spec)):
        from fsspec import get_filesystem_class

        names = get_filesystem_class(protocol).protocol
    first = names if isinstance(names, str) else names[0]
    if first == "file":
        return located(Path("/", rest))
    return f"{first}://{re.sub('/+', '/', rest).rstrip('/')}"


def is_inside(place: str, folder: str) -> bool:
    """Whether a place is below a folder, both as ``located`` gives them."""
    return place.startswith(f"{folder.rstrip('/')}/")


def is_pattern(spec: str) -> bool:
    """Whether a path has wildcards."""
    return any(character in spec for character in "*?[")


@contextlib.contextmanager
def _errors_as(kind: type[SenthyError], doing: str, url: str) -> Iterator[None]:
    """Raise what the library of a store raises, each in its own classes, as an error of ours."""
    remember(url)  # these quote parts of it
    try:
        yield
    except SenthyError:
        raise
    except ImportError as error:
        raise kind(
            f"cannot {doing} {redact(url)}: {error}",
            hint='Install what it needs, in the checkout for example: pip install ".[remote]"',
        ) from error
    except FileNotFoundError as error:
        raise kind(f"cannot {doing} {redact(url)}: it is not there", hint="Check the URL.") from error
    except Exception as error:
        if has_no_room(error):
            place = url if kind is OutputError else tempfile.gettempdir()
            elsewhere = "choose another output folder" if kind is OutputError else "set TMPDIR to another folder"
            raise OutputError(
                f"cannot write to {redact(place)}: {reason(error)}",
                hint=f"Free some disk space there, or {elsewhere}.",
            ) from error
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise kind(
            f"cannot {doing} {redact(url)}: {said}", hint="Check the URL, the credentials and the network."
        ) from error


def _opened(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    # Listings are not kept: other processes write at the same time.
    fs, path = url_to_fs(url, use_listings_cache=False)
    return fs, str(path).rstrip("/")


def listed(url: str) -> tuple[str, list[Shard]]:
    """The URL of the common folder, and the files that a URL names: one, a folder, or a pattern. Raises SourceError."""
    with _errors_as(SourceError, "read", url):
        fs, path = _opened(url)
        if is_pattern(path):
            parts = path.split("/")
            fixed = next(at for at, part in enumerate(parts) if is_pattern(part))
            root, found = "/".join(parts[:fixed]), fs.glob(path, detail=True)
        elif fs.isfile(path):
            root, found = posixpath.dirname(path), {path: fs.info(path)}
        else:
            root, found = path, fs.find(path, detail=True)
        # File systems of a server strip its name from paths, too: what was stripped is put before them again.
        before = url.rstrip("/").removesuffix(path)
        is_prefix = is_url(f"{before}/") and url.startswith(f"{before}{path}")
        shards = [
            Shard(
                re.sub("/+", "/", name[len(root) :]).lstrip("/"),
                f"{before}{name}" if is_prefix else fs.unstrip_protocol(name),
                _stamp(facts),
            )
            for name, facts in found.items()
            if facts.get("type") != "directory"
        ]
        return fs.unstrip_protocol(root), shards


def _stamp(facts: dict[str, Any]) -> list[int | str]:
    version = next((facts[name] for name in _VERSION if facts.get(name)), "")
    return [int(facts.get("size") or 0), str(version)]


@contextlib.contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """A local copy, for as long as the block lasts. Raises SourceError."""
    with tempfile.TemporaryDirectory(prefix="senthy-") as folder:
        path = Path(folder) / posixpath.basename(url)
        with _errors_as(SourceError, "read", url):
            fs, place = _opened(url)
            fs.get_file(place, str(path))
        yield path


class RemoteFolder:
    """A folder that fsspec can write to, with the methods of `shards.LocalFolder`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with _errors_as(OutputError, "write to", url):
            self._fs, self._root = _opened(url)

    def __str__(self) -> str:
        return self.url

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON document; None if there is none, or it is damaged."""
        with _errors_as(OutputError, "read", f"{self.url}/{name}"):
            try:
                document = json.loads(self._fs.cat_file(self._place(name)))
            except (FileNotFoundError, ValueError):
                return None
        return document if isinstance(document, dict) else None

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write a JSON document as a whole."""
        with self.new(name) as path:
            write_json(path, document)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        with _errors_as(OutputError, "write to", f"{self.url}/{name}"), contextlib.suppress(FileNotFoundError):
            if self._fs.exists(self._place(name)):
                self._fs.rm_file(self._place(name))

    def names(self) -> list[str]:
        """Every file that is not hidden."""
        with _errors_as(OutputError, "read", self.url):
            found = [name[len(self._root) :].lstrip("/") for name in self._fs.find(self._root)]
        return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""
        with _errors_as(OutputError, "read", f"{self.url}/{name}"):
            try:
                return int(self._fs.info(self._place(name))["size"])
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Nobody is kept out: stores have no locks. Two processes that label one file write the same."""
        yield

    @contextlib.contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A path in a local folder, copied to its place when the block ends well."""
        with tempfile.TemporaryDirectory(prefix="senthy-") as folder:
            path = Path(folder) / posixpath.basename(name)
            yield path
            with _errors_as(OutputError, "write", f"{self.url}/{name}"):
                self._put(path, self._place(name))

    def _put(self, path: Path, place: str) -> None:
        """Copy a file: at once where that is how the store writes, else under another name that is then changed."""
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else {*self._fs.protocol}
        if protocols & _OBJECT_STORES:
            self._fs.put_file(str(path), place)
            return
        self._fs.makedirs(posixpath.dirname(place), exist_ok=True)
        aside = posixpath.join(posixpath.dirname(place), f".{posixpath.basename(place)}.{uuid.uuid4().hex[:8]}.partial")
        self._fs.put_file(str(path), aside)
        self._fs.mv(aside, place)
