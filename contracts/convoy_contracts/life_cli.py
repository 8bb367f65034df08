"""Commands about a contract's life: offer, event, state, catalogue. Private keys are read from files only."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from convoy_contracts.document import Contract

EXIT_OK, EXIT_REFUSED = 0, 3
Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns."""


def register(commands: Commands) -> None:
    """Add the commands."""
    offer = commands.add_parser("offer", help="sign an offer as its author; prints the body of POST /v1/contracts")
    offer.add_argument("contract", type=Path)
    add_signer(offer)
    offer.set_defaults(run=_offer)

    event = commands.add_parser(
        "event", help="make and sign an event; prints the body of POST /v1/contracts/UID/events"
    )
    event.add_argument("--uid", help="of the contract")
    event.add_argument("--seq", type=int, help="nextSeq of GET /v1/contracts/UID/events")
    event.add_argument("--prev", help="head of GET /v1/contracts/UID/events")
    event.add_argument(
        "--type", choices=("suspend", "resume", "terminate", "supersede", "refuse", "withdraw-offer"), dest="kind",
        help="what happens",
    )  # fmt: skip
    event.add_argument("--by", help="the acting party, or * for all parties together; default: the signer")
    event.add_argument("--at", help="when it has effect, with offset; default: now")
    event.add_argument("--whom", help="the party that is stopped or resumed, or * for the whole contract")
    event.add_argument("--reason-class", choices=("incident", "legal"), help="why the whole contract is stopped")
    event.add_argument("--version", type=int, help="the version that is replaced, refused or withdrawn")
    event.add_argument("--in-flight", choices=("finish", "abort"), help="what running rounds of the old version do")
    event.add_argument(
        "--cosign", type=Path, help="sign the event of this file instead (a body, or an element of waiting)"
    )
    add_signer(event)
    event.set_defaults(run=_event)

    state = commands.add_parser("state", help="say where a contract stands, from files alone")
    state.add_argument("contract", type=Path)
    state.add_argument("--signatures", type=Path, required=True, help="JSON array of signature entries")
    state.add_argument("--events", type=Path, help="JSON array of events with their proofs")
    state.add_argument("--keys", type=Path, required=True, help="JSON object of keys by kid (FORMAT.md §2)")
    state.add_argument("--at", help="any instant, with offset; default: now")
    state.add_argument("--json", action="store_true", help="print the state as JSON")
    state.set_defaults(run=_state)

    key = commands.add_parser(
        "key", help="print the public half of a key file as an entry of a keys file (FORMAT.md §2)"
    )
    add_signer(key)
    key.add_argument("--not-before", required=True, help="since when it may sign, with offset")
    key.add_argument("--not-after", required=True, help="until when it may sign, with offset; not included")
    key.set_defaults(run=_key)

    catalogue = commands.add_parser("catalogue", help="asset catalogue: check or sign an entry, sign a tier grant")
    acts = catalogue.add_subparsers(dest="act", required=True)
    check = acts.add_parser("check", help="list every fault of an entry, and what it changes")
    check.add_argument("entry", type=Path)
    check.add_argument("--old", type=Path, help="the version in force")
    check.set_defaults(run=_catalogue_check)
    sign = acts.add_parser(
        "sign", help="sign an entry or a tier grant; prints the body of POST /v1/catalogue or /v1/tiers"
    )
    sign.add_argument("entry", type=Path)
    add_signer(sign)
    sign.set_defaults(run=_catalogue_sign)


def add_signer(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who signs, with which key file."""
    parser.add_argument("--party", required=True, help="who signs")
    parser.add_argument("--kid", required=True, help="id under which the public key is registered")
    parser.add_argument("--key", type=Path, required=True, help="PEM file with the Ed25519 private key")


def read_json(path: Path) -> Any:
    """Read strict JSON from a file.

    Raises:
        DocumentMalformed: it is none; the cause names the file.
    """
    from convoy_contracts.canonical import parse_json

    with naming(path):
        return parse_json(path.read_bytes())


def read_contract(path: Path) -> Contract:
    """Read a contract from a file.

    Raises:
        DocumentMalformed: it is none; the cause names the file.
    """
    from convoy_contracts.document import Contract

    with naming(path):
        return Contract.parse(path.read_bytes())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in what is said about a document that was read from it: a command may have read several."""
    from convoy_contracts.errors import DocumentMalformed

    try:
        yield
    except DocumentMalformed as error:
        raise DocumentMalformed(f"{path.name}: {error.cause}", fix=error.fix, problems=error.problems) from error


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key from an unencrypted PEM file.

    Raises:
        SignatureRefused: it is none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from convoy_contracts.errors import SignatureRefused

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise SignatureRefused("the key file is no unencrypted PEM key", fix="Name the Ed25519 key file.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureRefused("the key is no Ed25519 key", fix="Contracts are signed with Ed25519.")
    return key


def now_text() -> str:
    """Return the present instant as a timestamp."""
    from convoy_contracts.instants import timestamp

    return timestamp(datetime.now(UTC))


def _offer(given: argparse.Namespace) -> int:
    from convoy_contracts.document import Contract
    from convoy_contracts.offers import sign_offer

    with naming(given.contract):
        contract = Contract.parse(given.contract.read_bytes())
    text = given.contract.read_text(encoding="utf-8")
    key = load_key(given.key)
    proof = sign_offer(contract, party=given.party, kid=given.kid, at=now_text(), private_key=key)
    print(json.dumps({"text": text, "proof": proof}, ensure_ascii=False))
    return EXIT_OK


def _event(given: argparse.Namespace) -> int:
    from convoy_contracts.errors import ArgumentRefused
    from convoy_contracts.events import make_event, parse_event, sign_event

    if given.cosign is not None:
        value = read_json(given.cosign)
        with naming(given.cosign):
            event = parse_event(value["event"] if isinstance(value, dict) and "event" in value else value)
    else:
        missing = [name for name in ("uid", "seq", "prev", "kind") if getattr(given, name) is None]
        if missing:
            names = ", ".join("--type" if name == "kind" else f"--{name}" for name in missing)
            raise ArgumentRefused(
                f"a new event needs {names}", fix="See GET /v1/contracts/UID/events for head and nextSeq."
            )
        event = make_event(
            uid=given.uid, seq=given.seq, prev=given.prev, kind=given.kind, by=given.by or given.party,
            at=given.at or now_text(), party=given.whom, reasonClass=given.reason_class, version=given.version,
            inFlight=given.in_flight,
        )  # fmt: skip
    proof = sign_event(event, party=given.party, kid=given.kid, private_key=load_key(given.key))
    print(json.dumps({"event": dict(event.value), "proof": [proof]}, ensure_ascii=False))
    return EXIT_OK


def _state(given: argparse.Namespace) -> int:
    from convoy_contracts import signatures
    from convoy_contracts.decide.world import WorldMalformed, read_keys
    from convoy_contracts.errors import ArgumentRefused
    from convoy_contracts.events import chain_fault, is_proved
    from convoy_contracts.instants import instant
    from convoy_contracts.lifecycle import DPV, Signed, state, terms

    contract = read_contract(given.contract)
    at = instant(given.at or now_text())
    if at is None:
        raise ArgumentRefused(f"{given.at} is no timestamp with offset", fix="Write 2027-03-01T10:00:00+08:00.")
    try:
        keys = read_keys({"keys": read_json(given.keys)})
    except WorldMalformed as error:
        raise ArgumentRefused(
            f"{given.keys.name}: {error}", fix="Keys are an object of kid to key (FORMAT.md §2)."
        ) from error
    entries = read_json(given.signatures)
    good = [
        Signed(entry["party"], instant(entry["sigT"]) or 0)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and (entry.get("act"), entry.get("role")) == (signatures.ACT, signatures.ROLE)
        and isinstance(entry.get("party"), str)
        and signatures.fault(contract, entry["party"], entry, keys) is None
    ]
    events = read_json(given.events) if given.events else []
    parties = [party.id for party in contract.parties]
    broken = chain_fault(contract.uid, events) if isinstance(events, list) else "it is no list"
    if broken is not None:
        raise ArgumentRefused(
            f"the chain of events is broken: {broken}", fix="Fetch GET /v1/contracts/UID/events again."
        )
    unproved = [str(event["seq"]) for event in events if not is_proved(event, parties, keys)]
    if unproved:
        raise ArgumentRefused(
            f"event(s) {', '.join(unproved)} are not signed by who acts", fix="Fetch the events again."
        )
    found = state(terms(contract), good, events, at)
    if given.json:
        value = {
            "uid": contract.uid, "version": contract.version, "state": str(found.state), "dpv": DPV[found.state],
            "signed": list(found.signed), "unsigned": list(found.unsigned), "suspended": sorted(found.suspended),
        }  # fmt: skip
        print(json.dumps(value, ensure_ascii=False))
    else:
        stopped = f"; suspended: {', '.join(sorted(found.suspended))}" if found.suspended else ""
        waiting = f"; not signed: {', '.join(found.unsigned)}" if found.unsigned else ""
        print(f"{contract.uid} version {contract.version}: {found.state}{waiting}{stopped}")
    return EXIT_OK


def _key(given: argparse.Namespace) -> int:
    from convoy_contracts.canonical import b64u
    from convoy_contracts.decide.world import WorldMalformed, read_keys
    from convoy_contracts.errors import ArgumentRefused

    entry = {
        "party": given.party, "kty": "OKP", "crv": "Ed25519", "x": b64u(load_key(given.key).public_key().public_bytes_raw()),
        "notBefore": given.not_before, "notAfter": given.not_after,
    }  # fmt: skip
    try:
        read_keys({"keys": {given.kid: entry}})
    except WorldMalformed as error:
        raise ArgumentRefused(str(error), fix="Write times as 2027-03-01T10:00:00+08:00.") from error
    print(json.dumps({given.kid: entry}))
    return EXIT_OK


def _catalogue_check(given: argparse.Namespace) -> int:
    from convoy_contracts.catalogue import parse_entry, regrade

    with naming(given.entry):
        entry = parse_entry(given.entry.read_bytes())
    old = None
    if given.old:
        with naming(given.old):
            old = parse_entry(given.old.read_bytes())
    print(f"{entry.asset} version {entry.version}: {entry.digest}")
    for change in regrade(old, entry) if old is not None else []:
        needs = "needs everybody's signature" if change.is_loosening else "immediate"
        print(f"  {change.where}: {change.change}, {change.old} -> {change.new}  ({needs})")
    return EXIT_OK


def _catalogue_sign(given: argparse.Namespace) -> int:
    from convoy_contracts.catalogue import SCHEMA, parse_entry
    from convoy_contracts.grants import parse_grant, signed_value

    value = read_json(given.entry)
    is_entry = isinstance(value, dict) and value.get("schema") == SCHEMA
    with naming(given.entry):
        parsed = parse_entry(value) if is_entry else parse_grant(value)
    proof = signed_value(parsed, party=given.party, kid=given.kid, private_key=load_key(given.key))
    print(json.dumps({"value": parsed.as_json(), "proof": [proof]}, ensure_ascii=False))
    return EXIT_OK
