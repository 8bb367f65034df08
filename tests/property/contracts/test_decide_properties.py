"""Random worlds: a decision is total, and tightening never turns a refusal into an allow.

The worlds are the worked examples of the format (where ``CONVOY_SHARED`` has them) and the package's own example, mutated and
signed again with testing keys. ``CONVOY_EXAMPLES=10000`` decides that many pairs of a world and its tightened form.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convoy_contracts.decide import REASONS, Decision, decide
from convoy_contracts.testing import example_world, signed_world

EXAMPLES = int(os.environ.get("CONVOY_EXAMPLES", "540"))
SHARED = Path(os.environ.get("CONVOY_SHARED", Path(__file__).resolve().parents[4] / "shared"))
CASES = sorted((SHARED / "contract-cases" / "public").glob("*.json"))
WORLDS = [example_world(), *(json.loads(path.read_text(encoding="utf-8"))["world"] for path in CASES)]
READABLE = [w for w in WORLDS if not {"DOCUMENT_MALFORMED", "INPUT_MALFORMED"} & set(decide(w).reasons)]
ALLOWED = [w for w in READABLE if decide(w).allow]

Draw = Callable[[st.SearchStrategy[Any]], Any]
PAIR = tuple[dict[str, Any], dict[str, Any]]  # a world and its contract document
PURPOSES = st.sampled_from([*WORLDS[0]["vocabulary"]["purposes"], "convoy:Nonsense"])
ACTIONS = st.sampled_from([*WORLDS[0]["vocabulary"]["actions"], "convoy:nonsense"])
GRADES = st.sampled_from(WORLDS[0]["vocabulary"]["grades"])
INSTANTS = st.sampled_from(
    ["2026-11-30T15:59:59.999999Z", "2026-12-01T00:00:00+08:00", "2027-02-28T23:59:00Z", "2027-03-01T09:50:00+08:00",
     "2027-03-01T10:00:00+08:00", "2027-03-01T10:00:00.000001+08:00", "2027-12-01T00:00:00+08:00"]
)  # fmt: skip
AMOUNTS = st.sampled_from([0, 1, 99_999, 100_000, 200_001, 1_000_000, 2_900_000, 2_900_001, 6_000_000, 2**53 - 1])


def parties_of(document: dict[str, Any]) -> list[str]:
    """Party ids of a document."""
    return [party["id"] for party in document["parties"]]


def constraints(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Known and unknown constraints."""
    right = st.one_of(
        PURPOSES, st.lists(PURPOSES, max_size=3), st.integers(-1, 60),
        st.lists(st.sampled_from([*parties_of(document), "fed-glm", "risk-towers"]), max_size=3),
    )  # fmt: skip
    return st.fixed_dictionaries(
        {
            "leftOperand": st.sampled_from(["purpose", "algorithm", "recipient", "elapsedRounds", "weather"]),
            "operator": st.sampled_from(["eq", "isA", "isAnyOf", "lteq", "gt"]),
            "rightOperand": right,
        }
    )


# Mutations: any change, for better or worse ----------------------------------------------------------------------------


def shift_now(pair: PAIR, draw: Draw) -> None:
    pair[0]["now"] = draw(INSTANTS)


def change_request(pair: PAIR, draw: Draw) -> None:
    world, document = pair
    request = world["request"]
    match draw(st.integers(0, 9)):
        case 0:
            request["purpose"] = draw(PURPOSES)
        case 1:
            request["action"] = draw(ACTIONS)
        case 2:
            request["requester"] = draw(st.sampled_from([*parties_of(document), "did:web:stranger"]))
        case 3:
            request["recipients"] = draw(st.lists(st.sampled_from([*parties_of(document), "did:web:x"]), min_size=1))
        case 4:
            request["providers"] = draw(st.lists(st.sampled_from(parties_of(document)), min_size=1))
        case 5:
            request["round"] = draw(st.integers(1, 60))
        case 6:
            for asset in request["assets"]:
                request["epsilonMicro"][asset] = draw(AMOUNTS)
        case 7:
            for row in document["data"]:
                if row["asset"] in request["assets"]:
                    names = [item["name"] for item in row["fields"]]
                    request["fields"][row["asset"]] = draw(st.lists(st.sampled_from([*names, "vin"])))
        case 8:
            kept = draw(st.sets(st.sampled_from(request["assets"]), min_size=1))
            request["assets"] = sorted(kept)
            request["fields"] = {a: f for a, f in request["fields"].items() if a in kept}
        case _:
            request["precision"] = {"night_share": draw(st.sampled_from(["0.01", "0.009", "0.010", "1"]))}


def change_consent(pair: PAIR, draw: Draw) -> None:
    subjects = pair[0]["node"]["consent"]["subjects"]
    record = copy.deepcopy(draw(st.sampled_from(subjects))) if subjects else {}
    record["n"] = draw(st.sampled_from([1, 499, 500, 100_001]))
    record.pop("person", None)
    record["age"] = draw(st.sampled_from([13, 14, 40]))
    record["until"] = draw(st.one_of(st.none(), INSTANTS))
    record["withdrawn"] = draw(st.one_of(st.none(), INSTANTS))
    if len(record) > 5:
        subjects.append(record)


def change_grade(pair: PAIR, draw: Draw) -> None:
    world, document = pair
    for row in document["data"]:
        for item in row["fields"]:
            if draw(st.booleans()):
                item["grade"] = draw(GRADES)
            entry = world["node"]["catalog"].get(row["asset"])
            if entry and item["name"] in entry["fields"] and draw(st.booleans()):
                entry["fields"][item["name"]]["grade"] = draw(GRADES)


def change_rules(pair: PAIR, draw: Draw) -> None:
    document = pair[1]
    rule = draw(st.sampled_from([*document["permission"], *document["prohibition"]]))
    rule["constraint"] = draw(st.lists(constraints(document), max_size=2))


def change_limits(pair: PAIR, draw: Draw) -> None:
    document = pair[1]
    document["limits"]["maxGrade"] = draw(GRADES)
    document["cohort"]["minSubjects"] = draw(st.sampled_from([0, 500, 801, 100_000]))
    for agreed in document["privacy"].values():
        agreed["totalMicro"] = draw(AMOUNTS)


def change_budget(pair: PAIR, draw: Draw) -> None:
    world = pair[0]
    for asset in world["request"]["assets"]:
        world["node"]["budget"][asset] = {
            "spent": draw(AMOUNTS), "reserved": draw(AMOUNTS), "deltaSpent": draw(AMOUNTS), "deltaReserved": 0,
        }  # fmt: skip
        world["node"]["assetCapMicro"][asset] = draw(AMOUNTS)


def add_event(pair: PAIR, draw: Draw) -> None:
    world, document = pair
    everybody = st.sampled_from([*parties_of(document), "*"])
    world["events"].append(
        {
            "uid": document["uid"],
            "seq": 1 + max((event["seq"] for event in world["events"]), default=0),
            "type": draw(st.sampled_from(["suspend", "resume", "terminate", "supersede"])),
            "by": draw(everybody),
            "at": draw(INSTANTS),
            "party": draw(everybody),
            "reasonClass": draw(st.sampled_from(["incident", "mood"])),
            "version": draw(st.integers(1, 2)),
            "inFlight": draw(st.sampled_from(["finish", "abort"])),
        }
    )


MUTATIONS = [
    shift_now, change_request, change_consent, change_grade, change_rules, change_limits, change_budget, add_event,
]  # fmt: skip


# Tightenings: each of them may only take away ------------------------------------------------------------------------------


def add_a_prohibition(pair: PAIR, draw: Draw) -> None:
    document = pair[1]
    rule: dict[str, Any] = {"uid": "added", "action": draw(ACTIONS)}
    if draw(st.booleans()):
        rule["target"] = draw(st.lists(st.sampled_from([row["asset"] for row in document["data"]])))
    if draw(st.booleans()):
        rule["constraint"] = draw(st.lists(constraints(document), max_size=2))
    document["prohibition"].append(rule)


def remove_a_permission(pair: PAIR, draw: Draw) -> None:
    if pair[1]["permission"]:
        pair[1]["permission"].pop(draw(st.integers(0, len(pair[1]["permission"]) - 1)))


def constrain_a_permission(pair: PAIR, draw: Draw) -> None:
    for rule in pair[1]["permission"]:
        rule.setdefault("constraint", []).append(draw(constraints(pair[1])))


def raise_a_grade(pair: PAIR, draw: Draw) -> None:
    order = pair[0]["vocabulary"]["grades"]
    for entry in pair[0]["node"]["catalog"].values():
        for item in entry["fields"].values():
            item["grade"] = order[min(len(order) - 1, order.index(item["grade"]) + draw(st.integers(0, 3)))]


def end_the_term(pair: PAIR, draw: Draw) -> None:
    if draw(st.booleans()):
        pair[1]["term"] = {"notBefore": "2026-12-01T00:00:00+08:00", "notAfter": "2026-12-02T00:00:00+08:00"}
    else:
        add_event(pair, draw)
        pair[0]["events"][-1] |= {"type": "terminate", "by": parties_of(pair[1])[0]}


def withdraw_a_consent(pair: PAIR, draw: Draw) -> None:
    subjects = [record for record in pair[0]["node"]["consent"]["subjects"] if record.get("withdrawn") is None]
    if subjects:  # a withdrawal is never moved to another instant
        draw(st.sampled_from(subjects))["withdrawn"] = draw(st.sampled_from([pair[0]["now"], "2027-02-01T00:00:00Z"]))


def spend_budget(pair: PAIR, draw: Draw) -> None:
    for asset in pair[0]["request"]["assets"]:
        entry = pair[0]["node"]["budget"].setdefault(
            asset, {"spent": 0, "reserved": 0, "deltaSpent": 0, "deltaReserved": 0}
        )
        for name in entry:
            entry[name] = min(2**53 - 1, entry[name] + draw(AMOUNTS))


def suspend_a_provider(pair: PAIR, draw: Draw) -> None:
    add_event(pair, draw)
    provider = pair[0]["request"]["providers"][0]
    pair[0]["events"][-1] |= {"type": "suspend", "by": provider, "party": provider}


def raise_the_floor(pair: PAIR, draw: Draw) -> None:
    pair[1]["cohort"]["minSubjects"] += draw(AMOUNTS) // 2
    pair[1]["cohort"]["minProviders"] += draw(st.integers(0, 3))


TIGHTENINGS = [
    add_a_prohibition, remove_a_permission, constrain_a_permission, raise_a_grade, end_the_term, withdraw_a_consent,
    spend_budget, suspend_a_provider, raise_the_floor,
]  # fmt: skip


lasting = settings(
    max_examples=-(-EXAMPLES // len(TIGHTENINGS)), deadline=None, suppress_health_check=list(HealthCheck)
)


def render(pair: PAIR, is_release: bool) -> dict[str, Any]:
    """Sign the document and put the world together."""
    world, document = copy.deepcopy(pair)
    world["request"]["phase"] = "release" if is_release else "authorise"
    return signed_world(document, world, authorised_at="2027-03-01T09:45:00+08:00" if is_release else "")


@pytest.mark.parametrize("tighten", TIGHTENINGS, ids=lambda f: f.__name__)
@lasting
@given(data=st.data())
def test_tightening_never_turns_a_refusal_into_an_allow(tighten: Any, data: st.DataObject) -> None:
    """Whatever the world: if it is refused, its tightened form is refused too."""
    base = data.draw(st.sampled_from(ALLOWED if data.draw(st.integers(0, 3)) else READABLE))
    world = {name: value for name, value in copy.deepcopy(base).items() if name != "contract_text"}
    pair = (world, json.loads(base["contract_text"]))
    for mutate in data.draw(st.lists(st.sampled_from(MUTATIONS), max_size=3)):
        mutate(pair, data.draw)
    is_release = data.draw(st.booleans())
    before = decide(render(pair, is_release))
    check(before)
    tighten(pair, data.draw)
    after = decide(render(pair, is_release))
    check(after)
    assert before.allow or not after.allow, (before, after)


@pytest.mark.parametrize("tighten", TIGHTENINGS, ids=lambda f: f.__name__)
def test_each_tightening_refuses_some_allowed_world(tighten: Any) -> None:
    """The invariant above is not empty."""
    refused: set[str] = set()

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(data=st.data())
    def tightened(data: st.DataObject) -> None:
        base = data.draw(st.sampled_from(ALLOWED))
        world = {name: value for name, value in copy.deepcopy(base).items() if name != "contract_text"}
        pair = (world, json.loads(base["contract_text"]))
        tighten(pair, data.draw)
        refused.update(decide(render(pair, is_release=False)).reasons)

    tightened()
    assert refused


# Totality --------------------------------------------------------------------------------------------------------------

JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.just("\ud800"),
        st.just("2027-03-01T10:00:00Z"), st.just(2**53), st.binary(max_size=4),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


def check(decision: Decision) -> None:
    """What holds for every decision."""
    assert decision.allow == (not decision.reasons)
    numbers = [REASONS[code].number for code in decision.reasons]
    assert numbers == sorted(set(numbers))
    assert len(set(decision.obligations)) == len(decision.obligations)
    if set(decision.reasons) & {"INPUT_MALFORMED", "DOCUMENT_MALFORMED"}:
        assert len(decision.reasons) == 1
        assert decision.obligations == ()


@lasting
@given(JUNK)
def test_junk_is_refused_without_an_error(world: Any) -> None:
    """Totality over anything that Python can hold."""
    decision = decide(world)
    check(decision)
    assert not decision.allow


@lasting
@given(st.data())
def test_a_world_with_junk_in_one_place_is_decided_without_an_error(data: st.DataObject) -> None:
    """Totality over worlds that are nearly right."""
    world = copy.deepcopy(data.draw(st.sampled_from(WORLDS)))
    here: Any = world
    for _ in range(data.draw(st.integers(1, 6))):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            here[key] = data.draw(JUNK)
            break
        here = here[key]
    check(decide(world))


@lasting
@given(st.data())
def test_a_changed_character_of_the_contract_is_never_allowed(data: st.DataObject) -> None:
    """Any edit of the text is malformed or breaks digest and signatures, except for white space."""
    world = copy.deepcopy(data.draw(st.sampled_from(ALLOWED)))
    text = world["contract_text"]
    place = data.draw(st.integers(0, len(text) - 1))
    inserted = data.draw(st.sampled_from([*'",:{}[]x0.e- \n\\\ud800\u0301', ""]))
    world["contract_text"] = text[:place] + inserted + text[place + data.draw(st.integers(0, 1)) :]
    decision = decide(world)
    check(decision)
    try:
        is_same = json.loads(world["contract_text"]) == json.loads(text)
    except ValueError:
        is_same = False
    assert is_same or not decision.allow


@lasting
@given(st.data())
def test_spacing_and_member_order_do_not_matter(data: st.DataObject) -> None:
    """The digest is over canonical bytes."""
    world = copy.deepcopy(data.draw(st.sampled_from(ALLOWED)))
    document = json.loads(world["contract_text"])
    shuffled = {name: document[name] for name in data.draw(st.permutations(list(document)))}
    world["contract_text"] = json.dumps(shuffled, indent=data.draw(st.integers(0, 3)), ensure_ascii=True)
    assert decide(world).allow
