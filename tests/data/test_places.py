"""Places of files on file systems that fsspec knows, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid.data import remote, shards
from sentiment_hybrid.data.sources import several

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402
from fsspec.utils import infer_storage_options  # noqa: E402


class OfAServer(MemoryFileSystem):  # type: ignore[misc]
    """Paths lack the name of the server, as those of sftp://, which is needed to connect."""

    protocol = "served"

    def __init__(self, host: str, **options: Any) -> None:
        super().__init__(**options)
        assert host == "server"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(infer_storage_options(path)["path"]) if "://" in path else str(super()._strip_protocol(path))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return {"host": infer_storage_options(path)["host"]}


@pytest.mark.parametrize("spec", ["folder", "folder/", "folder/*.csv", "folder/a.csv"])
def test_places_of_files_name_their_server(spec: str) -> None:
    fsspec.register_implementation("served", OfAServer, clobber=True)
    OfAServer("server").pipe("/folder/a.csv", b"text\ngood\n")
    _, (found,) = remote.listed(f"served://server/{spec}")
    assert (found.name, found.place) == ("a.csv", "served://server/folder/a.csv")
    with remote.downloaded(found.place) as path:
        assert path.read_bytes() == b"text\ngood\n"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("served://server", "served://server/only.csv"),
        ("served://server/", "served://server/only.csv"),
        ("memory://", "memory:///only.csv"),
        ("memory:///", "memory:///only.csv"),
        ("memory://only.csv", "memory://only.csv"),
    ],
)
def test_places_in_the_root_can_be_read(url: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("served", OfAServer, clobber=True)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    MemoryFileSystem().pipe("/only.csv", b"text\n")
    _, (found,) = remote.listed(url)
    assert (found.name, found.place) == ("only.csv", place)
    with remote.downloaded(found.place) as path:
        assert path.read_bytes() == b"text\n"


def test_keys_with_empty_parts_are_files_too() -> None:
    MemoryFileSystem().pipe("/doubled/in//a.csv", b"text\ngood\n")
    MemoryFileSystem().pipe("/doubled/in/_b/c.csv", b"text\n")
    assert [one.name for one in several.find_shards("memory:///doubled").shards] == ["in/a.csv"]


def test_a_file_is_removed_once(tmp_path: Path) -> None:
    for folder in (shards.open_folder("memory:///removed"), shards.open_folder(tmp_path)):
        folder.write("more/a.json", {"rows": 1})
        folder.remove("more/a.json")
        folder.remove("more/a.json")
        assert folder.read("more/a.json") is None
