"""What was moved between the server and each party: counted, never estimated."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message


@dataclass(slots=True)
class Traffic:
    """Messages and bytes between the server and one party; ``sent`` is towards the party."""

    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def sent(self, size_bytes: int) -> None:
        """Count one message towards the party."""
        self.messages_sent += 1
        self.bytes_sent += size_bytes

    def received(self, size_bytes: int) -> None:
        """Count one reply of the party."""
        self.messages_received += 1
        self.bytes_received += size_bytes


def content_bytes(message: Message) -> int:
    """Return the size of a message's content: keys, texts, byte strings and arrays.

    The same measure serves both runtimes. Flower's own framing (some 600 bytes a message) is left
    out.
    """
    if not message.has_content():
        return 0
    return sum(_record_bytes(record) for record in message.content.values())


def _record_bytes(record: object) -> int:
    if isinstance(record, ArrayRecord):
        return sum(len(name) + len(array.data) for name, array in record.items())
    if isinstance(record, ConfigRecord):
        return sum(len(name) + _value_bytes(value) for name, value in record.items())
    return 0


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    return 8
