"""What a request passes before the application sees it: its id, host and token, the size and time of its body."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from sentiment_hybrid.serving import log
from sentiment_hybrid.serving.metrics import Metrics
from sentiment_hybrid.serving.problems import Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Paths that need no token: probes of a supervisor, and the page, which asks people for it.
OPEN = frozenset({"/", "/page.css", "/page.js", "/icon.svg", "/health", "/ready"})
#: All paths, for metrics; others are counted together.
PATHS = OPEN | {"/predict", "/models", "/metrics", "/openapi.json"}
#: Names of this machine itself, for which a service without a token answers.
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
#: Nobody waited for the answer; as nginx logs it.
CLIENT_GONE = 499
#: The bodies of all requests together, in bodies of the largest size.
_BODIES = 64

#: Characters of a refused host in an error.
_LONGEST_HOST = 100
_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _POLICY.encode()),
    (b"cache-control", b"no-store"),
]


def host_name(host: str) -> str:
    """The name or address in a Host header, without the port: ``::1`` of ``[::1]:8000``."""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host.lower().removesuffix(".")


class ClientGone(Exception):  # noqa: N818 - nothing is wrong
    """The client has closed the connection."""


class Gate:
    """ASGI middleware around the application.

    Args:
        application: sees requests with a whole body of an allowed size only.
        metrics: counts requests.
        token: what requests must carry as ``Authorization: Bearer``; None is nothing, and then the host is checked, so
            that no website can have its own name resolved to this machine (DNS rebinding) and ask through a browser.
        hosts: names in the header Host that are accepted beside those in ``LOCAL``.
        max_body: bytes.
        timeout: seconds in which a body must arrive.
    """

    def __init__(
        self,
        application: Application,
        metrics: Metrics,
        *,
        token: str | None,
        hosts: Collection[str] = (),
        max_body: int,
        timeout: float,
    ) -> None:
        self._application, self._metrics = application, metrics
        self._hosts = LOCAL | {host_name(host) for host in hosts}
        self._token = None if token is None else token.encode()
        self._max_body, self._timeout = max_body, timeout
        self._held = 0  # bytes of the bodies of all requests in progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = time.perf_counter()
        request = _Request(scope, send)
        try:
            self._authorize(scope["path"], request.headers)
            body = await self._body(request, receive)
            await self._application(scope, _replayed(body, receive), request.send)
        except Problem as problem:
            await request.refuse(problem)
        except ClientGone:
            request.status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - the last place that can report one
            log.event("failed", level=logging.ERROR, error=error, id=request.id)
            await request.refuse(Problem(500, "internal error", hint="The log of the service has the details."))
        finally:
            self._held -= request.held
        seconds = time.perf_counter() - started
        path = scope["path"] if scope["path"] in PATHS else "other"
        self._metrics.request(path, request.status, seconds)
        log.event(
            "request", id=request.id, method=scope["method"], path=path, status=request.status,
            ms=round(1000 * seconds, 2), **scope["facts"],
        )  # fmt: skip

    def _authorize(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._token is None:
            self._check_host(headers)
            return
        if path in OPEN:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise Problem(401, "a token is required", hint="Send the header Authorization: Bearer TOKEN.")

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"host")
        if given is None:  # no browser leaves it out
            return
        name = host_name(given.decode("latin-1"))
        if name not in self._hosts:
            shown = name if len(name) <= _LONGEST_HOST else f"{name[:_LONGEST_HOST]}..."
            raise Problem(
                421,
                f"the service does not answer for the host {shown!r}",
                hint="Use localhost or 127.0.0.1, or start the service with --set serve.allowed_hosts=NAME.",
            )

    async def _body(self, request: _Request, receive: Receive) -> bytes:
        """The whole body. Raises Problem 413, 408, or 429 if bodies of others take too much memory."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return b""
        length = request.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    request.held += len(parts[-1])
                    self._held += len(parts[-1])
                    if request.held > self._max_body:
                        raise self._too_large()
                    if self._held > _BODIES * self._max_body:
                        raise Problem(429, "too many large requests at once", retry_after=1)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Problem(408, f"the body did not arrive within {self._timeout:g} s") from None

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._max_body:,} bytes", hint="Send fewer texts per request.")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body once, and then what the server says."""
    parts = [body]

    async def replay() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return replay


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class _Request:
    """One request: its id, and the status of its response once there is one."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        self.method: str = scope["method"]
        self.status = self.held = 0
        self._scope, self._send = scope, send
        scope["request_id"], scope["facts"] = self.id, {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *_HEADERS, (b"x-request-id", self.id.encode())]
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer has begun."""
        if not self.status:
            await problem.response(self.id)(self._scope, _nothing, self.send)
