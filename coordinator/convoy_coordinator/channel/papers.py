"""What the listeners show in a handshake, and whose certificates they take: asked anew, so that authorities change while they serve.

gRPC asks at each handshake, from threads of its own. It is told a configuration only where that has changed, and nothing else
(None): grpcio 1.85.1 puts a new configuration in the place of the old one without waiting for handshakes that use it, and a
process that is given one at every handshake dies under a few hundred at a time (``tests/integration/channel/test_handshakes.py``).
LIMIT: the one moment of a change keeps that risk; supervisors start the process again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from convoy_coordinator.enrolment.authorities import Authorities
from convoy_coordinator.errors import CoordinatorError
from convoy_coordinator.journal import now_utc

LOOK_S: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Key and certificate chain in PEM, and the authorities that clients are verified with."""

    pair: tuple[bytes, bytes]
    roots: bytes


class Papers:
    """Certificate and trusted authorities for gRPC.

    Args:
        authorities: returns the certificate authorities.
        hosts: as which the listeners answer.
    """

    def __init__(self, authorities: Callable[[], Authorities], hosts: Sequence[str]) -> None:
        self._authorities = authorities
        self._hosts = list(hosts)
        self._guard = threading.Lock()
        self._looked_at_s = float("-inf")
        self._issuer = b""
        self._shown: _Shown | None = None

    def credentials(self, *, of_partners: bool) -> Any:
        """Return the credentials of one listener; they follow what changes.

        Args:
            of_partners: whether a client must show a certificate.

        Raises:
            SetupError: the authority cannot be used now; later the last good one goes on.
        """
        given, guard = self._now(), threading.Lock()

        def changed() -> Any:
            nonlocal given
            now = self._now()
            with guard:
                if now == given:
                    return None
                given = now
                return _configuration(now)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given), changed, require_client_authentication=of_partners
        )

    def _now(self) -> _Shown:
        """Return what counts now; called at each handshake, looks at most once a second."""
        with self._guard:
            if self._shown is not None and time.monotonic() - self._looked_at_s < LOOK_S:
                return self._shown
            try:
                self._shown = self._look(self._shown)
            except (CoordinatorError, OSError) as error:
                if self._shown is None:
                    raise
                _log.error("the certificate authority cannot be read: %s", error)
            self._looked_at_s = time.monotonic()
            return self._shown

    def _look(self, shown: _Shown | None) -> _Shown:
        found = self._authorities()
        if shown is None or (found.serving.pem, found.roots) != (self._issuer, shown.roots):
            pair = found.serving.serve(self._hosts, now_utc())  # peers judge it by their own clocks
            self._issuer, shown = found.serving.pem, _Shown(pair, found.roots)
        return shown


def _configuration(shown: _Shown) -> Any:
    return grpc.ssl_server_certificate_configuration([shown.pair], root_certificates=shown.roots)
