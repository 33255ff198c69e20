"""The application: /predict, /models, /health, /ready, /metrics, and the page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from sentiment_hybrid.config.schema import Serve
from sentiment_hybrid.serving.batching import Batcher, Job
from sentiment_hybrid.serving.gate import CLIENT_GONE, Application, ClientGone, Gate
from sentiment_hybrid.serving.metrics import CONTENT_TYPE, Metrics
from sentiment_hybrid.serving.model import ServedModel
from sentiment_hybrid.serving.problems import Problem
from sentiment_hybrid.serving.schema import Failure, Health, Models, PredictRequest, PredictResponse

#: Seconds between two checks that the client is still connected.
_LOOK = 0.5
#: What a request may hold.
_LIMITS = ("max_texts", "max_text_bytes", "max_body_bytes", "max_explained_texts", "max_explained_bytes")
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_REFUSALS = {
    400: "The body is not JSON.",
    401: "The token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "Too many or too long texts.",
    415: "The body is not declared as JSON.",
    421: "The service does not answer for this host.",
    422: "The request does not fit the schema or the model.",
    429: "Too many texts are waiting; see Retry-After.",
    503: "The service is stopping, or did not answer in time.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses other than the expected one, for the OpenAPI document."""
    return {status: {"model": Failure, "description": _REFUSALS[status]} for status in statuses}


_SEE = "GET /openapi.json describes requests."
_SHOULD = "should be "
#: What is wrong with a value, by pydantic's type of the error.
_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of a request",
    "too_short": "should be a list of {min_length} or more",
    "string_type": "should be a string",
    "list_type": "should be a list",
    "bool_type": "should be true or false",
    "float_type": "should be a number",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "less_than_equal": "should be {le:g} or less",
    "greater_than_equal": "should be {ge:g} or more",
}


class Service:
    """The parts of a running service: a model in a batcher, metrics, and the ASGI application on them.

    Args:
        model: what answers.
        settings: limits.
        token: what requests must carry; None is nothing.
    """

    def __init__(self, model: ServedModel, settings: Serve, *, token: str | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            model,
            wait=settings.batch_wait_ms / 1000.0,
            limit=settings.max_waiting,
            computed=self.metrics.batch,
        )
        self.metrics.model(model.id, model.predictor.info.head)
        self.application: Application = Gate(
            _routes(self, token is not None),
            self.metrics,
            token=token,
            hosts=(settings.host, *settings.allowed_hosts),
            max_body=settings.max_body_bytes,
            timeout=settings.timeout,
        )

    def replace(self, model: ServedModel) -> None:
        """Answer further requests with another model; those that have begun keep theirs."""
        self.batcher.model = model
        self.metrics.model(model.id, model.predictor.info.head)

    # --- /predict

    async def predict(self, asked: PredictRequest, request: Request) -> Response:
        """The predictions for one text or several, in their order."""  # also in the OpenAPI document
        texts = [asked.texts] if isinstance(asked.texts, str) else asked.texts
        request.scope["facts"]["texts"] = len(texts)
        self._check_size(texts, explain=asked.explain)
        job = self.batcher.submit(texts, asked)
        try:
            return Response(await self._answer(job, request), media_type="application/json")
        finally:
            job.answer.cancel()

    def _check_size(self, texts: Sequence[str | None], *, explain: bool) -> None:
        settings = self.settings
        most = min(settings.max_texts, settings.max_explained_texts) if explain else settings.max_texts
        longest = min(settings.max_text_bytes, settings.max_explained_bytes) if explain else settings.max_text_bytes
        what = " with explanations" if explain else ""
        if len(texts) > most:
            raise Problem(
                413,
                f"{len(texts):,} texts in one request{what}; at most {most:,} are allowed",
                hint="Send several requests.",
            )
        for place, text in enumerate(texts, 1):
            if text is not None and (size := _bytes(text, longest)) > longest:
                raise Problem(
                    413, f"text {place:,} has {size:,} bytes; at most {longest:,} are allowed{what}", hint="Shorten it."
                )

    async def _answer(self, job: Job, request: Request) -> bytes:
        until = time.monotonic() + self.settings.timeout
        while (left := until - time.monotonic()) > 0:
            done, _ = await asyncio.wait((job.answer,), timeout=min(left, _LOOK))
            if done:
                return job.answer.result()
            if await request.is_disconnected():
                raise ClientGone
        raise Problem(
            503, f"not answered within {self.settings.timeout:g} s", hint="Send fewer texts, or try again later.",
            retry_after=self.batcher.retry_after(),
        )  # fmt: skip


def _bytes(text: str, longest: int) -> int:
    """The size of a text; characters alone decide where they can."""
    return len(text) if text.isascii() or len(text) > longest else len(text.encode("utf-8", "surrogatepass"))


def _routes(service: Service, needs_token: bool) -> FastAPI:
    app = FastAPI(
        title="senthy",
        version=version("sentiment-hybrid"),
        summary="Sentiment of short texts",
        description=_description(service.settings),
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    # The gate checks the token; this declares it in the OpenAPI document.
    secured = [Security(HTTPBearer(scheme_name="token", auto_error=False))] if needs_token else []
    app.add_api_route(
        "/predict",
        service.predict,
        methods=["POST"],
        summary="Label one text or several",
        response_model=None,
        dependencies=secured,
        responses={200: {"model": PredictResponse}, **responses(400, 401, 408, 413, 415, 421, 422, 429, 503)},
    )
    _add_state(app, service, secured)
    folder = files("sentiment_hybrid.serving") / "page"
    for path, (name, kind) in _PAGE.items():
        page = Response((folder / name).read_bytes(), media_type=kind)
        app.router.routes.append(Route(path, page, methods=["GET"]))
    _add_errors(app)
    return app


def _description(settings: Serve) -> str:
    limits = {name: f"{getattr(settings, name):,}" for name in _LIMITS}
    return (
        f"Up to {limits['max_texts']} texts of {limits['max_text_bytes']} bytes per request, "
        f"{limits['max_explained_texts']} of {limits['max_explained_bytes']} bytes with explanations, in a body of "
        f"up to {limits['max_body_bytes']} bytes."
    )


def _add_state(app: FastAPI, service: Service, secured: Sequence[Any]) -> None:
    @app.get("/models", summary="The model in use", dependencies=secured, responses=responses(401, 421))
    async def models() -> Models:
        limits = {name: getattr(service.settings, name) for name in _LIMITS}
        return Models.model_validate({"models": [service.batcher.model.describe()], "limits": limits})

    @app.get("/health", summary="Whether the process works", responses=responses(421, 503))
    async def health() -> Health:
        if service.batcher.broken:
            raise Problem(503, "the thread of the model has ended", hint="Restart the service.")
        return Health(status="ok")

    @app.get("/ready", summary="Whether requests are accepted", responses=responses(421, 503))
    async def ready() -> Health:
        if not service.batcher.alive:
            raise Problem(503, "the service is stopping", retry_after=5)
        return Health(status="ready")

    @app.get(
        "/metrics", summary="Metrics for Prometheus", response_class=Response, dependencies=secured,
        responses=responses(401, 421),
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    """Give every error the same form."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.response(request.scope["request_id"])

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await problem(request, _invalid(error, request))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:
            return await problem(request, _not_json())
        response = await problem(request, Problem(error.status_code, str(error.detail).lower(), hint=_SEE))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:  # raised once more, for the gate to log
        hint = "The log of the service has the details."
        return await problem(request, Problem(500, "internal error", hint=hint))


def _not_json() -> Problem:
    return Problem(400, "the body is not JSON in UTF-8", hint='Send {"texts": ["not bad at all :)"]}.')


def _invalid(error: RequestValidationError, request: Request) -> Problem:
    kind = request.headers.get("content-type", "")
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return _not_json()
    if "json" not in kind.lower():
        return Problem(415, f"the content type is {kind or 'missing'!r}", hint="Send Content-Type: application/json.")
    # If a value fits no branch of a union, the branch with the deepest error was meant.
    deepest = max(found, key=lambda one: len(one["loc"]))
    alike = [one for one in found if _place(one) == _place(deepest)]
    alike = [one for one in alike if not one["type"].endswith("_type")] or alike
    deepest = alike[0]
    reasons = [_reason(one) for one in alike]
    if reasons[0].startswith(_SHOULD):
        reasons = [_SHOULD + " or ".join(dict.fromkeys(one.removeprefix(_SHOULD) for one in reasons))]
    return Problem(422, f"{_place(deepest)} {reasons[0]}", hint=_SEE)


def _reason(error: Any) -> str:
    """What is wrong with a value, in the words of JSON rather than of Python: ``should be a string``."""
    if known := _REASONS.get(error["type"]):
        return known.format(**error.get("ctx", {}))
    said = error["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    return said if said.startswith("should") else f"is wrong: {said[:1].lower()}{said[1:]}"


def _place(error: Any) -> str:
    """Where in a request an error is: ``texts.0``."""
    # "str" and "list[...]" name branches of a union, which are no part of the request.
    parts = [str(part) for part in error["loc"][1:]]
    return ".".join(part for part in parts if part != "str" and "[" not in part) or "the body"
