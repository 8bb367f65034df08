"""Every gate of FORMAT.md §6 at its edges: one world that is allowed, one change, the exact and complete reasons.

Each row stands for a sentence of the format; ``test_every_code_is_reached`` holds the table to all 57 codes.
LENGTH: over 500 lines, because it is one table.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from convoy_contracts.canonical import b64u, canonical_bytes, digest
from convoy_contracts.decide import REASONS, decide
from convoy_contracts.signatures import HEADER_TYPE, payload
from convoy_contracts.testing import INSURERS, NOW, OEM, SIGNED_AT, example_world, key_of, signed_world

A, B, C = INSURERS
DRIVE, BOOK = "urn:convoy:asset:drive", "urn:convoy:asset:book:0"
UID = "urn:convoy:contract:example"
Json = dict[str, Any]
Change = Callable[[Json, Json], None]
BEFORE, AFTER = "2027-03-01T09:45:00+08:00", "2027-03-01T10:00:00.000001+08:00"


def decided(
    change: Change | None, *, phase: str = "authorise", authorised_at: str = BEFORE
) -> tuple[list[str], set[str]]:
    """Change world and document, sign again, decide; returns reasons and obligations."""
    world = example_world()
    document = json.loads(world.pop("contract_text"))
    world["request"]["phase"] = phase
    if change is not None:
        change(world, document)
    made = signed_world(document, world, authorised_at=authorised_at if phase == "release" else "")
    for late in made.pop("late", []):
        late(made)
    decision = decide(made)
    assert decision.allow == (not decision.reasons)
    return list(decision.reasons), set(decision.obligations)


def later(world: Json, change: Callable[[Json], None]) -> None:
    """Change the signed world rather than what it is made of."""
    world.setdefault("late", []).append(change)


def ask(**members: Any) -> Change:
    """Replace members of the request."""
    return lambda world, _: world["request"].update(members)


def node(**members: Any) -> Change:
    """Replace members of what the node knows."""
    return lambda world, _: world["node"].update(members)


def agree(**members: Any) -> Change:
    """Replace members of the document."""
    return lambda _, document: document.update(members)


def record(**members: Any) -> Change:
    """Replace members of the one consent record."""
    return lambda world, _: world["node"]["consent"]["subjects"][0].update(members)


def event(kind: str, by: str, at: str = NOW, seq: int = 1, **members: Any) -> Change:
    """Add an event."""

    def add(world: Json, _: Json) -> None:
        world["events"].append({"uid": UID, "seq": seq, "type": kind, "by": by, "at": at, **members})

    return add


def both(*changes: Change) -> Change:
    """Make several changes."""

    def all_of(world: Json, document: Json) -> None:
        for change in changes:
            change(world, document)

    return all_of


def permit(*constraints: Json, **members: Any) -> Change:
    """Replace the permission's constraints and members."""
    return lambda _, document: document["permission"][0].update({"constraint": list(constraints), **members})


def forbid(*constraints: Json, action: str = "use", **members: Any) -> Change:
    """Replace the prohibitions by one."""
    rule: Json = {"uid": "x", "action": action, **members}
    if constraints:
        rule["constraint"] = list(constraints)
    return agree(prohibition=[rule])


def where(left: str, operator: str, right: Any) -> Json:
    """Return a constraint."""
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def field(name: str, **members: Any) -> Change:
    """Change a scheduled field of the carmaker's asset."""

    def change(_: Json, document: Json) -> None:
        next(row for row in document["data"] if row["asset"] == DRIVE)["fields"][0].update({"name": name, **members})

    return change


def graded(grade: str) -> Change:
    """Change the current grade of the carmaker's field."""
    return lambda world, _: world["node"]["catalog"][DRIVE]["fields"]["harsh_brake"].update(grade=grade)


def sign_as(
    party: str, *, header: Any = None, kid: str | None = None, sig_t: str = SIGNED_AT, **members: Any
) -> Change:
    """Replace the carmaker's signature entry by one that is made with a given header."""

    def change(world: Json, _: Json) -> None:
        def replace(made: Json) -> None:
            name = kid or f"{party}#1"
            text = made["contract_text"]
            head = header if header is not None else {"alg": "Ed25519", "kid": name, "typ": HEADER_TYPE}
            spelled = b64u(head if isinstance(head, bytes) else json.dumps(head).encode())
            agreed = json.loads(text)
            body = payload(party=OEM, sig_t=sig_t, uid=agreed["uid"], version=agreed["version"], digest=digest(agreed))
            signature = key_of(party).sign(f"{spelled}.{b64u(body)}".encode())
            entry = {"party": OEM, "role": "business", "act": "sign", "kid": name, "sigT": sig_t,
                     "jws": f"{spelled}..{b64u(signature)}"}  # fmt: skip
            made["signatures"] = [s for s in made["signatures"] if s["party"] != OEM] + [entry | members]

        later(world, replace)

    return change


def key(**members: Any) -> Change:
    """Change the carmaker's registered key."""
    return lambda world, _: later(world, lambda made: made["keys"][f"{OEM}#1"].update(members))


def text(change: Callable[[str], str]) -> Change:
    """Change the contract text after it was signed."""
    return lambda world, _: later(world, lambda made: made.update(contract_text=change(made["contract_text"])))


def late(change: Callable[[Json], Any]) -> Change:
    """Change the finished world."""
    return lambda world, _: later(world, change)


PIA_GONE = {"ref": "PIA-1", "validUntil": NOW}
ABROAD = {"mechanism": "standard contract", "validUntil": AFTER, "recipients": [B]}


def move(party: str, region: str) -> Change:
    """Move a party."""
    return lambda _, document: next(p for p in document["parties"] if p["id"] == party).update(region=region)


def exported(**members: Any) -> Change:
    """Move one insurer to Hong Kong under an export record."""
    return both(move(B, "CN-HK"), lambda _, d: d["location"].update(processing=["CN"], export=ABROAD | members))


DIGEST_0 = f"sha256:{'0' * 64}"
COMPROMISED = {"revokedAt": "2028-01-01T00:00:00Z", "revokedReason": "keyCompromise"}
HEADER = {"alg": "Ed25519", "kid": f"{OEM}#1", "typ": HEADER_TYPE}

ROWS: list[tuple[str, Change | None, list[str]]] = [
    ("nothing changed", None, []),
    # 1-3
    ("now in another offset is the same instant", late(lambda w: w.update(now="2027-03-01T02:00:00Z")), []),
    ("now without offset", late(lambda w: w.update(now="2027-03-01T10:00:00")), ["CLOCK_UNTRUSTED"]),
    ("now with a leap second", late(lambda w: w.update(now="2027-03-01T09:59:60+08:00")), ["CLOCK_UNTRUSTED"]),
    ("now in lower case", late(lambda w: w.update(now="2027-03-01t02:00:00z")), ["CLOCK_UNTRUSTED"]),
    ("now with seven digits", late(lambda w: w.update(now="2027-03-01T02:00:00.0000000Z")), ["CLOCK_UNTRUSTED"]),
    ("now on 29 February 2027", late(lambda w: w.update(now="2027-02-29T02:00:00Z")), ["CLOCK_UNTRUSTED"]),
    ("clock and input bad", late(lambda w: (w.update(now=1), w.pop("keys"))), ["CLOCK_UNTRUSTED"]),
    ("input and document bad", both(late(lambda w: w.pop("keys")), text(lambda t: "{")), ["INPUT_MALFORMED"]),
    ("clock doubtful", node(clockOk=False), ["CLOCK_UNTRUSTED"]),
    ("clock unknown is fine", lambda w, _: w["node"].pop("clockOk"), []),
    ("clock no boolean", node(clockOk=1), ["INPUT_MALFORMED"]),
    ("no contract text", late(lambda w: w.pop("contract_text")), ["INPUT_MALFORMED"]),
    ("contract text no string", late(lambda w: w.update(contract_text={})), ["INPUT_MALFORMED"]),
    ("contract text empty", text(lambda t: ""), ["DOCUMENT_MALFORMED"]),
    ("round written 1.0", ask(round=1.0), ["INPUT_MALFORMED"]),
    ("round zero", ask(round=0), ["INPUT_MALFORMED"]),
    ("round 2^53", ask(round=2**53), ["INPUT_MALFORMED"]),
    ("largest round", both(ask(round=2**53 - 1), permit()), []),
    ("no assets", ask(assets=[]), ["INPUT_MALFORMED"]),
    ("no providers", ask(providers=[]), ["INPUT_MALFORMED"]),
    ("no recipients", ask(recipients=[]), ["INPUT_MALFORMED"]),
    ("no node regions", ask(nodeRegions=[]), ["INPUT_MALFORMED"]),
    ("fields of an unlisted asset", lambda w, _: w["request"]["fields"].update(x=[]), ["INPUT_MALFORMED"]),
    ("an asset without fields asked", lambda w, _: w["request"]["fields"].pop(BOOK), []),
    ("phase unknown", late(lambda w: w["request"].update(phase="both")), ["INPUT_MALFORMED"]),
    ("catalogue grade unknown", graded("L5"), ["INPUT_MALFORMED"]),
    ("tree with a cycle", lambda w, _: w["vocabulary"]["actions"].update(use="convoy:train"), ["INPUT_MALFORMED"]),
    ("tree with a missing parent", lambda w, _: w["vocabulary"]["actions"].update(x="y"), ["INPUT_MALFORMED"]),
    ("event type unknown", event("explode", OEM), ["INPUT_MALFORMED"]),
    ("seq twice", both(event("suspend", A, party=B), event("resume", A, party=B)), ["INPUT_MALFORMED"]),
    ("negative spending", node(budget={DRIVE: {"spent": -1, "reserved": 0, "deltaSpent": 0, "deltaReserved": 0}}),
     ["INPUT_MALFORMED"]),
    ("negative cap", node(assetCapMicro={DRIVE: -1}), ["INPUT_MALFORMED"]),
    ("person with n = 2", record(person="p", n=2), ["INPUT_MALFORMED"]),
    ("given missing", lambda w, _: w["node"]["consent"]["subjects"][0].pop("given"), ["INPUT_MALFORMED"]),
    ("withdrawn absent", lambda w, _: w["node"]["consent"]["subjects"][0].pop("withdrawn"), []),
    ("precision with exponent", ask(precision={"harsh_brake": "1e1"}), ["INPUT_MALFORMED"]),
    ("duty without due", lambda w, _: w.update(duties=[{"id": "d", "bearer": OEM, "blocking": True}]),
     ["INPUT_MALFORMED"]),
    ("unknown members outside the contract", lambda w, _: (w.update(x=1), w["node"].update(y=2)), []),
    ("a fraction in a member that nothing reads", late(lambda w: w.update(x={"y": [1.5]})), ["INPUT_MALFORMED"]),
    ("a fraction beside a signature", late(lambda w: w["signatures"][0].update(x=1.5)), []),
    ("a round beyond 2^53 among the authorised", late(lambda w: w["node"].update(authorised={
        str(2**53): {"at": BEFORE, "scope": DIGEST_0}})), ["INPUT_MALFORMED"]),
    ("key of another curve", key(crv="Ed448"), ["INPUT_MALFORMED"]),
    ("key of 31 bytes", key(x=b64u(bytes(31))), ["INPUT_MALFORMED"]),
    ("key revoked without reason", key(revokedAt=NOW), ["INPUT_MALFORMED"]),
    ("spacing and order of the text", text(lambda t: json.dumps(dict(reversed(json.loads(t).items())), indent=2)), []),
    ("a key twice", text(lambda t: t.replace('"version": 1', '"version": 1, "version": 1')), ["DOCUMENT_MALFORMED"]),
    ("a key twice, spelled with an escape", text(lambda t: t.replace('"version"', '"versio\\u006e": 1, "version"')),
     ["DOCUMENT_MALFORMED"]),
    ("not NFC", text(lambda t: t.replace("Joint risk", "Joint r\u0065\u0301")), ["DOCUMENT_MALFORMED"]),
    ("a lone surrogate", text(lambda t: t.replace("Joint risk", "Joint \\ud800")), ["DOCUMENT_MALFORMED"]),
    ("1.0", text(lambda t: t.replace('"version": 1', '"version": 1.0')), ["DOCUMENT_MALFORMED"]),
    ("1e3", text(lambda t: t.replace("3600", "36e2")), ["DOCUMENT_MALFORMED"]),
    ("2^53", text(lambda t: t.replace("3600", str(2**53))), ["DOCUMENT_MALFORMED"]),
    ("NaN", text(lambda t: t.replace("3600", "NaN")), ["DOCUMENT_MALFORMED"]),
    ("P1M", text(lambda t: t.replace("3600", '"P1M"')), ["DOCUMENT_MALFORMED"]),
    ("trailing text", text(lambda t: t + "x"), ["DOCUMENT_MALFORMED"]),
    ("unknown member at depth", lambda _, d: d["data"][0]["fields"][0].update(note="x"), ["DOCUMENT_MALFORMED"]),
    ("unknown member of the document", agree(duty=[]), ["DOCUMENT_MALFORMED"]),
    ("missing member", lambda _, d: d.pop("withdrawal"), ["DOCUMENT_MALFORMED"]),
    ("naive time", lambda _, d: d["term"].update(notBefore="2026-12-01T00:00:00"), ["DOCUMENT_MALFORMED"]),
    ("empty term", lambda _, d: d["term"].update(notBefore=d["term"]["notAfter"]), ["DOCUMENT_MALFORMED"]),
    ("grade outside the vocabulary", field("harsh_brake", grade="L9"), ["DOCUMENT_MALFORMED"]),
    ("maxGrade outside the vocabulary", agree(limits={"maxGrade": "X", "maxRoundSeconds": 1}), ["DOCUMENT_MALFORMED"]),
    ("maxRoundSeconds 0", agree(limits={"maxGrade": "L3", "maxRoundSeconds": 0}), ["DOCUMENT_MALFORMED"]),
    ("rule ids twice over both lists", forbid(uid="p1"), ["DOCUMENT_MALFORMED"]),
    ("a party twice", lambda _, d: d["parties"].append(d["parties"][0]), ["DOCUMENT_MALFORMED"]),
    ("an asset twice", lambda _, d: d["data"].append(d["data"][0]), ["DOCUMENT_MALFORMED"]),
    ("a field twice", lambda _, d: d["data"][1]["fields"].append(d["data"][1]["fields"][0]), ["DOCUMENT_MALFORMED"]),
    ("an output twice", lambda _, d: d["outputs"].append(d["outputs"][0]), ["DOCUMENT_MALFORMED"]),
    ("a constraint that is no object", permit("purpose"), ["DOCUMENT_MALFORMED"]),  # type: ignore[arg-type]
    ("a step with leading zero", field("harsh_brake", step="00.1"), ["DOCUMENT_MALFORMED"]),
    ("a boolean written 1", field("harsh_brake", sensitive=1), ["DOCUMENT_MALFORMED"]),
    ("days until a person is asked again", lambda _, d: d["consent"].update(reaskAfterDays=30), []),
    ("no days until a person is asked again", lambda _, d: d["consent"].update(reaskAfterDays=0), ["DOCUMENT_MALFORMED"]),
    ("days until a person is asked again null", lambda _, d: d["consent"].update(reaskAfterDays=None), ["DOCUMENT_MALFORMED"]),
    ("constraint null", lambda _, d: d["permission"][0].update(constraint=None), ["DOCUMENT_MALFORMED"]),
    ("pia null of a party that is no controller", lambda _, d: d["parties"][0].update(pia=None, roles=[]), []),
    ("export null", lambda _, d: d["location"].update(export=None), []),
    ("title left out", lambda _, d: d.pop("title"), []),
    ("deep nesting", text(lambda t: "[" * 10_000 + "]" * 10_000), ["DOCUMENT_MALFORMED"]),
    ("ten megabytes", text(lambda t: t + " " * 10_000_000), ["DOCUMENT_MALFORMED"]),
    # 4-5
    ("digest of another contract", late(lambda w: w["request"].update(contractDigest=DIGEST_0)),
     ["CONTRACT_DIGEST_MISMATCH"]),
    ("digest in capitals", late(lambda w: w["request"].update(contractDigest="sha256:" + "A" * 64)),
     ["INPUT_MALFORMED"]),
    ("a new purpose in the tree", lambda w, _: w["vocabulary"]["purposes"].update(x=None), ["VOCABULARY_MISMATCH"]),
    # 6-12
    ("no signature", late(lambda w: w["signatures"].pop(0)), ["SIGNATURE_MISSING"]),
    ("signature of another act", sign_as(OEM, act="refuse"), ["SIGNATURE_MISSING"]),
    ("signature of another role", sign_as(OEM, role="dpo"), ["SIGNATURE_MISSING"]),
    ("kid unknown", sign_as(OEM, kid="nobody"), ["SIGNATURE_KEY_NOT_OF_PARTY"]),
    ("key of another party", sign_as(A), ["SIGNATURE_KEY_NOT_OF_PARTY"]),
    ("kid no string", late(lambda w: w["signatures"][0].update(kid=[])),
     ["SIGNATURE_KEY_NOT_OF_PARTY"]),
    ("alg none", sign_as(OEM, header=HEADER | {"alg": "none"}), ["SIGNATURE_INVALID"]),
    ("alg EdDSA", sign_as(OEM, header=HEADER | {"alg": "EdDSA"}), ["SIGNATURE_INVALID"]),
    ("extra header member crit", sign_as(OEM, header=HEADER | {"crit": ["x"]}), ["SIGNATURE_INVALID"]),
    ("header kid of another", sign_as(OEM, header=HEADER | {"kid": f"{A}#1"}), ["SIGNATURE_INVALID"]),
    ("header without typ", sign_as(OEM, header={"alg": "Ed25519", "kid": f"{OEM}#1"}), ["SIGNATURE_INVALID"]),
    ("header member twice", sign_as(OEM, header=json.dumps(HEADER).replace("{", '{"alg":"none",').encode()),
     ["SIGNATURE_INVALID"]),
    ("header with spaces", sign_as(OEM, header=json.dumps(HEADER, indent=4).encode()), []),
    ("attached payload", late(lambda w: w["signatures"][0].update(
        jws=w["signatures"][0]["jws"].replace("..", ".e30."))), ["SIGNATURE_INVALID"]),
    ("padding", late(lambda w: w["signatures"][0].update(jws=w["signatures"][0]["jws"] + "==")), ["SIGNATURE_INVALID"]),
    ("no jws", late(lambda w: w["signatures"][0].pop("jws")), ["SIGNATURE_INVALID"]),
    ("sigT bad", late(lambda w: w["signatures"][0].update(sigT="yesterday")), ["SIGNATURE_INVALID"]),
    ("sigT of the same instant spelled otherwise", late(lambda w: w["signatures"][0].update(
        sigT="2026-11-20T02:00:00Z")), ["SIGNATURE_INVALID"]),
    ("key begins at sigT", key(notBefore=SIGNED_AT), []),
    ("key ends at sigT", key(notAfter=SIGNED_AT), ["CERT_NOT_VALID_AT_SIGNING"]),
    ("key expired after signing", key(notAfter="2026-11-21T00:00:00Z"), []),
    ("compromise reported for later", key(**COMPROMISED), ["KEY_COMPROMISED"]),
    ("expired and compromised", key(notAfter=SIGNED_AT, **COMPROMISED), ["CERT_NOT_VALID_AT_SIGNING"]),
    ("revoked at sigT", key(revokedAt=SIGNED_AT, revokedReason="superseded"), ["KEY_REVOKED_BEFORE_SIGNING"]),
    ("revoked after sigT", key(revokedAt="2026-11-20T10:00:00.000001+08:00", revokedReason="superseded"), []),
    ("offer lapses at sigT", agree(offerUntil=SIGNED_AT), ["SIGNED_AFTER_OFFER_LAPSED"]),
    ("a good candidate beside a bad one", late(lambda w: w["signatures"].insert(
        0, w["signatures"][0] | {"jws": "x"})), []),
    ("two bad candidates", late(lambda w: w["signatures"].__setitem__(slice(0, 1), [
        w["signatures"][0] | {"jws": "x"}, w["signatures"][0] | {"kid": "?"}])),
     ["SIGNATURE_KEY_NOT_OF_PARTY", "SIGNATURE_INVALID"]),
    ("entries of nobody", late(lambda w: w["signatures"].append({"x": 1})), []),
    # 13-18
    ("first instant of the term", agree(term={"notBefore": NOW, "notAfter": AFTER}), []),
    ("before the term", agree(term={"notBefore": AFTER, "notAfter": "2028-01-01T00:00:00Z"}), ["TERM_NOT_STARTED"]),
    ("end of the term", agree(term={"notBefore": BEFORE, "notAfter": NOW}), ["TERM_ENDED"]),
    ("terminated now by a party", event("terminate", B), ["CONTRACT_TERMINATED"]),
    ("terminated by all", event("terminate", "*"), ["CONTRACT_TERMINATED"]),
    ("terminated by a stranger", event("terminate", "did:web:x"), []),
    ("terminated next microsecond", event("terminate", B, at=AFTER), []),
    ("terminated under another uid", lambda w, _: w["events"].append(
        {"uid": "other", "seq": 1, "type": "terminate", "by": A, "at": NOW}), []),
    ("superseded", event("supersede", "*", version=1, inFlight="finish"), ["CONTRACT_SUPERSEDED"]),
    ("superseded by one party", event("supersede", A, version=1, inFlight="finish"), []),
    ("another version superseded", event("supersede", "*", version=2, inFlight="abort"), []),
    ("superseded without inFlight", event("supersede", "*", version=1), []),
    ("superseded version true", event("supersede", "*", version=True, inFlight="abort"), []),
    ("superseded version 1.0", event("supersede", "*", version=1.0, inFlight="abort"), ["INPUT_MALFORMED"]),
    ("all suspended for an incident", event("suspend", A, party="*", reasonClass="incident"), ["CONTRACT_SUSPENDED"]),
    ("all suspended by all", event("suspend", "*", party="*", reasonClass="legal"), ["CONTRACT_SUSPENDED"]),
    ("all suspended without class", event("suspend", A, party="*"), []),
    ("all suspended for money", event("suspend", A, party="*", reasonClass="commercial"), []),
    ("one party cannot resume all", both(event("suspend", A, party="*", reasonClass="legal"),
                                         event("resume", A, seq=2, party="*")), ["CONTRACT_SUSPENDED"]),
    ("all resume all", both(event("suspend", A, party="*", reasonClass="legal"),
                            event("resume", "*", seq=2, party="*")), []),
    ("events in another order of the list", both(event("resume", "*", seq=2, party="*"),
                                                 event("suspend", A, party="*", reasonClass="legal")), []),
    ("a party stops itself", event("suspend", OEM, party=OEM), ["PARTY_SUSPENDED"]),
    ("a party stops another", event("suspend", A, party=OEM), []),
    ("all stop a party", event("suspend", "*", party=OEM), []),
    ("a party resumes itself", both(event("suspend", OEM, party=OEM), event("resume", OEM, seq=2, party=OEM)), []),
    ("another resumes it", both(event("suspend", OEM, party=OEM), event("resume", A, seq=2, party=OEM)),
     ["PARTY_SUSPENDED"]),
    ("all resume it", both(event("suspend", OEM, party=OEM), event("resume", "*", seq=2, party=OEM)),
     ["PARTY_SUSPENDED"]),
    ("a suspended party that is not concerned", both(
        event("suspend", C, party=C), ask(providers=[OEM, A], assets=[DRIVE, BOOK], fields={}, recipients=[A]),
        lambda _, d: d["cohort"].update(minProviders=2)), []),
    ("a suspended recipient", both(
        event("suspend", C, party=C), ask(providers=[OEM, A], assets=[DRIVE, BOOK], fields={}, recipients=[C]),
        lambda _, d: d["cohort"].update(minProviders=2)), ["PARTY_SUSPENDED"]),
    # 19-24
    ("requester a stranger", ask(requester="did:web:x"), ["PARTY_NOT_IN_CONTRACT", "NO_MATCHING_PERMISSION"]),
    ("a provider too many", ask(providers=[OEM, *INSURERS, "did:web:x"]),
     ["PARTY_NOT_IN_CONTRACT", "PROVIDER_MISMATCH"]),
    ("providers repeated in another order", ask(providers=[*INSURERS, OEM, OEM]), []),
    ("a provider too few", ask(providers=list(INSURERS)), ["PROVIDER_MISMATCH", "TOO_FEW_PROVIDERS"]),
    ("300 s old", ask(issuedAt="2027-03-01T09:55:00+08:00"), []),
    ("300 s and a microsecond old", ask(issuedAt="2027-03-01T09:54:59.999999+08:00"), ["REQUEST_STALE"]),
    ("300 s ahead", ask(issuedAt="2027-03-01T10:05:00+08:00"), []),
    ("more than 300 s ahead", ask(issuedAt="2027-03-01T10:05:00.000001+08:00"), ["REQUEST_STALE"]),
    ("nonce seen", node(seenNonces=["n1"]), ["REQUEST_REPLAYED"]),
    ("the same round again", node(lastRound=1), ["ROUND_NOT_MONOTONIC"]),
    # 25-30
    ("purpose unknown", ask(purpose="x"), ["PURPOSE_UNKNOWN", "NO_MATCHING_PERMISSION", "COHORT_TOO_SMALL"]),
    ("purpose wider", ask(purpose="convoy:InsuranceAnalytics"), ["PURPOSE_NOT_COVERED", "COHORT_TOO_SMALL"]),
    ("purpose narrower", ask(purpose="convoy:UBIRiskModelTraining"), []),
    ("action unknown", ask(action="x"), ["UNKNOWN_TERM", "NO_MATCHING_PERMISSION"]),
    ("action wider", ask(action="use"), ["NO_MATCHING_PERMISSION", "PROHIBITION_HIT"]),
    ("action of a sibling", ask(action="convoy:evaluate"), ["NO_MATCHING_PERMISSION"]),
    ("permission of a wider action", permit(action="use"), []),
    ("permission of an unknown action", permit(action="x"), ["NO_MATCHING_PERMISSION"]),
    ("eq narrower than asked", both(permit(where("purpose", "eq", "convoy:RiskModelTraining")),
                                    ask(purpose="convoy:UBIRiskModelTraining")), ["PURPOSE_NOT_COVERED"]),
    ("isA of a list", permit(where("purpose", "isA", ["convoy:Marketing", "convoy:RiskModelTraining"])), []),
    ("isAnyOf one id", permit(where("purpose", "isAnyOf", "convoy:RiskModelTraining")),
     ["UNKNOWN_TERM", "PURPOSE_NOT_COVERED"]),
    ("eq a list", permit(where("purpose", "eq", ["convoy:RiskModelTraining"])),
     ["UNKNOWN_TERM", "PURPOSE_NOT_COVERED"]),
    ("isA nothing", permit(where("purpose", "isA", [])), ["UNKNOWN_TERM", "PURPOSE_NOT_COVERED"]),
    ("isA with one unknown", permit(where("purpose", "isA", ["convoy:RiskModelTraining", "x"])),
     ["UNKNOWN_TERM", "PURPOSE_NOT_COVERED"]),
    ("another operand", permit(where("weather", "eq", "sun")), ["UNKNOWN_TERM", "NO_MATCHING_PERMISSION"]),
    ("an extra member", permit(where("elapsedRounds", "lteq", 9) | {"unit": "x"}),
     ["UNKNOWN_TERM", "NO_MATCHING_PERMISSION"]),
    ("rounds equal", permit(where("elapsedRounds", "lteq", 1)), []),
    ("rounds passed", permit(where("elapsedRounds", "lteq", 0)), ["NO_MATCHING_PERMISSION"]),
    ("rounds true", permit(where("elapsedRounds", "lteq", True)), ["UNKNOWN_TERM", "NO_MATCHING_PERMISSION"]),
    ("rounds text", permit(where("elapsedRounds", "lteq", "9")), ["UNKNOWN_TERM", "NO_MATCHING_PERMISSION"]),
    ("recipients all listed", permit(where("recipient", "isAnyOf", [OEM, *INSURERS])), []),
    ("a recipient not listed", permit(where("recipient", "isAnyOf", [OEM, A, B])), ["NO_MATCHING_PERMISSION"]),
    ("algorithm not in the rule", permit(where("algorithm", "isAnyOf", ["x"])), ["ALGORITHM_NOT_ALLOWED"]),
    ("purpose and algorithm fail: 27 first", permit(where("purpose", "isA", "convoy:Marketing"),
                                                    where("algorithm", "isAnyOf", [])), ["PURPOSE_NOT_COVERED"]),
    ("algorithm not in the contract", ask(algorithm={"id": "x", "digest": DIGEST_0}), ["ALGORITHM_NOT_ALLOWED"]),
    ("rules add up asset by asset", lambda _, d: d.update(permission=[
        d["permission"][0] | {"uid": f"p-{n}", "target": [row["asset"]]} for n, row in enumerate(d["data"])]), []),
    ("halves of two rules do not add up", lambda _, d: d.update(permission=[
        d["permission"][0] | {"uid": "a", "constraint": [where("purpose", "isA", "convoy:Marketing")]},
        d["permission"][0] | {"uid": "b", "constraint": [where("algorithm", "isAnyOf", ["x"])]}]),
     ["NO_MATCHING_PERMISSION"]),
    ("assignee another", permit(assignee=[B]), ["NO_MATCHING_PERMISSION"]),
    ("no permission", agree(permission=[]), ["NO_MATCHING_PERMISSION"]),
    ("an unknown term in a rule that does not apply", lambda _, d: d["permission"].append(
        {"uid": "q", "action": "convoy:price", "target": [DRIVE], "assignee": [A], "constraint": [where("x", "y", 1)]}), []),
    ("prohibition without constraints", forbid(), ["PROHIBITION_HIT"]),
    ("prohibition of a narrower action", forbid(action="convoy:train"), ["PROHIBITION_HIT"]),
    ("prohibition of a sibling action", forbid(action="convoy:price"), []),
    ("prohibition of an unknown action", forbid(action="x"), ["UNKNOWN_TERM", "PROHIBITION_HIT"]),
    ("prohibition of an unknown action elsewhere", forbid(action="x", target=["other"]), []),
    ("prohibition with empty target", forbid(target=[]), ["PROHIBITION_HIT"]),
    ("prohibition on another asset", forbid(target=["other"]), []),
    ("prohibition on one asset", forbid(target=[BOOK, "other"]), ["PROHIBITION_HIT"]),
    ("prohibited purpose narrower", forbid(where("purpose", "eq", "convoy:UBIRiskModelTraining")), ["PROHIBITION_HIT"]),
    ("prohibited purpose wider", forbid(where("purpose", "eq", "convoy:Any")), ["PROHIBITION_HIT"]),
    ("prohibited purpose of a sibling", forbid(where("purpose", "isA", "convoy:ClaimsFraudDetection")), []),
    ("prohibited purpose unknown", forbid(where("purpose", "isA", "x")), ["UNKNOWN_TERM", "PROHIBITION_HIT"]),
    ("one of two prohibited recipients", forbid(where("recipient", "isAnyOf", [B, "x"])), ["PROHIBITION_HIT"]),
    ("no prohibited recipient", forbid(where("recipient", "isAnyOf", ["x"])), []),
    ("prohibited algorithm", forbid(where("algorithm", "isAnyOf", ["risk-towers"])), ["PROHIBITION_HIT"]),
    ("unknown and false", forbid(where("weather", "eq", 1), where("algorithm", "isAnyOf", ["x"])), ["UNKNOWN_TERM"]),
    ("early rounds forbidden", forbid(where("elapsedRounds", "lteq", 1)), ["PROHIBITION_HIT"]),
    # 31-39
    ("asset not scheduled", both(ask(assets=[DRIVE, BOOK, "x"], providers=[OEM, A], fields={"x": ["f"]}),
                                 lambda _, d: d["cohort"].update(minProviders=2)),
     ["NO_MATCHING_PERMISSION", "ASSET_NOT_IN_SCHEDULE", "FIELD_NOT_IN_SCHEDULE", "BUDGET_NOT_DEFINED"]),
    ("owner changed", lambda w, _: w["node"]["catalog"][DRIVE].update(owner=A), ["ASSET_OWNER_CHANGED"]),
    ("field not scheduled", lambda w, _: w["request"]["fields"].update({DRIVE: ["vin"]}), ["FIELD_NOT_IN_SCHEDULE"]),
    ("field left the catalogue", lambda w, _: w["node"]["catalog"][DRIVE].update(fields={}), ["FIELD_NOT_IN_CATALOG"]),
    ("asset left the catalogue", lambda w, _: w["node"]["catalog"].pop(DRIVE), ["FIELD_NOT_IN_CATALOG"]),
    ("grade raised inside the limit", graded("L3"), ["GRADE_RAISED_SINCE_SIGNING"]),
    ("grade raised above the limit", graded("I"), ["GRADE_RAISED_SINCE_SIGNING", "GRADE_EXCEEDS"]),
    ("raised to core", graded("C"), ["GRADE_RAISED_SINCE_SIGNING", "CORE_DATA_NEVER", "GRADE_EXCEEDS"]),
    ("signed grade above the limit, current below", field("harsh_brake", grade="L4"), ["GRADE_EXCEEDS"]),
    ("core agreed and signed", both(field("harsh_brake", grade="C"), graded("C"),
                                    lambda _, d: d["limits"].update(maxGrade="C")), ["CORE_DATA_NEVER"]),
    ("grade raised of a field that is not asked", both(graded("C"), ask(fields={})), []),
    ("precision equal, spelled longer", ask(precision={"harsh_brake": "0.10"}), []),
    ("precision too fine", ask(precision={"harsh_brake": "0.0999"}), ["PRECISION_TOO_FINE"]),
    ("precision of a field that is not asked", ask(precision={"vin": "0"}), []),
    ("sensitive and barred", both(field("harsh_brake", sensitive=True), agree(prohibition=[]), permit(),
                                  ask(purpose="convoy:DirectMarketing"), record(purpose="convoy:Any")),
     ["PURPOSE_BARRED_FOR_SENSITIVE"]),
    ("sensitive and wider than a barred purpose", both(
        field("harsh_brake", sensitive=True), agree(prohibition=[]), permit(), ask(purpose="convoy:Any"),
        record(purpose="convoy:Any")), ["PURPOSE_BARRED_FOR_SENSITIVE"]),
    ("barred, but the sensitive field is not asked", both(
        field("harsh_brake", sensitive=True), agree(prohibition=[]), permit(),
        ask(purpose="convoy:DirectMarketing", fields={}), record(purpose="convoy:Any")), []),
    # 40-46
    ("algorithm digest", ask(algorithm={"id": "risk-towers", "digest": DIGEST_0}), ["ALGORITHM_DIGEST_MISMATCH"]),
    ("an argument unknown", lambda w, _: w["request"]["algorithm"].update(args={"x": 1}), ["ALGORITHM_ARG_UNKNOWN"]),
    ("an argument at its end", both(lambda w, _: w["request"]["algorithm"].update(args={"x": 2}),
                                    lambda _, d: d["algorithms"][0].update(args={"x": [1, 2]})), []),
    ("an argument out of range", both(lambda w, _: w["request"]["algorithm"].update(args={"x": 3}),
                                      lambda _, d: d["algorithms"][0].update(args={"x": [1, 2]})),
     ["ALGORITHM_ARG_OUT_OF_RANGE"]),
    ("output unknown", ask(output="x"), ["OUTPUT_NOT_IN_CONTRACT"]),
    ("recipient not of the output", lambda _, d: d["outputs"][0].update(recipients=[OEM, A, B]),
     ["RECIPIENT_NOT_ALLOWED"]),
    ("recipient in Hong Kong", move(B, "CN-HK"), ["EXPORT_NOT_ASSESSED"]),
    ("recipient in a district of Hong Kong", move(B, "CN-HK-KLN"), ["EXPORT_NOT_ASSESSED"]),
    ("recipient in Macao under processing MO", both(move(B, "CN-MO"), agree(location={"processing": ["CN", "MO"]})), []),
    ("export assessed", exported(), []),
    ("export record over", exported(validUntil=NOW), ["EXPORT_NOT_ASSESSED"]),
    ("export record for another", exported(recipients=[C]), ["EXPORT_NOT_ASSESSED"]),
    ("node in Taiwan", ask(nodeRegions=["CN-SH", "CN-TW-TPE"]), ["REGION_NOT_ALLOWED"]),
    ("node in CN alone", ask(nodeRegions=["CN"]), []),
    # 47-49
    ("exactly enough persons", record(n=30_000), []),
    ("one person too few", record(n=29_999), ["COHORT_TOO_SMALL"]),
    ("given now", record(given=NOW), []),
    ("given later", record(given=AFTER), ["COHORT_TOO_SMALL"]),
    ("never given", record(given=None), ["COHORT_TOO_SMALL"]),
    ("withdrawn now", record(withdrawn=NOW), ["COHORT_TOO_SMALL"]),
    ("withdrawn later", record(withdrawn=AFTER), []),
    ("over now", record(until=NOW), ["COHORT_TOO_SMALL"]),
    ("open-ended", record(until=None), []),
    ("open-ended and sensitive", both(field("harsh_brake", sensitive=True), record(until=None)), ["COHORT_TOO_SMALL"]),
    ("not separate", record(separate=False), []),
    ("not separate and sensitive", both(field("harsh_brake", sensitive=True), record(separate=False)),
     ["COHORT_TOO_SMALL"]),
    ("another notice", record(notice="drive@2"), ["COHORT_TOO_SMALL"]),
    ("consent to a wider purpose", record(purpose="convoy:Any"), []),
    ("consent to a narrower purpose", record(purpose="convoy:UBIRiskModelTraining"), ["COHORT_TOO_SMALL"]),
    ("a recipient not named", record(recipients=[OEM, A, B]), ["COHORT_TOO_SMALL"]),
    ("the same person twice is one", both(
        lambda w, _: w["node"]["consent"].update(subjects=[
            w["node"]["consent"]["subjects"][0] | {"n": 1, "person": "p"}] * 2),
        lambda _, d: d["cohort"].update(minSubjects=2)), ["COHORT_TOO_SMALL"]),
    ("two records without person are two", both(
        lambda w, _: w["node"]["consent"].update(subjects=[w["node"]["consent"]["subjects"][0] | {"n": 1}] * 2),
        lambda _, d: d["cohort"].update(minSubjects=2)), []),
    ("age 14", record(age=14), []),
    ("enough providers", lambda _, d: d["cohort"].update(minProviders=4), []),
    ("too few providers", lambda _, d: d["cohort"].update(minProviders=5), ["TOO_FEW_PROVIDERS"]),
    # 50-57
    ("no budget", lambda _, d: d["privacy"].pop(DRIVE), ["BUDGET_NOT_DEFINED"]),
    ("epsilon not stated", lambda w, _: w["request"]["epsilonMicro"].pop(DRIVE), ["BUDGET_NOT_STATED"]),
    ("epsilon zero", lambda w, _: w["request"]["epsilonMicro"].update({DRIVE: 0}), ["BUDGET_NOT_STATED"]),
    ("delta zero", lambda w, _: w["request"]["deltaNano"].update({DRIVE: 0}), []),
    ("delta negative", lambda w, _: w["request"]["deltaNano"].update({DRIVE: -1}), ["BUDGET_NOT_STATED"]),
    ("entries of other assets", lambda w, _: w["request"]["epsilonMicro"].update(x=2**52), []),
    ("one micro too much for a round", lambda w, _: w["request"]["epsilonMicro"].update({DRIVE: 4_000_001}),
     ["BUDGET_PER_ROUND"]),
    ("exactly the total", node(budget={DRIVE: {"spent": 1_000_000, "reserved": 1_000_000, "deltaSpent": 0,
                                               "deltaReserved": 0}}), []),
    ("one micro above the total", node(budget={DRIVE: {"spent": 1_000_000, "reserved": 1_000_001, "deltaSpent": 0,
                                                       "deltaReserved": 0}}), ["BUDGET_EXHAUSTED"]),
    ("no cap over all contracts is a cap of 0", lambda w, _: w["node"]["assetCapMicro"].pop(DRIVE), ["BUDGET_EXHAUSTED"]),
    ("cap over all contracts is lower", lambda w, _: w["node"]["assetCapMicro"].update({DRIVE: 3_999_999}),
     ["BUDGET_EXHAUSTED"]),
    ("exactly the delta", node(budget={DRIVE: {"spent": 0, "reserved": 0, "deltaSpent": 900, "deltaReserved": 100}}), []),
    ("one nano above", node(budget={DRIVE: {"spent": 0, "reserved": 0, "deltaSpent": 901, "deltaReserved": 100}}),
     ["DELTA_EXHAUSTED"]),
    ("assessment over", lambda _, d: d["parties"][2].update(pia=PIA_GONE), ["PIA_EXPIRED"]),
    ("assessment of no controller over", lambda _, d: d["parties"][2].update(pia=PIA_GONE, roles=[]), ["PIA_EXPIRED"]),
    ("no assessment", lambda _, d: d["parties"][2].pop("pia"), ["PIA_MISSING"]),
    ("duty overdue now", lambda w, _: w.update(duties=[{"id": "d", "bearer": A, "due": NOW, "blocking": True}]),
     ["DUTY_OVERDUE"]),
    ("duty due later", lambda w, _: w.update(duties=[{"id": "d", "bearer": A, "due": AFTER, "blocking": True}]), []),
    ("duty fulfilled", lambda w, _: w.update(
        duties=[{"id": "d", "bearer": A, "due": NOW, "blocking": True, "fulfilled": True}]), []),
    ("duty that does not block", lambda w, _: w.update(
        duties=[{"id": "d", "bearer": A, "due": NOW, "blocking": False}]), []),
]  # fmt: skip

FINISH = both(event("supersede", "*", version=1, inFlight="finish", at=NOW))
RELEASES: list[tuple[str, Change | None, str, list[str]]] = [
    ("authorised before", None, BEFORE, []),
    ("authorised now", None, NOW, []),
    ("authorised later", None, AFTER, ["ROUND_NOT_AUTHORISED"]),
    ("another request", late(lambda w: w["request"].update(output="x")), BEFORE,
     ["ROUND_NOT_AUTHORISED", "OUTPUT_NOT_IN_CONTRACT"]),
    ("another nonce and time is the same request", late(lambda w: w["request"].update(
        nonce="n2", issuedAt="2027-03-01T10:01:00+08:00")), BEFORE, []),
    ("an unknown member is part of the scope", late(lambda w: w["request"].update(x=1)), BEFORE,
     ["ROUND_NOT_AUTHORISED"]),
    ("another round is authorised", late(lambda w: w["node"].update(authorised={
        "2": w["node"]["authorised"]["1"]})), BEFORE, ["ROUND_NOT_AUTHORISED"]),
    ("the last round is this one", node(lastRound=1), BEFORE, []),
    ("persons are not counted again", record(n=1), BEFORE, []),
    ("providers are not counted again", lambda _, d: d["cohort"].update(minProviders=9), BEFORE, []),
    ("spending is not judged again", node(assetCapMicro={}), BEFORE, []),
    ("but a budget must be stated", lambda w, _: w["request"]["epsilonMicro"].clear(), BEFORE, ["BUDGET_NOT_STATED"]),
    ("superseded, may finish", FINISH, BEFORE, []),
    ("superseded when authorised", FINISH, NOW, ["CONTRACT_SUPERSEDED"]),
    ("superseded, abort", event("supersede", "*", version=1, inFlight="abort"), BEFORE, ["CONTRACT_SUPERSEDED"]),
    ("superseded, the last event counts", both(FINISH, event("supersede", "*", seq=2, version=1, inFlight="abort")),
     BEFORE, ["CONTRACT_SUPERSEDED"]),
    ("superseded, not authorised", FINISH, AFTER, ["CONTRACT_SUPERSEDED", "ROUND_NOT_AUTHORISED"]),
    ("superseded, the round is too old", FINISH, "2027-03-01T09:00:00+08:00", ["CONTRACT_SUPERSEDED"]),
    ("superseded, a microsecond younger", FINISH, "2027-03-01T09:00:00.000001+08:00", []),
    ("suspended in between", event("suspend", A, party=A), BEFORE, ["PARTY_SUSPENDED"]),
    ("compromised in between", key(**COMPROMISED), BEFORE, ["KEY_COMPROMISED"]),
    ("withdrawn since", record(withdrawn=NOW), BEFORE, ["WITHDRAWAL_SINCE_AUTHORISATION"]),
    ("withdrawn at the instant of authorisation", record(withdrawn=BEFORE), BEFORE, []),
    ("withdrawn later", record(withdrawn=AFTER), BEFORE, []),
    ("a record that never counted withdrew", record(withdrawn=NOW, notice="other"), BEFORE,
     ["WITHDRAWAL_SINCE_AUTHORISATION"]),
    ("withdrawn since, next round", both(record(withdrawn=NOW), agree(withdrawal={"effective": "next-round"})), BEFORE, []),
]  # fmt: skip


@pytest.mark.parametrize(("change", "reasons"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_an_authorise_decision_has_exactly_these_reasons(change: Change | None, reasons: list[str]) -> None:
    """One sentence of the format a row."""
    assert decided(change)[0] == reasons


@pytest.mark.parametrize(("change", "at", "reasons"), [row[1:] for row in RELEASES], ids=[row[0] for row in RELEASES])
def test_a_release_decision_has_exactly_these_reasons(change: Change | None, at: str, reasons: list[str]) -> None:
    """The second decision of a round: state again, cohort and spending not."""
    assert decided(change, phase="release", authorised_at=at)[0] == reasons


def test_every_code_is_reached() -> None:
    """The two tables hold all 57 codes."""
    reached = {code for row in (*ROWS, *RELEASES) for code in row[-1]}
    assert set(REASONS) - reached == set()


@pytest.mark.parametrize(
    ("change", "phase", "obligations"),
    [
        (None, "authorise", set()),
        (graded("L1"), "authorise", {"note:downgrade-ignored:harsh_brake"}),
        (both(graded("L1"), node(clockOk=False)), "release", {"note:downgrade-ignored:harsh_brake"}),
        (FINISH, "release", {"record:finished-under-v1"}),
        (record(age=13), "authorise", {"exclude:minors-without-guardian"}),
        (record(age=13, guardian=True), "authorise", set()),
        (record(age=13, separate=False), "release", set()),
        (record(age=13, notice="x"), "authorise", set()),
        (record(n=100_000), "authorise", set()),
        (record(n=100_001), "authorise", {"escalate:important-data-threshold"}),
        (record(n=100_001), "release", set()),
        (record(n=100_001, age=13), "authorise", {"exclude:minors-without-guardian"}),
        (both(record(n=100_001), ask(round=0)), "authorise", set()),
    ],
)
def test_obligations_are_collected_whatever_the_outcome(
    change: Change | None, phase: str, obligations: set[str]
) -> None:
    """Except if the decision stopped at codes 1-3."""
    assert decided(change, phase=phase)[1] == obligations


def test_a_decision_changes_nothing_in_its_world() -> None:
    """Pure: the world is the same afterwards, and the same world is decided the same."""
    world = example_world()
    kept = copy.deepcopy(world)
    assert decide(world) == decide(world)
    assert world == kept


def test_two_candidates_of_two_parties_give_their_codes_in_order() -> None:
    """Reasons are ordered by number, not by party."""

    def change(world: Json, _: Json) -> None:
        later(world, lambda made: made["signatures"][0].update(jws="x"))
        later(world, lambda made: made["signatures"].pop(3))

    assert decided(change)[0] == ["SIGNATURE_MISSING", "SIGNATURE_INVALID"]


def test_the_digest_is_over_canonical_bytes() -> None:
    """Another spacing is the same contract, another character another one."""
    document = json.loads(example_world()["contract_text"])
    assert digest(document) == digest(json.loads(json.dumps(document, indent=3)))
    assert canonical_bytes({"b": 1, "a": 2}) == b'{"a":2,"b":1}'
