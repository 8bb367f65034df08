"""Bad input to sums of every kind: refused or clipped as the contract says, never wrapped silently (issue 5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_contracts.specification import Knots, Levels, RiskSpecification, Tower
from convoy_models.errors import LinksRefused, MessageMissing, ModelsError, RingOverflow, ValueRefused
from convoy_models.features import ColumnRefused
from convoy_models.fixedpoint import Floats, check_headroom
from convoy_models.plan import PlannedQuery, Side, plan
from convoy_models.risk.towers import Design, Labels
from convoy_models.sums import clipped_sum, fraction_bits, open_sum
from convoy_models.sums.ckks import TOLERANCE, CkksSession
from convoy_models.testing import MemoryFederation, NoNoise, new_keys

OEM, INSURERS = "oem", ("a", "b", "c")
ROLES = {"oem": [OEM], "insurer": list(INSURERS)}
SPEC = RiskSpecification(
    kind="risk-towers/1",
    towers=(
        Tower(
            role="insurer",
            features=(
                Knots(kind="knots", name="age", knots=("18", "40", "80")),
                Levels(kind="levels", name="garage", levels=("no", "yes")),
            ),
            cap="0.25",
        ),
        Tower(role="oem", features=(Knots(kind="knots", name="km", knots=("0", "20")),), cap="2.2"),
    ),
    claims="claims", exposure="years", claimCap=1, priorRate="0.08", priorScale="0.2", smoothness="0.8", sweeps=1,
    labelShareMilli=650, patterns="joint-only", epsilonMicro=4_000_000, deltaNano=1_000,
)  # fmt: skip


def columns(rows: int, **changed: object) -> dict[str, object]:
    return {
        "age": np.full(rows, 30.0), "garage": np.array(["no"] * rows), "km": np.full(rows, 5.0), "claims": np.zeros(rows),
        "years": np.ones(rows), **changed,
    }  # fmt: skip


def query(kind: str, name: str = "joint/q", width: int = 1, clip: float = 4.0, cols: int = 2) -> PlannedQuery:
    oem, insurer = Side("oem", (OEM,)), Side("insurer", INSURERS)
    return PlannedQuery(
        id=name, kind=kind, cohort="joint", module="oem", purpose="model", sweep=1, group=0, columns=(0, cols),  # type: ignore[arg-type]
        shape=(cols, width), clip=clip, sigma=1.0, mu2=16.0, matrix=oem,
        vectors=(insurer,) if kind == "DOT" else (insurer, oem),
    )  # fmt: skip


def federation(rows: dict[str, int], x: float = 1.0) -> MemoryFederation:
    made = MemoryFederation({p: NoNoise() for p in (OEM, *INSURERS)}, [(OEM, p) for p in INSURERS])
    ids = {p: [bytes([k]) + n.to_bytes(15, "big") for n in range(rows[p])] for k, p in enumerate(INSURERS)}
    made.align({(OEM, p): ids[p] for p in INSURERS} | {(p, OEM): ids[p] for p in INSURERS})
    made.hold({(OEM, p): np.full((rows[p], 2), x) for p in INSURERS})
    return made


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_wherever_it_enters(bad: float) -> None:
    """Columns, labels, exposure, matrices, vectors, factors, local sums."""
    with pytest.raises(ColumnRefused):
        Design.build(SPEC.towers[0], columns(3, age=np.array([30.0, bad, 30.0])))
    for name in ("claims", "years"):
        with pytest.raises(ModelsError):
            Labels.build(SPEC, columns(3, **{name: np.array([0.0, bad, 0.0])}))
    made = federation(dict.fromkeys(INSURERS, 3))
    for kind in ("DOT", "WEIGHTED"):
        asked, cap = query(kind, f"joint/{kind}"), 1.0
        vectors: dict[str, Floats] = {OEM: np.array([0.0, bad, 0.0])}
        made.deliver({made.trustee: made.dealer.deal(asked)})
        session = made.sessions["a"]
        step = session.share if kind == "DOT" else session.open
        with pytest.raises(ValueRefused):
            step(asked, vectors, cap)
    with pytest.raises(ModelsError):
        clipped_sum(np.array([[bad, 0.0]]), 1.0)


def test_values_beyond_the_knots_are_clipped_as_the_contract_says_and_unknown_levels_refused() -> None:
    """Ages of -5 and 500 are the outer knots; a level nobody agreed is refused with column and count."""
    design = Design.build(SPEC.towers[0], columns(2, age=np.array([-5.0, 500.0])))
    np.testing.assert_array_equal(design.dense()[:, :3], [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(ColumnRefused, match="garage"):
        Design.build(SPEC.towers[0], columns(2, garage=np.array(["no", "perhaps"])))


def test_factors_and_claims_beyond_their_caps_are_cut_at_the_node_and_refused_in_the_session() -> None:
    """Weights that would give a factor of e^20 give the cap; a session takes no vector above it."""
    weights = {"age": [20.0] * 3, "garage": [20.0] * 2}
    assert Design.build(SPEC.towers[0], columns(2)).factor(weights, np.ones(2)).max() <= 0.25
    assert Labels.build(SPEC, columns(1, claims=np.array([9.0]))).capped(1).max() == 1.0
    made = federation(dict.fromkeys(INSURERS, 2))
    asked = query("DOT")
    made.deliver({made.trustee: made.dealer.deal(asked)})
    with pytest.raises(ValueRefused):
        made.sessions["a"].share(asked, {OEM: np.array([1.0, 1.0001])}, 1.0)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["DOT", "WEIGHTED"]), st.floats(0.0, 1.0), st.integers(1, 3))
def test_constant_columns_zero_updates_and_one_person_nodes_sum_exactly(kind: str, level: float, persons: int) -> None:
    """Every row alike, all zero, a node with a single person: no special case, no leak by an error."""
    counts = {"a": 1, "b": persons, "c": 60}
    made = federation(counts)
    value = np.floor(level * 2**15) / 2**15
    asked = query(kind)
    values: dict[tuple[str, str], Floats] = {(p, OEM): np.full(counts[p], value) for p in INSURERS}
    if kind == "WEIGHTED":
        values |= {(OEM, p): np.ones(counts[p]) for p in INSURERS}
    opened = open_sum(asked, made.ask(asked, values=values))
    np.testing.assert_allclose(opened, [value * sum(counts.values())] * 2, atol=1e-9)


def test_an_empty_intersection_is_refused_before_anything_is_masked() -> None:
    """Two parties without a person in common."""
    made = MemoryFederation({OEM: NoNoise(), "a": NoNoise()}, [(OEM, "a")])
    with pytest.raises(LinksRefused):
        made.align({(OEM, "a"): [b"x" * 16], ("a", OEM): [b"y" * 16]})


def test_a_sum_that_could_leave_the_ring_is_refused_before_it_is_spent() -> None:
    """Caps so large that rows times cap pass 2^63 at the grid of products."""
    made = federation(dict.fromkeys(INSURERS, 50))
    asked = query("WEIGHTED", clip=2.0**21)
    made.deliver({made.trustee: made.dealer.deal(asked)})
    big = {OEM: np.full(50, 2.0**10)}
    for party in INSURERS:
        made.deliver({party: made.sessions[party].open(asked, big, 2.0**10)})
    made.deliver({OEM: made.sessions[OEM].open(asked, {p: np.full(50, 2.0**10) for p in INSURERS}, 2.0**10)})
    made.deliver({p: made.sessions[p].share(asked) for p in (OEM, *INSURERS)})
    for party in (OEM, *INSURERS):
        with pytest.raises(RingOverflow):
            made.sessions[party].check_ready(asked)
    with pytest.raises(RingOverflow):
        made.sessions["a"].close(
            PlannedQuery(
                id="joint/local", kind="LOCAL", cohort="joint", module="insurer", purpose="labels", sweep=0, group=0,
                columns=(0, 1), shape=(1, 1), clip=1.0, sigma=1.0, mu2=1.0, matrix=Side("insurer", INSURERS), vectors=(),
            ),
            np.array([2.0**50]),
        )  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(INSURERS), st.sampled_from(["deal", "open", "share", "close"]))
def test_a_party_that_drops_out_ends_the_attempt_and_opens_nothing(lost: str, step: str) -> None:
    """Whoever is missing at whichever step: the others refuse to close, or the shares do not open."""
    made = federation(dict.fromkeys(INSURERS, 3))
    asked, everyone = query("WEIGHTED"), (OEM, *INSURERS)
    if step != "deal":
        made.deliver({made.trustee: made.dealer.deal(asked)})
    alive = [p for p in everyone if p != lost]
    opened = {
        p: made.sessions[p].open(asked, {q: np.full(3, 0.5) for q in (INSURERS if p == OEM else (OEM,))}, 1.0)
        for p in (alive if step == "open" else everyone)
    }
    made.deliver(opened)
    shared: dict[str, dict[str, bytes]] = {}
    stopped = False
    for party in alive if step in ("open", "share") else everyone:
        try:
            shared[party] = made.sessions[party].share(asked)
        except MessageMissing:
            stopped = True
    made.deliver(shared)
    words = {}
    for party in alive:
        try:
            words[party] = made.sessions[party].close(asked)
        except MessageMissing:
            stopped = True
    with pytest.raises(ModelsError):
        open_sum(asked, words)
    assert stopped or step == "close"


def test_the_plan_of_a_specification_has_room_in_the_ring_for_a_million_rows() -> None:
    """Nothing of an ordinary run is near an overflow; a trillion would be refused."""
    for asked in plan(SPEC, ROLES).queries:
        bound = min(value for value in (asked.clip, asked.peak) if value is not None)
        check_headroom(1_000_000, bound, fraction_bits(asked), asked.noise_sd)
    with pytest.raises(RingOverflow):
        check_headroom(10**12, 1.0, 44)


def test_ckks_refuses_and_clips_as_the_other_backend() -> None:
    """NaN, above the cap, all zero, one person."""
    keys = new_keys([OEM, "a"])
    oem, side = Side("oem", (OEM,)), Side("insurer", ("a",))
    asked = PlannedQuery(
        id="joint/q", kind="DOT", cohort="joint", module="oem", purpose="labels", sweep=0, group=0, columns=(0, 1),
        shape=(1, 1), clip=1.0, sigma=1.0, mu2=1.0, matrix=oem, vectors=(side,),
    )  # fmt: skip
    made = {p: CkksSession("run", 1, keys[p], peers=[q], noise=NoNoise()) for p, q in ((OEM, "a"), ("a", OEM))}
    from convoy_models.messages import Payload, relay

    def deliver(replies: dict[str, dict[str, bytes]]) -> None:
        for party, blobs in relay({p: Payload(blobs=b) for p, b in replies.items()}).items():
            made[party].receive(blobs)

    for p, q in ((OEM, "a"), ("a", OEM)):
        deliver({p: made[p].links(q, [bytes(16)])})
    for p, q in ((OEM, "a"), ("a", OEM)):
        made[p].align(q)
        made[p].hold(q, np.ones((1, 1)) if p == OEM else None)
    deliver({p: s.matrix(0) for p, s in made.items()})
    for bad in (np.nan, 1.5):
        with pytest.raises(ValueRefused):
            made["a"].open(asked, {OEM: np.array([bad])}, 1.0)
    deliver({"a": made["a"].open(asked, {OEM: np.array([0.0])}, 1.0), OEM: made[OEM].open(asked, {}, 1.0)})
    deliver({p: s.share(asked) for p, s in made.items()})
    assert abs(float(open_sum(asked, {p: s.close(asked) for p, s in made.items()})[0])) <= TOLERANCE
