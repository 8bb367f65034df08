"""What the SuperLink saw, as JSON lines: who asked for what, which messages passed.

Guarantees: a line that announces a change (a message stored, a run started, a node registered) is
written before the change; if it cannot be written the request fails. Message ids are Flower's
content hashes, so this log, the coordinator's and each node's join by equality. Empty polls,
heartbeats and the transfer of single objects leave no line. Never holds contents, keys or tokens.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.common.event_log_plugin import EventLogWriterPlugin
from flwr.supercore.event_log.typing import Actor, Event, LogEntry

_QUIET = (
    "/pull-messages",
    "/pull-object",
    "/push-object",
    "/send-node-heartbeat",
    "/confirm-message-received",
    "/list-nodes",
    "/list-runs",
)
"""Reads and transfers: written down only where they hand out messages or fail."""


@dataclass
class Line(LogEntry):  # type: ignore[misc]  # flwr is not followed by mypy
    """Flower's log entry with the messages that passed."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    keep: bool = True


class JsonLines(EventLogWriterPlugin):  # type: ignore[misc]  # flwr is not followed by mypy
    """Flower's event log hook over one file of JSON lines.

    Args:
        path: the file, only ever appended to.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._writing = threading.Lock()

    def compose_log_before_event(self, request: Any, context: Any, account_info: Any, method_name: str) -> Line:
        """Describe a request before it is carried out."""
        line = _line(request, context, account_info, method_name, "asked", request)
        line.keep = not method_name.endswith(_QUIET)
        return line

    def compose_log_after_event(
        self, request: Any, context: Any, account_info: Any, method_name: str, response: Any
    ) -> Line:
        """Describe what became of a request; kept if messages were handed out or it failed."""
        failed = isinstance(response, BaseException)
        status = f"failed:{type(response).__name__}" if failed else "done"
        line = _line(request, context, account_info, method_name, status, response)
        line.keep = failed or bool(line.messages)
        return line

    def write_log(self, log_entry: Line) -> None:
        """Append one line; what is raised here fails the request."""
        if not log_entry.keep:
            return
        text = json.dumps(
            {
                "at": log_entry.timestamp,
                "action": log_entry.event.action,
                "status": log_entry.status,
                "node": log_entry.actor.actor_id,
                "ip": log_entry.actor.ip_address,
                "run": log_entry.event.run_id,
                "app": log_entry.event.fab_hash,
                "messages": log_entry.messages,
            },
            ensure_ascii=False,
        )
        with self._writing:
            self._file.write(text + "\n")
            self._file.flush()


def _line(request: Any, context: Any, account_info: Any, method_name: str, status: str, carrier: Any) -> Line:
    node = getattr(getattr(request, "node", None), "node_id", None)
    node = node or getattr(request, "node_id", None)
    client = getattr(context, "client", None)
    return Line(
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
        actor=Actor(
            actor_id=str(node) if node else None,
            description=getattr(account_info, "account_name", None),
            ip_address=client.host if client else "",
        ),
        event=Event(
            action=method_name.removeprefix("/v1/"),
            run_id=getattr(request, "run_id", None) or None,
            fab_hash=getattr(request, "hash_str", None) or None,
        ),
        status=status,
        messages=[_message(message) for message in getattr(carrier, "messages_list", ())],
    )


def _message(message: Any) -> dict[str, Any]:
    about = message.metadata
    return {
        "id": about.message_id,
        "type": about.message_type,
        "from": str(about.src_node_id),
        "to": str(about.dst_node_id),
        "group": about.group_id,
        "run": about.run_id,
        "error": message.HasField("error"),
    }
