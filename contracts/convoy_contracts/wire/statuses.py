"""Problems on the channel: google.rpc.Status with an ErrorInfo, the same facts as RFC 9457 carries on HTTP.

    pack(code, grpc_status, message, facts) -> bytes     the trailing ``grpc-status-details-bin``
    unpack(error) -> Told | None                         what a caller reads from a grpc.RpcError

``reason`` is the problem's code; ``metadata`` holds party, cause, and title, meaning and fix, each with ``_en`` and ``_zh``. Faults,
where there are several, travel as a BadRequest, one field violation each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DETAILS: Final = "grpc-status-details-bin"
DOMAIN: Final = "convoy"
MAX_FAULTS: Final = 20


@dataclass(frozen=True, slots=True)
class Told:
    """A problem as the other side told it."""

    code: str
    facts: Mapping[str, str]
    faults: tuple[str, ...]


def pack(
    code: str, number: int, message: str, facts: Mapping[str, str], faults: Sequence[tuple[str, str]] = ()
) -> bytes:
    """Return the details of a refusal; ``number`` is the gRPC status code, ``faults`` are (pointer, cause)."""
    status = status_pb2.Status(code=number, message=message)
    info = error_details_pb2.ErrorInfo(reason=code, domain=DOMAIN, metadata=dict(facts))
    status.details.add().Pack(info)
    if faults:
        bad = error_details_pb2.BadRequest()
        for pointer, cause in faults[:MAX_FAULTS]:
            bad.field_violations.add(field=pointer, description=cause)
        status.details.add().Pack(bad)
    raw: bytes = status.SerializeToString()
    return raw


def unpack(trailing: Sequence[tuple[str, Any]]) -> Told | None:
    """Read a refusal from trailing metadata; None where the other side did not tell one."""
    raw = next((value for name, value in trailing if name == DETAILS), None)
    if not isinstance(raw, bytes):
        return None
    try:
        status = status_pb2.Status.FromString(raw)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details:
            _ = detail.Unpack(info) or detail.Unpack(bad)
    except DecodeError:
        return None
    if info.domain != DOMAIN or not info.reason:
        return None
    faults = tuple(f"{found.field}: {found.description}" for found in bad.field_violations)
    return Told(info.reason, dict(info.metadata), faults)
