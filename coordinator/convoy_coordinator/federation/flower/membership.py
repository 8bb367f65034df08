"""Who may take part, asked anew at every step that Flower takes.

Flower calls a federation manager when a run starts, when nodes are listed, when a message is
stored, delivered and fetched, and when a node asks for a run or its bundle. This one answers from a
live ``Membership``, by party id, so that a party that is withdrawn drops out of the next delivery.
Fails closed: no answer means nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.proto.federation_config_pb2 import SimulationConfig
from flwr.superlink.federation import NoOpFederationManager

from convoy_coordinator.federation.flower.errors import LinkHomeUnusable
from convoy_coordinator.federation.flower.link_home import read_json

_LOG = logging.getLogger(__name__)


class Membership(Protocol):
    """Who belongs to a federation now."""

    def parties(self, federation: str) -> AbstractSet[str] | None:
        """Return the party ids, or None where there is no such federation."""


class FileMembership:
    """Membership from ``{federation: [party id, ...]}`` in a file that may change at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._federations: dict[str, frozenset[str]] = {}

    def parties(self, federation: str) -> AbstractSet[str] | None:
        """Return the party ids that the file names now."""
        try:
            about = self._path.stat()
            seen = (about.st_mtime_ns, about.st_size, about.st_ino)
            if seen != self._seen:
                self._federations = _federations(read_json(self._path))
                self._seen = seen
        except (OSError, LinkHomeUnusable) as error:
            _LOG.error("membership is unreadable (%s): nobody takes part", type(error).__name__)
            self._federations, self._seen = {}, None
        return self._federations.get(federation)


def _federations(value: object) -> dict[str, frozenset[str]]:
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(parties, list) and all(map(_is_text, parties))
        for name, parties in value.items()
    ):
        raise LinkHomeUnusable(
            "the membership is not an object of lists of party ids",
            fix='Write it as {"@none/default": ["did:web:…"]}.',
        )
    return {name: frozenset(parties) for name, parties in value.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


class PartyFederations(NoOpFederationManager):  # type: ignore[misc]  # flwr is not followed
    """Flower's federation manager over a ``Membership``.

    Flower numbers nodes, Convoy names parties: a node's name is the one given when its key was
    registered, and it never changes afterwards, so it is looked up once.
    """

    def __init__(self, membership: Membership) -> None:
        super().__init__(simulation=False)
        self._membership = membership
        self._names: dict[int, str] = {}

    def exists(self, federation_id: str) -> bool:
        """Say whether there is such a federation now."""
        return self._membership.parties(federation_id) is not None

    def has_member(self, flwr_aid: str, federation_id: str) -> bool:
        """Say whether an account may use a federation: the coordinator's own, and no other."""
        return bool(flwr_aid == NOOP_FLWR_AID)

    def filter_nodes(self, node_ids: set[int], federation_id: str) -> set[int]:
        """Return the nodes whose party belongs to the federation now, and the server's own."""
        parties = self._membership.parties(federation_id) or frozenset()
        return {node for node in node_ids if node == SUPERLINK_NODE_ID or self._name(node) in parties}

    def has_node(self, node_id: int, federation_id: str) -> bool:
        """Say whether a node's party belongs to the federation now."""
        return node_id in self.filter_nodes({node_id}, federation_id)

    def get_simulation_config(self, federation_id: str) -> SimulationConfig | None:
        """Return None: nothing is simulated here."""
        return None

    def _name(self, node_id: int) -> str | None:
        if node_id not in self._names:
            found = [node for node in self.linkstate.get_node_info(node_ids=[node_id]) if node.name]
            if not found:
                return None
            self._names[node_id] = str(found[0].name)
        return self._names[node_id]
