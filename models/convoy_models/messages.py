"""What parties say to each other: JSON, blobs and ring arrays, and how blobs are addressed.

A payload travels as plain records ``{"c": {"json": text, <blob name>: bytes}, "a": {name: uint64
array}}``; the adapters of node and coordinator put these into Flower's RecordDict and take them
out. Nothing here knows Flower.

Blobs are sealed for one party. A sender names one ``to|<party>|<tag>``; the coordinator relays
it, unread, as ``from|<sender>|<tag>``. What may never change: these names, the member names
``json``, ``c`` and ``a``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from convoy_models.errors import MessageMalformed
from convoy_models.fixedpoint import Words

MAX_JSON_BYTES: Final = 16_000_000
PROTOCOL_VERSION: Final = "convoy/1"


@dataclass(frozen=True, slots=True)
class Payload:
    """The content of one message.

    Attributes:
        data: JSON values.
        blobs: bytes by name, as a rule sealed (``to|...`` or ``from|...``).
        arrays: ring elements by query id, one-dimensional uint64.
    """

    data: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    arrays: dict[str, Words] = field(default_factory=dict)

    @property
    def refused(self) -> dict[str, Any] | None:
        """The refusal (code, party, cause, fix, reasons) if this payload is one."""
        value = self.data.get("refused")
        return value if isinstance(value, dict) else None

    @property
    def size_bytes(self) -> int:
        """Bytes of content: JSON, blobs and arrays, without the transport's own framing."""
        text = len(_dump(self.data).encode())
        return text + sum(map(len, self.blobs.values())) + sum(a.nbytes for a in self.arrays.values())


class BlobName(NamedTuple):
    """The address of a blob."""

    direction: Literal["to", "from"]
    party: str
    tag: str


def to_party(party: str, tag: str) -> str:
    """Return the name of a blob that is sent to a party."""
    return _name("to", party, tag)


def from_party(party: str, tag: str) -> str:
    """Return the name of a blob that was sent by a party."""
    return _name("from", party, tag)


def parse_name(name: str) -> BlobName:
    """Read a blob's name.

    Raises:
        MessageMalformed: not of the form ``to|party|tag`` or ``from|party|tag``.
    """
    match name.split("|"):
        case ["to", party, tag] if party and tag:
            return BlobName("to", party, tag)
        case ["from", party, tag] if party and tag:
            return BlobName("from", party, tag)
    raise MessageMalformed("a blob's name is not of the form to|party|tag.")


def relay(replies: Mapping[str, Payload]) -> dict[str, dict[str, bytes]]:
    """Return, by addressee, the blobs of all replies under their ``from`` names.

    Args:
        replies: by the sender that the transport authenticated, never by what a reply claims.
    """
    moved: dict[str, dict[str, bytes]] = {}
    for sender, reply in replies.items():
        for name, blob in reply.blobs.items():
            address = parse_name(name)
            if address.direction != "to":
                raise MessageMalformed("a reply holds a blob that is not addressed to a party.", party=sender)
            moved.setdefault(address.party, {})[from_party(sender, address.tag)] = blob
    return moved


def to_record(payload: Payload) -> dict[str, dict[str, Any]]:
    """Return the plain records of a payload."""
    for name in payload.blobs:
        parse_name(name)
    return {"c": {"json": _dump(payload.data), **payload.blobs}, "a": dict(payload.arrays)}


def from_record(record: Mapping[str, Mapping[str, Any]]) -> Payload:
    """Read a payload from plain records, trusting nothing in them.

    Raises:
        MessageMalformed: a missing or extra part, a value of a wrong type, or JSON that is not
            strict.
    """
    if not set(record) <= {"c", "a"} or "c" not in record:
        raise MessageMalformed("a message has other records than c and a.")
    blobs = dict(record["c"])
    data = _load(blobs.pop("json", None))
    for name, blob in blobs.items():
        parse_name(name)
        if not isinstance(blob, bytes):
            raise MessageMalformed("a blob is not bytes.")
    arrays = dict(record.get("a", {}))
    for array in arrays.values():
        if not (isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype == np.uint64):
            raise MessageMalformed("an array is not one-dimensional uint64.")
    return Payload(data, blobs, arrays)


def _name(direction: str, party: str, tag: str) -> str:
    if "|" in party or "|" in tag or not party or not tag:
        raise MessageMalformed("a party id or tag is empty or holds the character |.")
    return f"{direction}|{party}|{tag}"


def _dump(data: Mapping[str, Any]) -> str:
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise MessageMalformed("a message holds a value that JSON cannot express.") from error


def _load(text: object) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > MAX_JSON_BYTES:
        raise MessageMalformed("a message has no JSON text, or too much of it.")
    try:
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MessageMalformed("a message's JSON cannot be read.") from error
    if not isinstance(value, dict):
        raise MessageMalformed("a message's JSON is not an object.")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member repeats")
    return members


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
