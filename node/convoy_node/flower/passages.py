"""The node's own record of what passed between it and the SuperLink, as JSON lines.

Guarantees: a line is on file before the message reaches the application, or before the answer
leaves. The ids are Flower's content hashes, the same as in the coordinator's logs, so that both
join by equality. Never holds contents.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

Event: TypeAlias = Literal["received", "refused", "answered"]


class PassageLog:
    """Appends one line for each message.

    Args:
        path: the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: Event, metadata: Any, **more: Any) -> None:
        """Append a line about a message; what is raised here keeps the message from passing."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "id": metadata.message_id,
            "reply_to": metadata.reply_to_message_id,
            "type": metadata.message_type,
            "run": metadata.run_id,
            "group": metadata.group_id,
            **more,
        }
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
