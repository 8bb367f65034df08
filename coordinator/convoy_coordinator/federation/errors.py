"""Why a run stopped.

    FederationError
    ├── NodeRefused      a node answered "no", with its reasons
    ├── NodeLost         a node did not answer in time
    ├── NodeFailed       a node answered with an error of its runtime
    ├── QuorumMissing    a party that the contract needs is not connected, or witnesses do not make the quorum
    ├── ProtocolBroken   a reply does not fit the question
    └── CoordinatorSaid  the coordinator's own service refused (log, contract, release)

Each carries the party, a stable code, the cause and the fix; all of it is fit for the wire.
"""

from __future__ import annotations

from collections.abc import Sequence


class FederationError(Exception):
    """Root of this package's errors."""

    code = "FEDERATION"

    def __init__(
        self, cause: str, *, party: str = "coordinator", fix: str = "", code: str | None = None,
        reasons: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(f"{party}: {cause}")
        self.party = party
        self.cause = cause
        self.fix = fix
        self.code = code or type(self).code
        self.reasons = tuple(reasons)


class NodeRefused(FederationError):
    """A node answered "no"; ``code`` and ``reasons`` are the node's."""

    code = "NODE_REFUSED"


class NodeLost(FederationError):
    """A node did not answer in time."""

    code = "NODE_LOST"


class NodeFailed(FederationError):
    """A node's runtime answered with an error."""

    code = "NODE_FAILED"


class QuorumMissing(FederationError):
    """Not everybody whom the contract or the log needs takes part."""

    code = "QUORUM_MISSING"


class ProtocolBroken(FederationError):
    """A reply does not fit the question."""

    code = "PROTOCOL_BROKEN"


class CoordinatorSaid(FederationError):
    """The coordinator's own service refused."""

    code = "COORDINATOR_REFUSED"
