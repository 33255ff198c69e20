"""What a client receives instead of an answer: a status, one sentence, and what to do about it."""

from __future__ import annotations

from starlette.responses import JSONResponse


class Problem(Exception):  # noqa: N818 - also the body of a response
    """A request that cannot be answered.

    Args:
        status: of the response.
        message: one sentence.
        hint: what to do about it.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, message: str, *, hint: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.hint, self.retry_after = status, message, hint, retry_after

    def response(self, request_id: str) -> JSONResponse:
        """As a response."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        body = {"error": self.message, "hint": self.hint, "request_id": request_id}
        return JSONResponse(body, self.status, headers)
