"""Commit and audit: an honest run passes, a holder that boosts, alters or denies a row is caught with the stated chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_models.errors import MessageMalformed, MessageMissing, MessageUnexpected, TagReused
from convoy_models.fixedpoint import FACTOR_BITS, Floats
from convoy_models.messages import Payload, relay
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import open_sum
from convoy_models.sums.row_audit import AuditTerms, CommittedRows, OpenedRow, block_bound, caught, check_opening
from convoy_models.sums.row_audit_sessions import AuditedSession, AuditingDealer, Finding
from convoy_models.testing import NoNoise, new_keys

OEM, INSURER, TRUSTEE = "oem", "insurer", "trustee"
CAPS = {OEM: 2.2, INSURER: 0.25}
SIDES = {OEM: Side("oem", (OEM,)), INSURER: Side("insurer", (INSURER,))}


class Sent:
    """What honest holders send here: their only input is the number itself."""

    def factor(self, query: PlannedQuery, party: str, row: OpenedRow) -> Floats:
        return np.array([row.inputs[0] if query.kind == "WEIGHTED" else row.inputs[1]])

    def cap(self, query: PlannedQuery, party: str) -> float:
        return CAPS[party] if query.kind == "WEIGHTED" else 1.0


def query(name: str, kind: str, holder: str, columns: int) -> PlannedQuery:
    other = INSURER if holder == OEM else OEM
    return PlannedQuery(
        id=name, kind=kind, cohort="joint", module=holder, purpose="model", sweep=1, group=0, columns=(0, columns),  # type: ignore[arg-type]
        shape=(columns, 1), clip=2.0, sigma=1.0, mu2=4.0, matrix=SIDES[holder],
        vectors=(SIDES[INSURER], SIDES[OEM]) if kind == "WEIGHTED" else (SIDES[other],),
    )  # fmt: skip


class World:
    """A carmaker and an insurer with rows on the grids, the trustee, and what each really sends."""

    def __init__(self, rows: int, terms: AuditTerms, seed: int) -> None:
        rng = np.random.default_rng(seed)
        grid = 2.0**FACTOR_BITS
        self.rows, keys = rows, new_keys([OEM, INSURER, TRUSTEE])
        self.x = {
            OEM: rng.integers(0, 2, (rows, 4)).astype(float),
            INSURER: rng.integers(0, 2, (rows, 3)).astype(float),
        }
        self.factors = {p: np.floor(rng.random(rows) * CAPS[p] * grid) / grid for p in (OEM, INSURER)}
        self.labels = rng.integers(0, 2, rows).astype(float)
        self.sent = {p: f.copy() for p, f in self.factors.items()}
        self.claimed = {p: np.column_stack([f, self.labels]) for p, f in self.factors.items()}
        self.matrices: dict[str, Floats] = dict(self.x)
        self.sessions = {
            p: AuditedSession("run-1", 1, keys[p], peers=[q], trustee=TRUSTEE, noise=NoNoise())
            for p, q in ((OEM, INSURER), (INSURER, OEM))
        }
        self.dealer = AuditingDealer("run-1", 1, keys[TRUSTEE], terms)
        self.opened: dict[str, Floats] = {}

    def deliver(self, replies: Mapping[str, Mapping[str, bytes]]) -> None:
        for party, blobs in relay({p: Payload(blobs=dict(b)) for p, b in replies.items()}).items():
            (self.dealer if party == TRUSTEE else self.sessions[party]).receive(blobs)

    def prepare(self) -> None:
        ids = [n.to_bytes(16, "big") for n in range(self.rows)]
        for p, q in ((OEM, INSURER), (INSURER, OEM)):
            self.deliver({p: self.sessions[p].links(q, ids)})
        for p, q in ((OEM, INSURER), (INSURER, OEM)):
            self.sessions[p].align(q)
            self.sessions[p].hold(q, self.matrices[p])
            self.sessions[p].commit(q, self.claimed[p])
        self.deliver({p: s.matrix(0) for p, s in self.sessions.items()})

    def run(self, cap: float = 100.0) -> list[str]:
        """Ask a label sum and a model sum of either tower; ``cap`` is what a liar's own software lets pass."""
        asked = [
            query("labels", "DOT", OEM, 4), query("model/oem", "WEIGHTED", OEM, 4), query("model/ins", "WEIGHTED", INSURER, 3),
        ]  # fmt: skip
        for q in asked:
            self.deliver({TRUSTEE: self.dealer.deal(q)})
            if q.kind == "WEIGHTED":
                self.deliver(
                    {
                        OEM: self.sessions[OEM].open(q, {INSURER: self.sent[OEM]}, cap),
                        INSURER: self.sessions[INSURER].open(q, {OEM: self.sent[INSURER]}, cap),
                    }
                )
                self.deliver({p: s.share(q) for p, s in self.sessions.items()})
            else:
                label = {OEM: self.labels}
                self.deliver({OEM: self.sessions[OEM].share(q), INSURER: self.sessions[INSURER].share(q, label, 1.0)})
            self.opened[q.id] = open_sum(q, {p: s.close(q) for p, s in self.sessions.items()})
        return [q.id for q in asked]

    def judge(self, closed: list[str]) -> list[Finding]:
        self.deliver({p: s.report() for p, s in self.sessions.items()})
        self.deliver({TRUSTEE: self.dealer.reveal()})
        self.deliver({p: s.disclose() for p, s in self.sessions.items()})
        return self.dealer.judge(Sent(), closed)


def judged(world: World) -> list[Finding]:
    world.prepare()
    return world.judge(world.run())


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(1, 1000), st.integers(1, 60), st.integers(0, 2**32))
def test_an_honest_run_is_never_blamed_and_its_sums_are_the_plain_ones(
    rows: int, milli: int, block: int, seed: int
) -> None:
    """Any number of rows, opened rows and block sizes."""
    world = World(rows, AuditTerms(milli, block), seed)
    assert judged(world) == []
    both = world.factors[OEM] * world.factors[INSURER]
    np.testing.assert_allclose(world.opened["labels"], world.x[OEM].T @ world.labels, atol=1e-9)
    np.testing.assert_allclose(world.opened["model/ins"], world.x[INSURER].T @ both, atol=1e-6)


@pytest.mark.parametrize("liar", [OEM, INSURER])
@pytest.mark.parametrize("seed", range(5))
def test_a_row_boosted_beyond_twice_a_blocks_bound_is_always_caught(liar: str, seed: int) -> None:
    """The attack of the reference, one driver's factor far beyond its cap; one row of 500 is opened, another one: the block says it."""
    world = World(500, AuditTerms(1, 20), seed)
    world.sent[liar][seed * 7] = 2.1 * block_bound(20, CAPS[liar], 10**6)
    other = INSURER if liar == OEM else OEM
    assert Finding(liar, other, "BLOCK_TOO_LARGE") in judged(world)


def test_a_matrix_that_is_not_the_committed_one_is_caught_in_the_opened_rows() -> None:
    """The carmaker sends other rows than it committed to."""
    world = World(200, AuditTerms(1000, 20), 1)
    world.prepare()
    honest = world.sessions[OEM]._committed[INSURER]
    honest._matrix = honest._matrix.copy()
    honest._matrix[0, :] ^= 1
    honest.__init__(honest._matrix, honest._inputs)  # type: ignore[misc]
    world.dealer._roots[OEM, INSURER] = honest.root
    assert Finding(OEM, INSURER, "ROW_DIFFERS") in world.judge(world.run())


def test_altered_rows_within_the_caps_are_caught_with_the_stated_chance() -> None:
    """10 of 100 rows altered by less than a cap, 10 opened: 67 % by the formula; 60 runs agree within 5 standard deviations."""
    stated, runs = caught(100, 10, 10), 60
    assert abs(stated - 0.6695) < 1e-3
    found = 0
    for seed in range(runs):
        world = World(100, AuditTerms(100, 20), seed)
        world.sent[INSURER][:10] = np.where(world.factors[INSURER][:10] > 0.12, 0.0, 0.25)
        found += Finding(INSURER, OEM, "ROW_DIFFERS") in judged(world)
    assert abs(found / runs - stated) < 5 * math.sqrt(stated * (1 - stated) / runs)


def test_a_holder_that_opens_another_row_or_nothing_is_named() -> None:
    """A row that does not fit the root, and silence."""
    world = World(100, AuditTerms(500, 20), 3)
    world.prepare()
    closed = world.run()
    world.sessions[INSURER]._committed[OEM]._inputs[:, 0] = 0.1
    assert world.judge(closed) == [Finding(INSURER, OEM, "OPENING_FAILED")]
    silent = World(100, AuditTerms(500, 20), 3)
    silent.prepare()
    closed = silent.run()
    silent.deliver({p: s.report() for p, s in silent.sessions.items()})
    silent.deliver({TRUSTEE: silent.dealer.reveal()})
    silent.deliver({OEM: silent.sessions[OEM].disclose()})
    assert silent.dealer.judge(Sent(), closed) == [Finding(INSURER, OEM, "OPENING_FAILED")]


def test_rows_are_named_only_when_nobody_can_take_a_step_any_more() -> None:
    """A coordinator that helps a cheat cannot have the rows revealed first and ask the queries then."""
    world = World(100, AuditTerms(100, 20), 5)
    world.prepare()
    world.run()
    world.deliver({INSURER: world.sessions[INSURER].report()})
    with pytest.raises(MessageMissing):
        world.dealer.reveal()
    late = query("late", "DOT", OEM, 4)
    world.deliver({TRUSTEE: world.dealer.deal(late)})
    with pytest.raises(MessageUnexpected):
        world.sessions[INSURER].share(late, {OEM: world.labels}, 1.0)


def test_a_query_that_the_coordinator_keeps_silent_about_is_checked_all_the_same() -> None:
    """What was answered is what the receivers report."""
    world = World(200, AuditTerms(10, 20), 6)
    world.sent[INSURER][5] = 50.0
    world.prepare()
    world.run()
    assert Finding(INSURER, OEM, "BLOCK_TOO_LARGE") in world.judge([])


def test_no_vector_leaves_before_commitment_and_challenge() -> None:
    """The trustee deals nothing without roots; a holder shares nothing without its challenge; a root is given once."""
    world = World(60, AuditTerms(100, 20), 4)
    world.prepare()
    asked = query("labels", "DOT", OEM, 4)
    with pytest.raises(MessageMissing):
        world.sessions[INSURER].share(asked, {OEM: world.labels}, 1.0)
    with pytest.raises(MessageMissing):
        world.sessions[INSURER].disclose()
    with pytest.raises(TagReused):
        world.sessions[OEM].commit(INSURER, world.claimed[OEM])
    world.dealer._roots.clear()
    with pytest.raises(MessageMissing):
        world.dealer.deal(asked)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 130), st.integers(1, 5), st.integers(0, 3), st.data())
def test_a_row_opens_to_its_root_and_any_flipped_bit_does_not(rows: int, columns: int, width: int, data: Any) -> None:
    """Every row of every size; one bit anywhere, or the place of another row."""
    rng = np.random.default_rng(rows)
    made = CommittedRows(rng.integers(-9, 9, (columns, rows)).astype(np.int16), rng.normal(size=(rows, width)))
    row = data.draw(st.integers(0, rows - 1))
    raw = made.opened(row)
    assert len(check_opening(raw, row, rows, made.root, "p").x) == columns
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageMalformed):
        check_opening(bytes(flipped), row, rows, made.root, "p")
    if rows > 1:
        with pytest.raises(MessageMalformed):
            check_opening(raw, (row + 1) % rows, rows, made.root, "p")


def test_the_formulas_of_the_docstring() -> None:
    """Chance of being caught; the bound of a block is never above its caps."""
    assert caught(1000, 50, 1) == pytest.approx(0.05)
    assert caught(1000, 50, 0) == 0.0
    assert caught(10, 6, 5) == 1.0
    assert caught(40_000, 2_000, 60) == pytest.approx(1 - math.exp(-60 * 0.05), abs=0.01)
    assert block_bound(20, 0.55, 10**6) == pytest.approx(11.0)
    assert block_bound(10_000, 1.0, 10) < 10_000
