"""The service as a process: where it listens, what stops it, what it answers before it ends, and a model replaced."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from sentiment_hybrid import paths
from sentiment_hybrid.commands import serve as command
from sentiment_hybrid.config.schema import Config, Serve
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import ModelError, UsageError
from sentiment_hybrid.serving import log, server
from sentiment_hybrid.serving.app import Service
from sentiment_hybrid.serving.model import load_served

from .conftest import Stub, ask, predict


class Running:
    """`senthy serve` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "sentiment_hybrid", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first, self.process.communicate()[1]
        self.url: str = json.loads(first)["url"]
        self.port = int(self.url.rpartition(":")[2])

    def predict(self, connection: http.client.HTTPConnection, texts: list[str]) -> dict[str, Any] | None:
        """The answer; None if the connection ended without one."""
        try:
            body, headers = json.dumps({"texts": texts}), {"Content-Type": "application/json"}
            connection.request("POST", "/predict", body, headers)
            return json.loads(connection.getresponse().read())  # type: ignore[no-any-return]
        except (OSError, http.client.HTTPException):
            return None


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Running]:
    started = Running(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_stop_under_load_answers_what_was_taken_and_ends_with_zero() -> None:
    texts = ["not bad at all :)", "what a waste of time"] * 40
    answers: list[dict[str, Any] | None] = []
    with running("--load-model-path", "mini") as service:

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
            while (answer := service.predict(connection, texts)) is not None:
                answers.append(answer)

        clients = [threading.Thread(target=client) for _ in range(6)]
        for one in clients:
            one.start()
        while len(answers) < 6:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        out, err = service.process.communicate(timeout=60)
        for one in clients:
            one.join(60)
        assert service.process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines if line["event"] != "request"] == ["stopping", "stopped"]
    assert "Traceback" not in out + err
    # Every request that was taken was answered, and every answer arrived whole and right.
    taken = [line["status"] for line in lines if line["event"] == "request"]
    assert taken == [200] * len(answers)
    wanted = [("positive", "negative")[at % 2] for at in range(len(texts))]
    for answer in answers:
        assert answer is not None
        assert [one["label"] for one in answer["predictions"]] == wanted


def test_a_signal_while_a_line_is_logged_stops_the_service() -> None:
    lines = log.start(stream=io.StringIO())
    try:
        stopped = server._Server(uvicorn.Config(None))  # type: ignore[arg-type]
        with lines.queue.mutex:
            handler = threading.Thread(target=stopped.handle_exit, args=(signal.SIGTERM, None), daemon=True)
            handler.start()
            handler.join(10)
            assert stopped.should_exit and not handler.is_alive()
    finally:
        lines.stop()


def test_a_log_on_a_full_disk_loses_lines_and_goes_on_once_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    class Disk(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk = Disk()
    lines = log.start(stream=disk)
    log.event("lost")
    lines.stop()  # once it is written
    disk.full = False
    lines.start()
    log.event("kept")
    lines.stop()
    assert [json.loads(line)["event"] for line in disk.getvalue().splitlines()] == ["kept"]
    assert capsys.readouterr().err == ""


def test_a_port_that_is_in_use_is_reported_before_the_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1 port {port}: address already in use"):
            server.serve(Path("none"), _never, Serve(port=port))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_of_this_machine_is_reported(host: str) -> None:
    with pytest.raises(UsageError, match=f"cannot listen on {host}"):
        server.serve(Path("none"), _never, Serve(host=host, port=0))


def _never(place: Path) -> Predictor:
    raise AssertionError("loaded")


def test_beyond_this_machine_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"0\.0\.0\.0 is reachable from other machines, which needs a token"):
        server.serve(Path("none"), _never, Serve(host="0.0.0.0", port=0))
    monkeypatch.setenv(server.TOKEN_VARIABLE, "0123456789abcdef")
    with pytest.raises(ModelError):  # the next step
        server.serve(Path("none"), lambda place: Predictor(place), Serve(host="0.0.0.0", port=0))


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.TOKEN_VARIABLE, "of-the-environment")
    assert server.find_token(Serve()) == "of-the-environment"
    (tmp_path / "token").write_text("a-token-of-a-file\n", encoding="ascii")
    assert server.find_token(Serve(token_file=tmp_path / "token")) == "a-token-of-a-file"
    for content in ("", "short", "with spaces in between", "ümläute-ümläute-ümläute"):
        (tmp_path / "token").write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match="token"):
            server.find_token(Serve(token_file=tmp_path / "token"))
    with pytest.raises(UsageError, match="No such file"):
        server.find_token(Serve(token_file=tmp_path / "none"))


def test_a_missing_extra_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match="senthy serve needs uvicorn, which is not installed") as error:
        command.run(Config())
    assert "pip install" in error.value.hint


# --- a model replaced ------------------------------------------------------------------------------------------------


def put_model(folder: Path, text: str) -> None:
    """A model directory that changes with its text, renamed into place as a publication does."""
    aside = folder.with_name("aside")
    aside.mkdir()
    (aside / paths.MODEL_JSON).write_text(text, encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)


class Watched:
    """A service on a model in a folder, whose watcher is called by hand."""

    def __init__(self, folder: Path, make_service: Callable[..., Service]) -> None:
        self.events: list[Any] = []
        put_model(folder, "first")
        self.stub = Stub(name="first")
        model = load_served(folder, self.load)
        self.service = make_service(model)
        self.watcher = server.Watcher(self.service, self.load)

    def load(self, place: Path) -> Any:
        text = (place / paths.MODEL_JSON).read_text(encoding="utf-8")
        if text == "damaged":
            raise ModelError("model.json is damaged")
        if text == "half":
            raise ValueError("expected value at line 1")
        return self.stub if text == "first" else Stub(name=text)

    def log(self, name: str, **facts: Any) -> None:
        if name in ("reloaded", "reload_failed", "model_gone"):
            self.events.append(facts.get("reason") or facts.get("model") or name)


@pytest.fixture
def watched(tmp_path: Path, make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched(tmp_path / "model", make_service)
    monkeypatch.setattr(log, "event", made.log)
    return made


def test_a_newly_published_model_answers_new_requests_and_the_old_one_those_it_has_begun(
    watched: Watched, tmp_path: Path
) -> None:
    watched.stub.gate.clear()

    def publish() -> None:
        watched.stub.entered.wait(20)  # the first round of the old model has begun
        put_model(tmp_path / "model", "second")
        watched.watcher.look()
        watched.stub.gate.set()

    begun = {"texts": ["text " * 100] * 300}
    (old,) = predict(watched.service, begun, waiting=300, then=publish)
    (new,) = predict(watched.service, {"texts": ["a"]})
    assert (old.json()["model"], new.json()["model"]) == ("first0000000", "second000000")
    assert len(watched.stub.seen) > 1  # in several rounds, of which the first alone was before the change
    assert watched.events == ["second000000"]


def test_a_damaged_or_removed_model_leaves_the_one_in_use(watched: Watched, tmp_path: Path) -> None:
    put_model(tmp_path / "model", "damaged")
    watched.watcher.look()
    watched.watcher.look()
    shutil.rmtree(tmp_path / "model")
    watched.watcher.look()
    watched.watcher.look()
    put_model(tmp_path / "model", "half")
    watched.watcher.look()
    assert watched.events == ["model.json is damaged", "model_gone", "expected value at line 1"]
    shutil.rmtree(tmp_path / "model")
    (response,) = predict(watched.service, {"texts": ["a"]})
    assert (response.status_code, response.json()["model"]) == (200, "first0000000")
    (described,) = ask(watched.service, ("GET", "/models", {}))[0].json()["models"]
    assert described["published"] is False
    put_model(tmp_path / "model", "third")
    watched.watcher.look()
    assert watched.events[-1] == "third0000000"


def test_a_service_that_is_stopping_is_not_ready_and_takes_nothing_more(make_service: Callable[..., Service]) -> None:
    service = make_service(Stub())
    service.batcher.close()
    ready, health, predicted = ask(
        service, ("GET", "/ready", {}), ("GET", "/health", {}), ("POST", "/predict", {"json": {"texts": "a"}})
    )
    assert (ready.status_code, health.status_code, predicted.status_code) == (503, 200, 503)
    assert predicted.headers["retry-after"]
