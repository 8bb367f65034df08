"""Events of a contract: closed, chained, signed by who acts, and the same bytes for everybody.

    {"schema": "convoy-contract-event/1", "uid", "seq", "prev", "type", "by", "at", ...members of the type}

``prev`` is the digest of the event before (for the first: ``genesis(uid)``), so a chain has one order and nothing can be
left out unseen; the id of an event is the digest of its canonical bytes, so sending it again is the same event. ``by`` is the
acting party, or ``*`` for an act of all parties, which then needs every party's proof over the same bytes.
What may never change: the members and ``HEADER_TYPE``; FORMAT.md §5 reads the four types of ``WORLD_TYPES``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_contracts.canonical import MAX_SAFE_INTEGER, Json, canonical_bytes, digest, parse_json
from convoy_contracts.errors import DocumentMalformed, SignatureRefused
from convoy_contracts.instants import instant
from convoy_contracts.jws import Key, proof, proof_fault

SCHEMA = "convoy-contract-event/1"
HEADER_TYPE = "convoy-contract-event+jws"
ALL = "*"
WORLD_TYPES = frozenset({"suspend", "resume", "terminate", "supersede"})
"""Types that a decision's world may hold; the others end an offer, which then never gets all signatures."""
MEMBERS: Mapping[str, frozenset[str]] = {
    "suspend": frozenset({"party"}),
    "resume": frozenset({"party"}),
    "terminate": frozenset(),
    "supersede": frozenset({"version", "inFlight"}),
    "refuse": frozenset({"version"}),
    "withdraw-offer": frozenset({"version"}),
}
REASON_CLASSES = ("incident", "legal")
IN_FLIGHT = ("finish", "abort")
_FRAME = frozenset({"schema", "uid", "seq", "prev", "type", "by", "at"})


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """One event; ``value`` is what was signed."""

    uid: str
    seq: int
    prev: str
    type: str
    by: str
    at: int
    party: str | None
    version: int | None
    value: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The digest of the event's canonical bytes: the next event's ``prev``."""
        return digest(dict(self.value))


def genesis(uid: str) -> str:
    """Return the head of a chain without events."""
    return digest({"schema": SCHEMA, "uid": uid})


def parse_event(given: str | bytes | Json) -> ContractEvent:
    """Read an event from JSON text, or from JSON values.

    Raises:
        DocumentMalformed: with every fault in ``problems``.
    """
    value = parse_json(given) if isinstance(given, str | bytes) else parse_json(canonical_bytes(given))
    problems = _problems(value)
    if problems:
        raise DocumentMalformed(
            f"not a contract event: {'; '.join(problems)}",
            fix="Make it with 'convoy-contracts event'.",
            problems=problems,
        )
    at = instant(value["at"])
    if at is None:  # pragma: no cover - _problems has looked
        raise DocumentMalformed("at is no timestamp")
    return ContractEvent(
        uid=value["uid"], seq=value["seq"], prev=value["prev"], type=value["type"], by=value["by"], at=at,
        party=value.get("party"), version=value.get("version"), value=value,
    )  # fmt: skip


def _problems(value: Json) -> list[str]:
    if not isinstance(value, dict):
        return ["it is no object"]
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in MEMBERS:
        return [f"type is none of {', '.join(sorted(MEMBERS))}"]
    needed = _FRAME | MEMBERS[kind]
    optional = {"reasonClass"} if kind == "suspend" else set()
    problems = [f"{name} is missing" for name in sorted(needed - value.keys())]
    problems += [f"{name} is unknown" for name in sorted(value.keys() - needed - optional)]
    problems += [
        f"{name} is no id"
        for name in ("uid", "prev", "by", "party")
        if name in value and not (isinstance(value[name], str) and value[name])
    ]
    for name, least in (("seq", 1), ("version", 1)):
        number = value.get(name, least)
        if type(number) is not int or not least <= number <= MAX_SAFE_INTEGER:
            problems.append(f"{name} is no integer from {least}")
    if value.get("schema") != SCHEMA:
        problems.append(f"schema is not {SCHEMA}")
    if "at" in value and instant(value["at"]) is None:
        problems.append("at is no timestamp with offset")
    if "reasonClass" in value and value["reasonClass"] not in REASON_CLASSES:
        problems.append(f"reasonClass is none of {', '.join(REASON_CLASSES)}")
    if kind == "suspend" and value.get("party") == ALL and "reasonClass" not in value:
        problems.append("reasonClass is missing: the whole contract stops for an incident or a legal reason only")
    if "inFlight" in value and value["inFlight"] not in IN_FLIGHT:
        problems.append(f"inFlight is none of {', '.join(IN_FLIGHT)}")
    return problems


def make_event(*, uid: str, seq: int, prev: str, kind: str, by: str, at: str, **members: Any) -> ContractEvent:
    """Return an event that follows ``prev``.

    Raises:
        DocumentMalformed: the members do not fit the type.
    """
    frame = {"schema": SCHEMA, "uid": uid, "seq": seq, "prev": prev, "type": kind, "by": by, "at": at}
    return parse_event(frame | {name: value for name, value in members.items() if value is not None})


def sign_event(event: ContractEvent, *, party: str, kid: str, private_key: Ed25519PrivateKey) -> dict[str, str]:
    """Return a party's proof over an event.

    Raises:
        SignatureRefused: the event is another party's.
    """
    if event.by not in (party, ALL):
        raise SignatureRefused(
            f"the event is by {event.by}, not by {party}", fix="Sign what is yours, or what is by all."
        )
    body = canonical_bytes(dict(event.value))
    return proof(body, party=party, kid=kid, typ=HEADER_TYPE, private_key=private_key)


def event_faults(event: ContractEvent, proofs: Iterable[Any], keys: Mapping[str, Key]) -> dict[str, str]:
    """Return what is wrong with the proofs of an event, by party; a proof of somebody who is not acting is a fault."""
    body = canonical_bytes(dict(event.value))
    faults: dict[str, str] = {}
    for given in proofs:
        party = given.get("party") if isinstance(given, Mapping) else None
        if not isinstance(party, str):
            faults[""] = "SIGNATURE_INVALID"
            continue
        if event.by not in (party, ALL):
            faults[party] = "SIGNATURE_KEY_NOT_OF_PARTY"
            continue
        fault = proof_fault(given, typ=HEADER_TYPE, body=body, at=event.value["at"], keys=keys)
        if fault is not None:
            faults[party] = fault
    return faults


def actors(event: ContractEvent, parties: Iterable[str]) -> frozenset[str]:
    """Return whose proofs an event needs."""
    return frozenset(parties) if event.by == ALL else frozenset({event.by})


def admitted(raw: Sequence[Any], parties: Sequence[str], keys: Mapping[str, Key]) -> list[dict[str, Any]]:
    """Return the events that a node may put into a decision's world, out of those that a coordinator handed over.

    What loosens (resume, a superseded version that may finish) counts only with good proofs of all who act. What only tightens
    counts as it is: whoever hands over the events could refuse anyway. Types that a world does not know are left out.
    """
    found = []
    for value in raw:
        if not isinstance(value, Mapping) or value.get("type") not in WORLD_TYPES:
            continue
        tightens = value["type"] in ("suspend", "terminate") or (
            value["type"] == "supersede" and value.get("inFlight") == "abort"
        )
        if tightens or is_proved(value, parties, keys):
            found.append(dict(value))
    return found


def is_proved(value: Mapping[str, Any], parties: Sequence[str], keys: Mapping[str, Key]) -> bool:
    """Whether an event as the coordinator shows it (with ``proof``) is signed by all who act."""
    proofs = value.get("proof")
    if not isinstance(proofs, list):
        return False
    try:
        event = parse_event({name: member for name, member in value.items() if name != "proof"})
    except DocumentMalformed:
        return False
    signers = {given["party"] for given in proofs if isinstance(given, Mapping) and isinstance(given.get("party"), str)}
    return actors(event, parties) <= signers and not event_faults(event, proofs, keys)


def chain_fault(uid: str, values: Sequence[Mapping[str, Any]]) -> str | None:
    """Return where a chain of events is broken, or None: sequence, order and links."""
    head = genesis(uid)
    for place, value in enumerate(values, 1):
        try:
            event = parse_event({name: member for name, member in value.items() if name != "proof"})
        except DocumentMalformed as error:
            return f"event {place}: {error.cause}"
        if (event.uid, event.seq, event.prev) != (uid, place, head):
            return f"event {place} does not follow the one before"
        head = event.id
    return None
