"""Structured logs: one JSON object a line, and no word of an exception that is not Plattr's own."""

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
    """Write a record as one JSON object a line: the constant message, and the fields given as `extra`.

    Of an exception it writes where it happened. Its words only when they are ours: drivers quote statements,
    and a statement may hold a password.
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
        """Return the fields as they are written."""
        # The time first: that is how people read a log.
        return {"time": log_data.pop("time"), **log_data, "level": str(log_data["level"]).lower()}

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add what an exception may say in place of the library's full text of it."""
        # The library writes an exception's words, whoever's they are.
        message_dict.pop("exc_info", None)
        super().add_fields(log_data, record, message_dict)
        if record.exc_info and record.exc_info[1] is not None:
            log_data |= _describe(record.exc_info[1], record.exc_info[2])


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every logger's records to one stream, the standard error unless another is given."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # At DEBUG they write whole requests, credentials included; at INFO a line for every call.
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _describe(error: BaseException, trace: TracebackType | None) -> dict[str, Any]:
    described: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, PlattrError | FailureError):
        described["cause"] = str(error)
    # 12: the innermost frames say where; the outermost are the event loop's.
    described["trace"] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-12:]
    ]
    return described
