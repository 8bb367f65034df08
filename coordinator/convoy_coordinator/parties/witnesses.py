"""The witnesses of the log: every party's node. Their policy, their cosignatures, and how far
each has come.

The policy that stands here is what this coordinator says; nodes and auditors pin their own copy
and compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from convoy_audit.errors import AuditError
from convoy_audit.policy import Policy, Standing, make_policy
from convoy_coordinator.errors import Problem
from convoy_coordinator.parties.service import PartyService


class Cosigned(Protocol):
    """What is needed of the log."""

    def add_cosignatures(self, note_text: str) -> object:
        """Store the cosignatures of a checkpoint of this log."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """How a checkpoint stands with the witnesses."""

    size: int
    cosigned: tuple[str, ...]
    needed: int
    is_met: bool


class Witnesses:
    """The witnesses of this federation.

    Args:
        parties: who is enrolled, with which witness keys.
        log: stores cosignatures.
        log_keys: the log's own verifier keys.
    """

    def __init__(self, parties: PartyService, log: Cosigned, log_keys: tuple[str, ...]) -> None:
        self._parties = parties
        self._log = log
        self._log_keys = log_keys

    def policy(self) -> Policy:
        """Return the policy as it follows from who is enrolled: k of n, k = 1 + floor(2n/3)."""
        keys = {party.id: party.witness_key.splitlines() for party in self._parties.all()}
        return make_policy(self._log_keys, keys)

    def add(self, note: str) -> Quorum:
        """Take a checkpoint with cosignatures; remember whose they are.

        Raises:
            Problem: LOG_REFUSED if the log has not signed this checkpoint or a witness's
                signature is wrong.
        """
        try:
            standing = self.policy().standing(note.encode())
            self._log.add_cosignatures(note)
        except AuditError as error:
            raise Problem("LOG_REFUSED", error.cause, party=error.party) from None
        for party in standing.cosigned:
            self._parties.witnessed(party, standing.checkpoint.size)
        return _quorum(standing)

    def standing(self, note: str) -> Quorum:
        """Return how a checkpoint of this log stands."""
        return _quorum(self.policy().standing(note.encode()))


def _quorum(standing: Standing) -> Quorum:
    return Quorum(
        size=standing.checkpoint.size,
        cosigned=standing.cosigned,
        needed=standing.needed,
        is_met=standing.has_quorum and standing.needed > 0,
    )
