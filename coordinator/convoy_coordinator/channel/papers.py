"""What the listeners show in a handshake, and whose certificates they take: asked anew, so that authorities change while they serve."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from convoy_coordinator.enrolment.authorities import Authorities
from convoy_coordinator.errors import CoordinatorError
from convoy_coordinator.journal import now_utc

LOOK_S: Final = 1.0
_log = logging.getLogger(__name__)


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
        self._shown: Any = None

    def now(self) -> Any:
        """Return what counts now; called at each handshake, looks at most once a second.

        Raises:
            SetupError: at the first call, the authority cannot be used; later the last good one goes on.
        """
        with self._guard:
            if self._shown is not None and time.monotonic() - self._looked_at_s < LOOK_S:
                return self._shown
            try:
                self._look()
            except (CoordinatorError, OSError) as error:
                if self._shown is None:
                    raise
                _log.error("the certificate authority cannot be read: %s", error)
            self._looked_at_s = time.monotonic()
            return self._shown

    def _look(self) -> None:
        found = self._authorities()
        if (found.serving.pem, found.roots) != self._known:
            pair = found.serving.serve(self._hosts, now_utc())  # peers judge it by their own clocks
            self._shown = grpc.ssl_server_certificate_configuration([pair], root_certificates=found.roots)
            self._known = (found.serving.pem, found.roots)
