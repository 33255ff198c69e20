"""Files in an object store: a real server on this machine, through the real client."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentiment_hybrid import redaction
from sentiment_hybrid.data import remote, shards
from sentiment_hybrid.data.sources import several
from sentiment_hybrid.errors import OutputError, SourceError

fsspec = pytest.importorskip("fsspec")
s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

BUCKET = "s3://tweets"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> fsspec.AbstractFileSystem:
    """An empty bucket."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fs, _ = fsspec.core.url_to_fs(BUCKET, use_listings_cache=False)
    if fs.exists(BUCKET):
        fs.rm(BUCKET, recursive=True)
    fs.mkdir(BUCKET)
    return fs


@pytest.mark.parametrize("other", ["s3a://tweets/in", "s3://tweets//in/", "s3://tweets/in"])
def test_one_place_of_a_store_has_one_name(other: str) -> None:
    assert remote.located(other) == "s3://tweets/in"
    assert remote.is_inside(remote.located(f"{other}/a.csv"), remote.located("s3a://tweets/in/"))
    assert not remote.is_inside(remote.located(f"{other.rstrip('/')}put/a.csv"), remote.located("s3a://tweets/in/"))


def test_a_folder_a_pattern_and_one_object_are_found(store: fsspec.AbstractFileSystem) -> None:
    for name in ("in/a.csv", "in/more/b.csv.gz", "in/_SUCCESS", "in/.hidden.csv", "in/notes.md", "other/c.csv"):
        store.pipe_file(f"{BUCKET}/{name}", name.encode())
    found = several.find_shards(f"{BUCKET}/in/")
    assert found.root == f"{BUCKET}/in"
    assert [(one.name, one.place) for one in found.shards] == [
        ("a.csv", f"{BUCKET}/in/a.csv"),
        ("more/b.csv.gz", f"{BUCKET}/in/more/b.csv.gz"),
    ]
    assert found.ignored == ["notes.md"]
    assert [one.name for one in several.find_shards(f"{BUCKET}/*/[ac].csv").shards] == ["in/a.csv", "other/c.csv"]
    assert [one.name for one in several.find_shards(f"{BUCKET}/other/c.csv").shards] == ["c.csv"]
    with pytest.raises(SourceError, match="there is no file of a known format in"):
        several.find_shards(f"{BUCKET}/nothing/")


def test_an_object_that_is_replaced_has_another_stamp(store: fsspec.AbstractFileSystem) -> None:
    stamps = []
    for content in (b"one", b"two", b"two"):
        store.pipe_file(f"{BUCKET}/in/a.csv", content)
        stamps.append(several.find_shards(f"{BUCKET}/in").shards[0].stamp)
    assert stamps[0] != stamps[1] == stamps[2]


def test_objects_are_copied_here_and_back(store: fsspec.AbstractFileSystem) -> None:
    store.pipe_file(f"{BUCKET}/in/a.csv", b"text\ngood\n")
    (shard,) = several.find_shards(f"{BUCKET}/in").shards
    with several.fetched(shard) as path:
        assert path.read_bytes() == b"text\ngood\n"
    assert not path.exists()
    folder = shards.open_folder(f"{BUCKET}/out/")
    assert (folder.read("_senthy/job.json"), folder.size("more/a.csv"), folder.names()) == (None, None, [])
    folder.write("_senthy/job.json", {"format": 1})
    with folder.new("more/a.csv") as path:
        path.write_bytes(b"text,prediction\n")
        assert folder.size("more/a.csv") is None, "not there until it is whole"
    assert folder.size("more/a.csv") == 16
    assert folder.read("_senthy/job.json") == {"format": 1}
    assert folder.names() == ["_senthy/job.json", "more/a.csv"]


def test_a_failure_puts_nothing_there(store: fsspec.AbstractFileSystem) -> None:
    folder = shards.open_folder(f"{BUCKET}/out")
    with pytest.raises(KeyboardInterrupt), folder.new("a.csv") as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert folder.names() == []


@pytest.mark.parametrize("url", ["s3://no-such-bucket/in/a.csv", "s3://no-such-bucket/in/*.csv"])
def test_a_bucket_that_is_not_there_is_reported(url: str, store: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(SourceError, match=r"no-such-bucket|no file"):
        several.find_shards(url)
    with pytest.raises(OutputError, match=r"cannot write s3://no-such-bucket/out/a\.json"):
        shards.open_folder("s3://no-such-bucket/out").write("a.json", {})


def test_a_password_is_not_quoted_from_the_message_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    with pytest.raises(SourceError, match="Invalid bucket name") as failure:
        remote.listed("s3://key:geheim@tweets/in")
    assert "geheim" not in redaction.redact(failure.value.message)


def test_an_unreachable_server_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "_cache", {})
    started = time.monotonic()
    with pytest.raises(SourceError, match="cannot read s3://tweets/in") as failure:
        remote.listed("s3://tweets/in")
    assert "credentials" in failure.value.hint
    assert time.monotonic() - started < 60


def test_a_protocol_without_its_package_names_what_to_install() -> None:
    with pytest.raises(SourceError, match="cannot read gs://") as failure:
        remote.listed("gs://tweets/in")
    assert "pip install" in failure.value.hint
    with pytest.raises(SourceError, match="Protocol not known: nonsense"):
        remote.listed("nonsense://tweets/in")


def test_a_file_system_without_whole_writes_gets_a_file_renamed(tmp_path: Path) -> None:
    folder = shards.open_folder(f"file://{tmp_path}/out")
    with folder.new("more/a.csv") as path:
        path.write_bytes(b"text\n")
    assert (tmp_path / "out" / "more" / "a.csv").read_bytes() == b"text\n"
    assert folder.names() == ["more/a.csv"]
