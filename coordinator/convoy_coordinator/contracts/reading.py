"""Read contract documents and signatures with ``convoy_contracts``, and turn its errors into
problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from convoy_contracts.decide.world import read_keys
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError
from convoy_contracts.offers import author_of, offer_fault
from convoy_contracts.signatures import ACT, ROLE, fault
from convoy_coordinator.contracts.standing import Agreed, Budget
from convoy_coordinator.errors import Fault, Problem


@dataclass(frozen=True, slots=True)
class Document:
    """A document that holds to the format, with its digest."""

    digest: str
    agreed: Agreed


def read(text: str) -> Document:
    """Read an offered document.

    Raises:
        Problem: DOCUMENT_MALFORMED with every fault.
    """
    try:
        contract = Contract.parse(text)
    except ContractsError as error:
        faults = [Fault("/text", problem) for problem in error.problems[:50]]
        raise Problem("DOCUMENT_MALFORMED", error.cause[:2000], fix=error.fix or None, faults=faults) from None
    return Document(contract.digest, _agreed(contract))


@lru_cache(maxsize=256)
def read_stored(text: str) -> Agreed:
    """Read a document that ``read`` has accepted before."""
    return read(text).agreed


def check_signature(text: str, entry: Mapping[str, Any], keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Verify one signature entry over a stored document (FORMAT.md §4).

    Args:
        text: the document.
        entry: party, role, act, kid, sigT, jws.
        keys: the key ring, as a decision's world has it.

    Raises:
        Problem: SIGNATURE_REFUSED; the cause names the code of FORMAT.md.
    """
    party = str(entry["party"])
    if (entry["act"], entry["role"]) != (ACT, ROLE):
        code: str | None = "SIGNATURE_MISSING"
    else:
        ring = read_keys({"keys": keys})
        code = fault(Contract.parse(text), party, entry, ring)
    if code is not None:
        raise Problem("SIGNATURE_REFUSED", f"{code}: {_WHY[code]}", party=party)


def check_offer(text: str, proof: Mapping[str, Any], keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Verify the author's proof over an offer.

    Raises:
        Problem: SIGNATURE_REFUSED; the cause names the code of FORMAT.md.
    """
    contract = Contract.parse(text)
    code = offer_fault(contract, proof, read_keys({"keys": keys}))
    if code is not None:
        raise Problem("SIGNATURE_REFUSED", f"{code}: {_WHY[code]}", party=author_of(contract))


def moment(text: str) -> datetime:
    """Return a timestamp of the format as aware UTC; what UTC cannot hold becomes its first or
    last instant.
    """
    value = datetime.fromisoformat(text)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        edge = datetime.min if value.year == 1 else datetime.max
        return edge.replace(tzinfo=UTC)


_WHY: Final[Mapping[str, str]] = {
    "SIGNATURE_MISSING": f"only act '{ACT}' with role '{ROLE}' counts as a party's signature",
    "SIGNATURE_KEY_NOT_OF_PARTY": "the key is not the one that this party enrolled",
    "SIGNATURE_INVALID": "it does not fit the document, the key or the required form",
    "CERT_NOT_VALID_AT_SIGNING": "the key was not valid at the time of signing",
    "KEY_COMPROMISED": "the key was reported as compromised",
    "KEY_REVOKED_BEFORE_SIGNING": "the key was revoked before the time of signing",
    "SIGNED_AFTER_OFFER_LAPSED": "the offer had lapsed at the time of signing",
}


def _agreed(contract: Contract) -> Agreed:
    return Agreed(
        uid=contract.uid,
        version=contract.version,
        title=contract.title or contract.uid,
        parties=tuple(party.id for party in contract.parties),
        algorithms=tuple(algorithm.id for algorithm in contract.algorithms),
        budgets={asset: Budget(budget.totalMicro, budget.deltaNano) for asset, budget in contract.privacy.items()},
        term=(_day(contract.term.notBefore), _day(contract.term.notAfter)),
        offer_until=moment(contract.offerUntil),
        not_before=moment(contract.term.notBefore),
        not_after=moment(contract.term.notAfter),
        author=author_of(contract),
    )


def _day(timestamp: str) -> str:
    """Return the day of a timestamp as the document writes it; the hour too, if it is not midnight."""
    day, _, hour = timestamp.partition("T")
    return day if hour.startswith("00:00:00") else f"{day} {hour[:5]}"
