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
        self._known: tuple[bytes, bytes] = (b"", b"")
        self._pair: tuple[bytes, bytes] = (b"", b"")

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
            if self._pair[1] and time.monotonic() - self._looked_at_s < LOOK_S:
                return _Shown(self._pair, self._known[1])
            try:
                self._look()
            except (CoordinatorError, OSError) as error:
                if not self._pair[1]:
                    raise
                _log.error("the certificate authority cannot be read: %s", error)
            self._looked_at_s = time.monotonic()
            return _Shown(self._pair, self._known[1])

    def _look(self) -> None:
        found = self._authorities()
        if (found.serving.pem, found.roots) != self._known:
            self._pair = found.serving.serve(self._hosts, now_utc())  # peers judge it by their own clocks
            self._known = (found.serving.pem, found.roots)


def _configuration(shown: _Shown) -> Any:
    return grpc.ssl_server_certificate_configuration([shown.pair], root_certificates=shown.roots)
