"""The life cycle agrees with the decision engine, and a version that only narrows never allows what the old one did not."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convoy_contracts.amendments import classify
from convoy_contracts.decide import decide
from convoy_contracts.document import Contract
from convoy_contracts.instants import instant
from convoy_contracts.lifecycle import AGREED, Signed, State, state, terms
from convoy_contracts.testing import INSURERS, OEM, SIGNED_AT, example_document, example_world, signed_world
from convoy_contracts.vocabulary import ACTIONS, GRADES, PURPOSES

EXAMPLES = int(os.environ.get("CONVOY_EXAMPLES", "300"))
lasting = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
PARTIES = [OEM, *INSURERS]
IN_FORCE = {
    "SIGNATURE_MISSING", "TERM_NOT_STARTED", "TERM_ENDED", "CONTRACT_TERMINATED", "CONTRACT_SUPERSEDED", "CONTRACT_SUSPENDED",
}  # fmt: skip
INSTANTS = [
    "2026-11-30T15:59:59Z",
    "2026-12-01T00:00:00+08:00",
    "2027-03-01T10:00:00+08:00",
    "2027-12-01T00:00:00+08:00",
]
Json = dict[str, Any]


@st.composite
def events(draw: Any, uid: str) -> list[Json]:
    """A few events of the contract, well and badly formed, in any order of time."""
    made = []
    for seq in range(1, draw(st.integers(0, 5)) + 1):
        event: Json = {
            "uid": draw(st.sampled_from([uid, uid, "urn:other"])),
            "seq": seq,
            "type": draw(st.sampled_from(["suspend", "resume", "terminate", "supersede"])),
            "by": draw(st.sampled_from([*PARTIES, "*", "did:web:stranger"])),
            "at": draw(st.sampled_from(INSTANTS)),
        }
        for name, values in (
            ("party", [*PARTIES, "*"]),
            ("reasonClass", ["incident", "legal", "mood"]),
            ("version", [1, 2]),
            ("inFlight", ["finish", "abort", "maybe"]),
        ):
            if draw(st.booleans()):
                event[name] = draw(st.sampled_from(values))
        made.append(event)
    return made


@lasting
@given(data=st.data())
def test_a_version_is_in_force_exactly_where_the_engine_says_so(data: st.DataObject) -> None:
    """State and gates 6, 13-17 read the same events, signatures and clock; they may never disagree."""
    document = example_document()
    world = example_world()
    world["now"] = world["request"]["issuedAt"] = data.draw(st.sampled_from(INSTANTS))
    world["events"] = data.draw(events(document["uid"]))
    unsigned = data.draw(st.lists(st.sampled_from(PARTIES), max_size=2))
    made = signed_world(document, world, unsigned=unsigned)
    contract = Contract.parse(json.dumps(document))
    signed_at = instant(SIGNED_AT)
    now = instant(world["now"])
    assert signed_at is not None
    assert now is not None
    signatures = [Signed(party, signed_at) for party in PARTIES if party not in unsigned]
    standing = state(terms(contract), signatures, world["events"], now)
    reasons = set(decide(made).reasons) & IN_FORCE
    assert (standing.state is State.ACTIVE) == (not reasons), (standing, reasons)
    assert ("CONTRACT_TERMINATED" in reasons) == (standing.state is State.TERMINATED)
    if standing.state in AGREED:
        assert ("CONTRACT_SUSPENDED" in reasons) == ("*" in standing.suspended)
    own = decide(made).reasons
    if standing.state is State.ACTIVE:
        assert ("PARTY_SUSPENDED" in own) == bool(standing.suspended)  # every party takes part in this round


# Amendments --------------------------------------------------------------------------------------------------------------


def change(document: Json, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Change one member, for better or worse."""
    row = draw(st.sampled_from(document["data"]))
    asset = row["asset"]
    rule = draw(st.sampled_from([*document["permission"], *document["prohibition"]]))
    party = draw(st.sampled_from(document["parties"]))
    match draw(st.integers(0, 17)):
        case 0:
            document["limits"]["maxGrade"] = draw(st.sampled_from(GRADES))
        case 1:
            document["limits"]["maxRoundSeconds"] = draw(st.sampled_from([60, 3600, 7200]))
        case 2:
            document["cohort"]["minSubjects"] = draw(st.sampled_from([0, 30_000, 41_000, 41_001]))
        case 3:
            document["cohort"]["minProviders"] = draw(st.integers(0, 5))
        case 4:
            name = draw(st.sampled_from(["perRoundMicro", "totalMicro", "deltaNano"]))
            document["privacy"][asset][name] = draw(st.sampled_from([0, 3_999_999, 4_000_000, 9_000_000]))
        case 5:
            document["withdrawal"]["effective"] = draw(st.sampled_from(["immediate", "next-round"]))
        case 6:
            document["term"]["notAfter"] = draw(
                st.sampled_from(["2027-03-01T10:00:00.000001+08:00", "2029-01-01T00:00:00Z"])
            )
        case 7:
            document["term"]["notBefore"] = draw(st.sampled_from(["2025-03-01T00:00:00Z", "2027-03-01T10:00:00+08:00"]))
        case 8:
            recipients = document["outputs"][0]["recipients"]
            document["outputs"][0]["recipients"] = draw(
                st.lists(st.sampled_from([*recipients, "did:web:x"]), min_size=1)
            )
        case 9:
            document["location"]["processing"] = draw(st.sampled_from([["CN"], ["CN", "HK"], ["HK"]]))
        case 10:
            document["consent"]["notices"] = draw(st.sampled_from([["drive@1"], ["drive@1", "drive@2"], ["drive@2"]]))
        case 11:
            item = draw(st.sampled_from(row["fields"]))
            item[draw(st.sampled_from(["step"]))] = draw(st.sampled_from(["0.01", "0.1", "1", "1.0"]))
        case 12:
            draw(st.sampled_from(row["fields"]))["sensitive"] = draw(st.booleans())
        case 13:
            draw(st.sampled_from(row["fields"]))["grade"] = draw(st.sampled_from(GRADES))
        case 14:
            rule["action"] = draw(st.sampled_from([*ACTIONS, "convoy:dance"]))
        case 15:
            terms_of = st.lists(st.sampled_from([*PURPOSES, "convoy:Nonsense"]), min_size=1, max_size=2)
            constraint = {"leftOperand": "purpose", "operator": "isA", "rightOperand": draw(terms_of)}
            rule["constraint"] = draw(st.sampled_from([[], [constraint], [*rule.get("constraint", []), constraint]]))
        case 16:
            is_added = any(rule["uid"] == "added" for rule in document["prohibition"])  # an id stands once
            if draw(st.booleans()) and not is_added:
                document["prohibition"].append({"uid": "added", "action": draw(st.sampled_from(list(ACTIONS)))})
            elif document["prohibition"]:
                document["prohibition"].pop()
        case _:
            party["region"] = draw(st.sampled_from(["CN-SH", "CN-HK", "DE-BY"]))


@lasting
@given(data=st.data())
def test_a_version_without_widening_allows_nothing_new(data: st.DataObject) -> None:
    """What ``diff`` calls narrowing or neutral: allowed under the new version means allowed under the old one."""
    old = example_document()
    for _ in range(data.draw(st.integers(0, 2))):
        change(old, data.draw)
    new = copy.deepcopy(old) | {"version": 2}
    for _ in range(data.draw(st.integers(1, 2))):
        change(new, data.draw)
    world = example_world()
    purpose = data.draw(st.sampled_from(["convoy:RiskModelTraining", "convoy:UBIRiskModelTraining"]))
    world["request"]["purpose"] = purpose
    world["request"]["precision"] = {"harsh_brake": data.draw(st.sampled_from(["0.05", "0.1", "1"]))}
    amendment = classify(Contract.parse(json.dumps(old)), Contract.parse(json.dumps(new)))
    if not amendment.needs_consent and decide(signed_world(new, world)).allow:
        assert decide(signed_world(old, world)).allow, amendment
