"""The life cycle as a table: who may do what in which state, every refusal with its reason, and what a node believes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convoy_contracts.decide.world import read_keys
from convoy_contracts.document import Contract
from convoy_contracts.errors import DocumentMalformed, EventRefused, SignatureRefused
from convoy_contracts.events import (
    ALL,
    ContractEvent,
    admitted,
    chain_fault,
    event_faults,
    genesis,
    is_proved,
    make_event,
    sign_event,
)
from convoy_contracts.instants import MICROSECONDS, instant
from convoy_contracts.lifecycle import (
    AGREED,
    FINAL,
    OPEN,
    TABLE,
    Signed,
    State,
    Version,
    judge,
    may_sign,
    state,
    terms,
)
from convoy_contracts.problems import PROBLEMS
from convoy_contracts.testing import INSURERS, OEM, example_document, key_entry, key_of

PARTIES = [OEM, *INSURERS]
DOCUMENT = example_document()
UID = DOCUMENT["uid"]
NOW = "2027-03-01T10:00:00+08:00"
HEAD = genesis(UID)
KEYS = read_keys({"keys": {f"{party}#1": key_entry(party) for party in PARTIES}})


def at(text: str) -> int:
    """An instant in microseconds."""
    found = instant(text)
    assert found is not None
    return found


def version(number: int = 1, *, signed: int = 4, events: tuple[dict[str, Any], ...] = (), now: str = NOW) -> Version:
    """A version of the example that the first ``signed`` parties have signed."""
    contract = Contract.parse(json.dumps(DOCUMENT | {"version": number}))
    have = [Signed(party, at("2026-11-20T00:00:00Z")) for party in PARTIES[:signed]]
    of = terms(contract)
    return Version(of, state(of, have, list(events), at(now)))


def event(
    kind: str, by: str = OEM, *, seq: int = 1, prev: str = HEAD, when: str = NOW, **members: Any
) -> ContractEvent:
    """An event of the example's chain."""
    return make_event(uid=UID, seq=seq, prev=prev, kind=kind, by=by, at=when, **members)


def reason_of(found: ContractEvent, *versions: Version, now: str = NOW) -> str:
    """The reason for which an event is refused, or ``accepted``."""
    try:
        judge(found, versions, head=HEAD, next_seq=1, now=at(now))
    except EventRefused as error:
        return error.reason if error.cause and error.fix else "told without cause or fix"
    return "accepted"


OFFERED, LIVE, NEXT = version(signed=2, now="2026-11-25T00:00:00Z"), version(), version(2)
STOPPED = version(events=({"uid": UID, "seq": 1, "type": "suspend", "by": OEM, "party": OEM, "at": NOW},))
OVER = version(events=({"uid": UID, "seq": 1, "type": "terminate", "by": OEM, "at": NOW},))
ROWS: list[tuple[str, ContractEvent, tuple[Version, ...], str]] = [
    ("no such contract", event("terminate"), (), "CONTRACT_UNKNOWN"),
    ("no such version", event("refuse", version=7), (OFFERED,), "VERSION_UNKNOWN"),
    ("a stranger", event("terminate", "did:web:stranger"), (LIVE,), "NOT_A_PARTY"),
    ("a stranger is stopped", event("suspend", party="did:web:stranger"), (LIVE,), "NOT_A_PARTY"),
    ("another party is stopped", event("suspend", party=INSURERS[0]), (LIVE,), "ACTOR_WRONG"),
    ("one resumes all", event("resume", party=ALL), (LIVE,), "ACTOR_WRONG"),
    ("one replaces", event("supersede", version=1, inFlight="abort"), (LIVE, NEXT), "ACTOR_WRONG"),
    ("withdrawn by another", event("withdraw-offer", INSURERS[0], version=1), (OFFERED,), "ACTOR_WRONG"),
    ("terminated before it is agreed", event("terminate"), (OFFERED,), "STATE_WRONG"),
    ("refused when it is in force", event("refuse", version=1), (LIVE,), "STATE_WRONG"),
    ("anything after the end", event("suspend", party=OEM), (OVER,), "STATE_WRONG"),
    ("stopped twice", event("suspend", party=OEM), (STOPPED,), "ALREADY_SUSPENDED"),
    ("resumed without a stop", event("resume", party=OEM), (LIVE,), "NOT_SUSPENDED"),
    ("replaced by nothing", event("supersede", ALL, version=1, inFlight="abort"), (LIVE,), "SUCCESSOR_NOT_SIGNED"),
    (
        "replaced by an offer",
        event("supersede", ALL, version=1, inFlight="abort"),
        (LIVE, version(2, signed=3)),
        "SUCCESSOR_NOT_SIGNED",
    ),
    ("dated back", event("terminate", when="2027-03-01T09:54:59+08:00"), (LIVE,), "EVENT_BACKDATED"),
    ("out of the chain", event("terminate", seq=2), (LIVE,), "CHAIN_MOVED"),
    ("after another head", event("terminate", prev="sha256:" + "0" * 64), (LIVE,), "CHAIN_MOVED"),
    ("a party stops itself", event("suspend", party=OEM), (LIVE,), "accepted"),
    ("and resumes", event("resume", party=OEM), (STOPPED,), "accepted"),
    ("any party stops all", event("suspend", INSURERS[1], party=ALL, reasonClass="incident"), (LIVE,), "accepted"),
    ("any party ends it", event("terminate", INSURERS[2]), (LIVE,), "accepted"),
    ("all replace it", event("supersede", ALL, version=1, inFlight="finish"), (LIVE, NEXT), "accepted"),
    ("any party refuses an offer", event("refuse", INSURERS[0], version=1), (OFFERED,), "accepted"),
    ("the author withdraws it", event("withdraw-offer", version=1), (OFFERED,), "accepted"),
    ("dated 300 s back", event("terminate", when="2027-03-01T09:55:00+08:00"), (LIVE,), "accepted"),
    ("dated ahead", event("terminate", when="2027-06-01T00:00:00Z"), (LIVE,), "accepted"),
]


@pytest.mark.parametrize(("found", "versions", "reason"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_an_event_is_accepted_or_refused_with_its_reason(
    found: ContractEvent, versions: tuple[Version, ...], reason: str
) -> None:
    """Each row is one cell of the table or one wrong order."""
    assert reason_of(found, *versions) == reason


def test_every_refusal_of_the_life_cycle_has_a_page() -> None:
    """And every reason is reached above."""
    reasons = {row[-1] for row in ROWS} - {"accepted"}
    assert len(reasons) == 10
    assert reasons <= set(PROBLEMS)


def test_states_are_open_agreed_or_final() -> None:
    """Nothing leaves a final state: no act of the table starts there."""
    assert OPEN | AGREED | FINAL | {State.DRAFT} == set(State)
    assert not any(row.states & FINAL for row in TABLE)


def test_only_parties_sign_and_only_what_can_still_be_signed() -> None:
    """Who has signed an agreed contract may sign again, with a new key."""
    may_sign(OFFERED.terms, OFFERED.standing, INSURERS[2])
    may_sign(LIVE.terms, LIVE.standing, OEM)
    for found, party, reason in ((OFFERED, "did:web:x", "NOT_A_PARTY"), (OVER, OEM, "STATE_WRONG")):
        with pytest.raises(EventRefused) as caught:
            may_sign(found.terms, found.standing, party)
        assert caught.value.reason == reason


CLOCK = [
    ("2026-11-29T15:59:59Z", 3, State.PARTLY_SIGNED),
    ("2026-11-29T16:00:00Z", 3, State.LAPSED),
    ("2026-11-30T15:59:59.999999Z", 4, State.SIGNED),
    ("2026-11-30T16:00:00Z", 4, State.ACTIVE),
    ("2027-11-30T15:59:59.999999Z", 4, State.ACTIVE),
    ("2027-11-30T16:00:00Z", 4, State.EXPIRED),
]


@pytest.mark.parametrize(("now", "signed", "expected"), CLOCK)
def test_the_clock_moves_a_version_at_the_very_instant(now: str, signed: int, expected: State) -> None:
    """Offers and terms are half-open, to the microsecond."""
    assert version(signed=signed, now=now).standing.state is expected


def test_a_signature_counts_from_its_instant_on() -> None:
    """A past instant keeps its answer when more is signed later."""
    of = terms(Contract.parse(json.dumps(DOCUMENT)))
    signed = [Signed(party, at("2026-11-25T00:00:00Z") + n * MICROSECONDS) for n, party in enumerate(PARTIES)]
    seen = [state(of, signed, [], at("2026-11-24T23:59:59Z") + n * MICROSECONDS) for n in range(6)]
    assert [len(one.signed) for one in seen] == [0, 1, 2, 3, 4, 4]
    assert [one.state for one in seen[:2]] == [State.OFFERED, State.PARTLY_SIGNED]


# Events as signed values -----------------------------------------------------------------------------------------------


def shown(found: ContractEvent, *signers: str) -> dict[str, Any]:
    """An event as the coordinator hands it over."""
    proofs = [sign_event(found, party=p, kid=f"{p}#1", private_key=key_of(p)) for p in signers]
    return dict(found.value) | {"proof": proofs}


def test_a_chain_cannot_lose_change_or_reorder_an_event() -> None:
    """Sequence and links are checked from the first event on."""
    first = event("suspend", party=OEM)
    second = event("resume", seq=2, prev=first.id, party=OEM)
    chain = [shown(first, OEM), shown(second, OEM)]
    assert chain_fault(UID, chain) is None
    assert chain_fault(UID, chain[1:]) is not None
    assert chain_fault(UID, chain[::-1]) is not None
    assert chain_fault("urn:other", chain) is not None
    assert chain_fault(UID, [chain[0] | {"at": "2027-03-01T10:00:01+08:00"}, chain[1]]) is not None
    assert chain_fault(UID, [{"type": "dance"}]) is not None


def test_what_loosens_counts_only_with_every_proof_and_what_tightens_as_it_is() -> None:
    """A coordinator cannot make a node go on; it can only make it stop, which it could anyway."""
    resume, stop = event("resume", party=OEM), event("suspend", party=OEM)
    finish = event("supersede", ALL, version=1, inFlight="finish")
    abort = event("supersede", ALL, version=1, inFlight="abort")
    raw = [dict(stop.value), dict(abort.value), dict(resume.value), shown(resume, OEM), shown(finish, *PARTIES[:3]),
           shown(finish, *PARTIES), shown(event("refuse", version=1), OEM), "junk", {"type": "resume", "proof": "x"}]  # fmt: skip
    kinds = [(found["type"], found.get("inFlight")) for found in admitted(raw, PARTIES, KEYS)]
    assert kinds == [("suspend", None), ("supersede", "abort"), ("resume", None), ("supersede", "finish")]
    assert not is_proved(shown(finish, *PARTIES[:3]), PARTIES, KEYS)


def test_a_proof_of_somebody_who_does_not_act_is_a_fault() -> None:
    """And nobody can sign what is another's."""
    found = event("suspend", party=OEM)
    with pytest.raises(SignatureRefused):
        sign_event(found, party=INSURERS[0], kid="k", private_key=key_of(INSURERS[0]))
    good = sign_event(found, party=OEM, kid=f"{OEM}#1", private_key=key_of(OEM))
    assert event_faults(found, [good], KEYS) == {}
    assert event_faults(found, [good | {"party": INSURERS[0]}], KEYS) == {INSURERS[0]: "SIGNATURE_KEY_NOT_OF_PARTY"}
    assert event_faults(found, [good | {"kid": f"{INSURERS[0]}#1"}], KEYS) == {OEM: "SIGNATURE_KEY_NOT_OF_PARTY"}
    assert event_faults(found, [good | {"jws": "x"}], KEYS) == {OEM: "SIGNATURE_INVALID"}
    assert event_faults(found, ["x"], KEYS) == {"": "SIGNATURE_INVALID"}
    late = event("suspend", party=OEM, when="2199-01-01T00:00:00Z")
    proof = sign_event(late, party=OEM, kid=f"{OEM}#1", private_key=key_of(OEM))
    assert event_faults(late, [proof], KEYS) == {OEM: "CERT_NOT_VALID_AT_SIGNING"}


@pytest.mark.parametrize(
    "members",
    [{"party": ALL}, {"party": ALL, "reasonClass": "mood"}, {"party": ""}, {"party": OEM, "version": 1}, {}],
)
def test_a_stop_that_does_not_fit_its_form_is_refused(members: dict[str, Any]) -> None:
    """The whole contract stops for an incident or a legal reason only; members are closed."""
    with pytest.raises(DocumentMalformed) as caught:
        event("suspend", **members)
    assert caught.value.problems
