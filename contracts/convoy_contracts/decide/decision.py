"""``decide``: parse, run every gate, order the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from convoy_contracts.canonical import digest
from convoy_contracts.decide import world as worlds
from convoy_contracts.decide.gates import Case, reasons
from convoy_contracts.decide.reasons import REASONS
from convoy_contracts.document import Contract
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.instants import instant

VOLATILE = frozenset({"phase", "nonce", "issuedAt"})


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome: ``allow`` exactly if ``reasons`` is empty; reasons ordered by number, obligations sorted."""

    allow: bool
    reasons: tuple[str, ...]
    obligations: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the decision as JSON values."""
        return {
            "allow": self.allow,
            "reasons": list(self.reasons),
            "obligations": list(self.obligations),
        }


def scope(request: Mapping[str, Any]) -> str:
    """Return the digest of a request without phase, nonce and issuedAt (FORMAT.md §2).

    Raises:
        DocumentMalformed: the request has no canonical form.
    """
    return digest({name: value for name, value in request.items() if name not in VOLATILE})


def decide(world: object) -> Decision:
    """Decide on a world (FORMAT.md §2). Never raises."""
    if not isinstance(world, Mapping):
        return _stop("CLOCK_UNTRUSTED")
    now = instant(world.get("now"))
    if now is None:
        return _stop("CLOCK_UNTRUSTED")
    try:
        checked = worlds.read(world)
        asked = scope(checked.request.raw)
        purposes = _purposes(tuple(checked.vocabulary.purposes.items()))
    except (worlds.WorldMalformed, DocumentMalformed, RecursionError):
        return _stop("INPUT_MALFORMED")
    try:
        contract = Contract.parse(world["contract_text"])
    except (DocumentMalformed, RecursionError):
        return _stop("DOCUMENT_MALFORMED")
    if contract.grade_faults(checked.vocabulary.grades):
        return _stop("DOCUMENT_MALFORMED")
    case = Case(now, checked, contract, asked, purposes)
    found = sorted(set(reasons(case)), key=lambda code: REASONS[code].number)
    return Decision(not found, tuple(found), tuple(sorted(case.obligations)))


@lru_cache(maxsize=16)
def _purposes(tree: tuple[tuple[str, str | None], ...]) -> str:
    """Return the digest of the purposes, term and parent: a node decides under one vocabulary for months."""
    return digest(dict(tree))


def forget() -> None:
    """Empty the cache of vocabularies (for measurements)."""
    _purposes.cache_clear()


def _stop(code: str) -> Decision:
    return Decision(False, (code,), ())
