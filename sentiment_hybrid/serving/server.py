"""Runs the service on a socket: bound before the model is loaded, stopped by a signal once all is answered."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn

from sentiment_hybrid.config.schema import Serve
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import UsageError
from sentiment_hybrid.files import reason
from sentiment_hybrid.runtime import stopping_by
from sentiment_hybrid.serving import log
from sentiment_hybrid.serving.app import Service
from sentiment_hybrid.serving.model import ServedModel, load_served, stamp_of

#: Environment variable with the token.
TOKEN_VARIABLE = "SENTHY_TOKEN"
_SHORTEST_TOKEN = 16
#: Connections beyond these get 503 at once; and the files that are open beside them.
_CONNECTIONS, _OTHER_FILES = 2000, 100
#: Seconds after which a thread that computes lets the event loop run: a few milliseconds are what an answer takes.
_SWITCH = 0.001


# --- before ----------------------------------------------------------------------------------------------------------


def find_token(settings: Serve) -> str | None:
    """The token of the file, else of the environment. Raises UsageError for one that is missing or no token."""
    given, where = os.environ.get(TOKEN_VARIABLE), f"the variable {TOKEN_VARIABLE}"
    if settings.token_file is not None:
        where = str(settings.token_file)
        try:
            given = settings.token_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read a token from {where}: {reason(error)}", hint=_MAKE_TOKEN) from error
    if given is None:
        return None
    token = given.strip()
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(
            f"{where} has no token of {_SHORTEST_TOKEN} or more ASCII characters without spaces", hint=_MAKE_TOKEN
        )
    return token


_MAKE_TOKEN = 'Create one: python -c "import secrets; print(secrets.token_urlsafe())" > token.txt'


def bind(settings: Serve) -> socket.socket:
    """A bound socket, which does not listen yet. Raises UsageError: no such address, or the port is in use."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason(error).lower()}",
            hint="Choose another one: --port 8001, or --port 0 for any free one; --host is an address of this machine.",
        ) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def address_of(bound: socket.socket) -> str:
    """The URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# --- while it runs ---------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """Ends normally after a signal; uvicorn would raise it once more at the end."""

    _signal: signal.Signals | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with stopping_by(self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. It may come while a line is logged, whose lock it would wait for: nothing is logged here."""
        self._signal = signal.Signals(sig)
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.event("stopping", signal=self._signal.name if self._signal else None)
        await super().shutdown(sockets)


def serve(
    directory: Path,
    open_model: Callable[[Path], Predictor],
    settings: Serve,
    *,
    quiet: bool = False,
    ready: Callable[[str, ServedModel], object] = lambda url, model: None,
) -> None:
    """Answer requests until a signal comes, and then those that have been received.

    Args:
        directory: of the model; it is loaded again when another one is published there.
        open_model: loads the model of a directory.
        settings: address and limits.
        quiet: log warnings and errors only.
        ready: called with the URL once requests are accepted.

    Raises:
        UsageError: the address cannot be used, or lacks a token.
        SenthyError: the model cannot be loaded.
    """
    token = find_token(settings)
    with bind(settings) as bound:
        if token is None and not is_loopback(bound):
            raise UsageError(
                f"{settings.host} is reachable from other machines, which needs a token",
                hint=f"Give --token-file FILE, or set {TOKEN_VARIABLE}. {_MAKE_TOKEN}",
            )
        model = load_served(directory, open_model)
        lines = log.start(logging.WARNING if quiet else logging.INFO)
        try:
            _run(bound, model, open_model, settings, token, ready)
        finally:
            lines.stop()


def _run(
    bound: socket.socket,
    model: ServedModel,
    open_model: Callable[[Path], Predictor],
    settings: Serve,
    token: str | None,
    ready: Callable[[str, ServedModel], object],
) -> None:
    sys.setswitchinterval(_SWITCH)
    gc.freeze()  # what libraries have made stays; a collection need not look at it
    service = Service(model, settings, token=token)
    watcher = Watcher(service, open_model)
    server = _Server(_uvicorn(service, settings))
    service.batcher.start()
    if settings.reload_seconds is not None:
        watcher.start()
    bound.listen(2048)
    log.event("serving", url=address_of(bound), model=model.id, directory=str(model.directory))
    ready(address_of(bound), model)
    try:
        server.run(sockets=[bound])
    finally:
        watcher.stop()
        service.batcher.close()
        log.event("stopped")


def _uvicorn(service: Service, settings: Serve) -> uvicorn.Config:
    return uvicorn.Config(
        service.application,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_connections(),
        timeout_graceful_shutdown=round(settings.stop_timeout),
    )


def _connections() -> int:
    """How many connections there may be: each is an open file, of which the system allows more if it is asked."""
    if os.name != "posix":
        return _CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(1, wanted - _OTHER_FILES)


class Watcher:
    """Loads what is newly published beside the model in use, and gives it to the service.

    If it cannot be loaded, or the directory no longer holds a model, that is logged once, and the old one stays in use.
    """

    def __init__(self, service: Service, open_model: Callable[[Path], Predictor]) -> None:
        model = service.batcher.model
        self._service, self._open = service, open_model
        self._directory, self._seen = model.directory, model.stamp
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="senthy-reload", daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop checking, after a load in progress."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._service.settings.reload_seconds):
            self.look()

    def look(self) -> None:
        """Load the model if it has changed since the last check."""
        stamp, count, in_use = stamp_of(self._directory), self._service.metrics.reload, self._service.batcher.model.id
        if stamp == self._seen:
            return
        self._seen = stamp
        if stamp[0] is None:
            count("gone")
            log.event("model_gone", level=logging.WARNING, directory=str(self._directory), in_use=in_use)
            return
        try:
            new = load_served(self._directory, self._open)
        except Exception as error:  # noqa: BLE001 - of any library that reads the files; the thread goes on
            count("failed")
            log.event("reload_failed", level=logging.ERROR, reason=str(error), in_use=in_use)
            return
        self._seen = new.stamp
        self._service.replace(new)
        gc.collect()  # the one before, once its last request is answered
        count("loaded")
        log.event("reloaded", model=new.id, directory=str(new.directory))
