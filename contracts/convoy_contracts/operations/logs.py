"""Structured logs: one JSON object a line where a machine reads, columns where a person does.

    start_logs()                         once, at the start of a process
    with about(run=…, contract=…): …     every line inside names them, also those of libraries

``CONVOY_LOG`` is *json* or *text*; left out, it is *text* on a terminal and *json* elsewhere. Messages are written by this code
from ids, codes and counts; exception text of untrusted input is never logged as a message.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog

FORMATS: Final = ("json", "text")
_SHARED: Final[tuple[structlog.types.Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
)


def start_logs(process: str, level: int = logging.INFO) -> None:
    """Send every log line of this process to standard error, in one form.

    Args:
        process: name of this process in each line, such as ``coordinator``.
        level: least level that is written.
    """
    chosen = os.environ.get("CONVOY_LOG", "")
    is_text = chosen == "text" or (chosen not in FORMATS and sys.stderr.isatty())
    last: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if is_text else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.contextvars.bind_contextvars(process=process)


def about(**ids: Any) -> AbstractContextManager[Any]:
    """Have every line inside the block carry these ids (``run``, ``contract``, ``party``)."""
    return structlog.contextvars.bound_contextvars(**ids)
