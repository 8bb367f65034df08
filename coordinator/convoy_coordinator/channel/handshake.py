"""What became of a TLS handshake, told from outside: record headers are read, nothing is decrypted.

    Handshake().sent(client bytes) / .answered(server bytes) / .is_done      .outcome(who ended it) -> code, None if it succeeded

gRPC does not say which handshakes it refuses; this tells, for a relay in front of it (``door``). TLS 1.3 (RFC 8446 §5) shows the
type and length of each record, and of the encrypted ones their length tells an alert (2 bytes, 1 of type, 16 of tag) from
everything else that either side sends then. The handshake is done with the first thing but an alert that the server sends
encrypted after the client has. A server that ends the connection instead has refused the client's certificate.
LIMIT: it cannot tell a client that goes away after it has seen the server's certificate from a line that breaks then; nor an
expired certificate from one of another CA, both are ``HANDSHAKE_CERTIFICATE_REFUSED``; that there was none at all is told from the
size of the client's flight.
"""

from __future__ import annotations

from typing import Final, Literal

NOT_TLS: Final = "HANDSHAKE_NOT_TLS"
UNFINISHED: Final = "HANDSHAKE_UNFINISHED"
NO_CERTIFICATE: Final = "HANDSHAKE_NO_CERTIFICATE"
CERTIFICATE_REFUSED: Final = "HANDSHAKE_CERTIFICATE_REFUSED"
COORDINATOR_REFUSED: Final = "HANDSHAKE_COORDINATOR_REFUSED"
CODES: Final = (NOT_TLS, UNFINISHED, NO_CERTIFICATE, CERTIFICATE_REFUSED, COORDINATOR_REFUSED)

_ALERT, _HANDSHAKE, _ENCRYPTED = 21, 22, 23
_TYPES: Final = frozenset({20, _ALERT, _HANDSHAKE, _ENCRYPTED})
_HEADER: Final = 5
_MAX_RECORD: Final = 16_640
_ALERT_BYTES: Final = 19
_LEAST_CERTIFICATE: Final = 200
"""Bytes of a client's flight: without a certificate 25 + 53, in one record or two; any certificate needs more than this."""


class _Records:
    """Cuts one direction into records; ``is_tls`` turns False at the first header that is none."""

    def __init__(self) -> None:
        self.is_tls = True
        self._head = b""
        self._left = 0

    def take(self, data: bytes) -> list[tuple[int, int]]:
        """Return (type, length) of each record whose header ends in ``data``."""
        found: list[tuple[int, int]] = []
        at = 0
        while self.is_tls and at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            step = _HEADER - len(self._head)
            self._head += data[at : at + step]
            at += step
            if self._head[0] not in _TYPES or (len(self._head) > 1 and self._head[1] != 3):
                self.is_tls = False
            elif len(self._head) == _HEADER:
                kind, size = self._head[0], int.from_bytes(self._head[3:5])
                self._head, self._left = b"", size
                self.is_tls = 0 < size <= _MAX_RECORD
                found.append((kind, size))
        return found


class Handshake:
    """One handshake; forget it once ``is_done``."""

    def __init__(self) -> None:
        self.is_done = False
        self._client, self._server = _Records(), _Records()
        self._flight: list[int] = []  # lengths of the client's encrypted records
        self._has_hello = self._is_answered = False
        self._is_alerted_by: Literal["", "client", "server"] = ""

    def sent(self, data: bytes) -> None:
        """Take what the client sent."""
        for kind, size in self._client.take(data):
            self._has_hello = self._has_hello or kind == _HANDSHAKE
            if kind == _ENCRYPTED:
                self._flight.append(size)
            if kind == _ALERT or (kind == _ENCRYPTED and self._flight == [_ALERT_BYTES]):
                self._is_alerted_by = self._is_alerted_by or "client"

    def answered(self, data: bytes) -> None:
        """Take what the server sent."""
        for kind, size in self._server.take(data):
            self._is_answered = self._is_answered or kind == _HANDSHAKE
            if kind == _ALERT or (kind == _ENCRYPTED and self._flight and size == _ALERT_BYTES):
                self._is_alerted_by = self._is_alerted_by or "server"
            elif kind == _ENCRYPTED and self._flight:
                self.is_done = self._is_alerted_by == ""

    def outcome(self, *, is_ended_by_server: bool) -> str | None:
        """Return why the handshake failed, one of ``CODES``; None where it succeeded."""
        if self.is_done:
            return None
        if not self._client.is_tls:
            return NOT_TLS
        if self._is_alerted_by == "client":
            return COORDINATOR_REFUSED
        if self._flight and (is_ended_by_server or self._is_alerted_by == "server"):
            return NO_CERTIFICATE if sum(self._flight) < _LEAST_CERTIFICATE else CERTIFICATE_REFUSED
        if self._has_hello and self._is_alerted_by == "server":
            return NOT_TLS  # no version or cipher in common
        if self._is_answered and not self._flight and not is_ended_by_server:
            return COORDINATOR_REFUSED  # gRPC's clients go without an alert once they have seen the certificate
        return UNFINISHED
