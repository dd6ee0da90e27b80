"""Structured logs: one JSON object a line, without the texts of exceptions that are not Plattr's own."""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from temporalio.exceptions import FailureError

from plattr.errors import PlattrError

_CHATTY = ("aiohttp", "boto3", "botocore", "httpx", "kubernetes", "psycopg", "redis", "urllib3")


class LogFormatter(JsonFormatter):
    """Writes a record as one JSON object a line: the constant message, and the fields given as `extra`.

    For an exception it writes where the exception was raised. It writes the text only if the exception is ours: drivers
    quote statements, and a statement may hold a password.
    """

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            reserved_attrs=[*RESERVED_ATTRS, "taskName"],
            timestamp="time",
            json_ensure_ascii=False,
            json_default=str,
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields in the order and form in which they are written."""
        # The time comes first, because people read a log by time.
        return {"time": log_data.pop("time"), **log_data, "level": str(log_data["level"]).lower()}

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add the permitted fields of an exception in place of the library's full text."""
        # The library writes the text of every exception, even of one that is not ours.
        message_dict.pop("exc_info", None)
        super().add_fields(log_data, record, message_dict)
        if record.exc_info and record.exc_info[1] is not None:
            log_data |= _describe(record.exc_info[1], record.exc_info[2])


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every logger's records to one stream; the default is the standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # At DEBUG these loggers write whole requests, credentials included. At INFO they write a line for every call.
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _describe(error: BaseException, trace: TracebackType | None) -> dict[str, Any]:
    described: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, PlattrError | FailureError):
        described["cause"] = str(error)
    # 12: the innermost frames show where the exception was raised. The outermost frames belong to the event loop.
    described["trace"] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-12:]
    ]
    return described
