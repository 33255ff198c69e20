"""Log lines as JSON, written by a thread of their own: a slow reader of the log never holds up a request."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
import traceback
from typing import Any, TextIO

#: Lines that wait to be written; further ones are dropped.
_WAITING = 10_000

_log = logging.getLogger("senthy.serve")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, event, and the facts of the event. Texts of requests are never logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"event": record.getMessage(), **getattr(record, "facts", {})}
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, ensure_ascii=True, default=str)


class _Bounded(logging.handlers.QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # formatted by the thread that writes; nothing leaves the process

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


class _Stream(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        return  # the reader has gone; a server does not stop for its log


def start(level: int = logging.INFO, stream: TextIO | None = None) -> logging.handlers.QueueListener:
    """Write what this service and uvicorn log to a stream, by default stdout; ``stop()`` of the result flushes it."""
    lines: queue.Queue[Any] = queue.Queue(_WAITING)
    target = _Stream(stream or sys.stdout)
    target.setFormatter(JsonFormatter())
    listener = logging.handlers.QueueListener(lines, target)
    for name, least in ((_log.name, level), ("uvicorn.error", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_Bounded(lines)], False
        logger.setLevel(least)
    listener.start()
    return listener


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Log an event with its facts, and the traceback of an error."""
    if _log.isEnabledFor(level):
        _log.log(level, name, exc_info=error, extra={"facts": facts})
