"""What a partner lets in, decided outside everything that the server sends.

Mods and bundles come from the server and are no boundary; this check stands between the connection
and Flower's own loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROTOCOL_ACTIONS: Final = (
    "hello",
    "witness",
    "authorise",
    "align",
    "matrix",
    "deal",
    "open",
    "share",
    "close",
    "report",
    "reveal",
    "disclose",
    "judge",
    "candidate",
    "finish",
    "abort",
)
"""The actions of ``convoy/1``; each is a Flower message of type ``query.<action>``."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The message types and the app bundles that a node accepts.

    ``app_hashes``: SHA-256 in hex, from the contract that the partner signed. An empty set accepts
    nothing.
    """

    app_hashes: frozenset[str]
    message_types: frozenset[str] = frozenset(f"query.{action}" for action in PROTOCOL_ACTIONS)

    def refusal(self, message_type: str, app_hash: str) -> str | None:
        """Return why a message is refused, or None; the answer is fit for the wire."""
        if message_type not in self.message_types:
            return "policy: this node does not take messages of this type"
        if app_hash not in self.app_hashes:
            return "policy: this node has not approved this app bundle"
        return None
