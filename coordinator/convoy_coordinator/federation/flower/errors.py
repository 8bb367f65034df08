"""What can go wrong between the coordinator and its SuperLink.

    FederationError              (the root of ``federation``)
    ├── LinkHomeUnusable         a file of the link's folder is missing, open, or malformed
    ├── LinkUnreachable          the SuperLink does not answer
    ├── LinkRefused              the SuperLink answered "no"
    └── ProcessEnded             a process of the supervisor ended by itself or never got ready

Each carries party, code, cause and fix; none carries a secret.
"""

from __future__ import annotations

from convoy_coordinator.federation.errors import FederationError


class LinkHomeUnusable(FederationError):
    """A file of the link's folder is missing, open to others, or malformed."""

    code = "LINK_HOME_UNUSABLE"


class LinkUnreachable(FederationError):
    """The SuperLink does not answer."""

    code = "LINK_UNREACHABLE"


class LinkRefused(FederationError):
    """The SuperLink answered "no"."""

    code = "LINK_REFUSED"


class ProcessEnded(FederationError):
    """A process ended by itself, or was not ready in time."""

    code = "PROCESS_ENDED"
