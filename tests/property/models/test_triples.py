"""TRILINEAR: three holders, one operand each; the secure sum is the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_models.errors import LinksRefused, MessageMissing, MessageUnexpected, RingOverflow, TagReused
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, decode, encode
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import open_sum
from convoy_models.testing import MemoryFederation, NoNoise

OEM, CHARGING = "oem", "charging"
FAST = settings(max_examples=25, deadline=None)


def planned(
    columns: tuple[int, int], width: int, insurers: list[str], third: tuple[str, ...] = (CHARGING,), clip: float = 8.0
) -> PlannedQuery:
    """A TRILINEAR query: OEM matrix, insurers' factor, charging columns."""
    return PlannedQuery(
        id="joint/three", kind="TRILINEAR", cohort="joint", module="oem", purpose="labels", sweep=0, group=0,
        columns=columns, shape=(columns[1] - columns[0], width), clip=clip, sigma=1.0, mu2=clip**2,
        matrix=Side("oem", (OEM,)), vectors=(Side("insurer", tuple(insurers)), Side("charging", third)),
    )  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> dict:
    """Up to three insurers, any overlap with the charging operator, a column slice, caps, chunks, a seed."""
    width = draw(st.integers(1, 6))
    start = draw(st.integers(0, width - 1))
    return {
        "insurers": [f"insurer-{c}" for c in "abc"[: draw(st.integers(1, 3))]],
        "rows": draw(st.integers(1, 130)), "width": width,
        "columns": (start, draw(st.integers(start + 1, width))),
        "vectors": draw(st.integers(1, 4)), "caps": (draw(st.floats(0.01, 4.0)), draw(st.floats(0.01, 4.0))),
        "overlap": draw(st.floats(0, 1)), "chunk": draw(st.sampled_from([50, 100, 65_536])),
        "seed": draw(st.integers(0, 2**32)),
    }  # fmt: skip


def build(world: dict, run: str = "run-1") -> tuple:
    """A federation with rows, matrices and placed rows; and the plain operands."""
    rng = np.random.default_rng(world["seed"])
    insurers = world["insurers"]
    federation = MemoryFederation(
        {n: NoNoise() for n in [OEM, *insurers, CHARGING]}, [(OEM, n) for n in insurers], chunk_rows=world["chunk"],
        triples=[(OEM, n, CHARGING) for n in insurers], run=run,
    )  # fmt: skip
    ids, at_charging = {}, []
    for name in insurers:
        shared = [rng.bytes(16) for _ in range(world["rows"])]
        ids[OEM, name] = shared + [rng.bytes(16) for _ in range(7)]
        ids[name, OEM] = [*shared[::-1], rng.bytes(16)]
        known = [link for link in shared if rng.random() < world["overlap"]]
        at_charging += known or shared[:1]
    rng.shuffle(at_charging)
    order = federation.align(ids)
    matrices = {(OEM, n): rng.random((world["rows"], world["width"])) for n in insurers}
    federation.hold(matrices)
    places = federation.place(CHARGING, at_charging)
    a = {n: world["caps"][0] * rng.random(world["rows"]) for n in insurers}
    c = world["caps"][1] * rng.random((len(at_charging), world["vectors"]))
    at_rows = {n: np.where((p >= 0)[:, None], c[p], 0.0) for n, p in places.items()}
    for n, p in places.items():  # the rows are the pair's rows, in its order
        links = [ids[OEM, n][i] for i in order[OEM, n]]
        assert [at_charging[i] if i >= 0 else None for i in p[: len(links)]] == [
            link if link in at_charging else None for link in links
        ]
    return federation, matrices, a, at_rows


def ring(values: np.ndarray, cap: float) -> np.ndarray:
    """A factor as the ring sees it."""
    return np.minimum(decode(encode(values, FACTOR_BITS), FACTOR_BITS), np.floor(cap * 2**FACTOR_BITS) / 2**FACTOR_BITS)


def ask(federation: MemoryFederation, query: PlannedQuery, a: dict, at_rows: dict, caps: tuple[float, float]) -> dict:
    """Take the query through its steps."""
    values = {(n, OEM): v for n, v in a.items()} | {(CHARGING, n): v for n, v in at_rows.items()}
    return federation.ask(query, values=values, caps=dict.fromkeys(a, caps[0]) | {CHARGING: caps[1]})


@FAST
@given(worlds())
def test_a_secure_sum_over_three_parties_equals_the_plain_one(world: dict) -> None:
    """To the last bit of the ring: 13 + 15 + 15 fraction bits."""
    federation, matrices, a, at_rows = build(world)
    query = planned(world["columns"], world["vectors"], world["insurers"], clip=world["caps"][0] * world["caps"][1] * 3)
    answer = ask(federation, query, a, at_rows, world["caps"])
    expected = np.zeros(query.shape)
    start, stop = query.columns
    for n in world["insurers"]:
        x = decode(encode(matrices[OEM, n][:, start:stop], MATRIX_BITS), MATRIX_BITS)
        c = ring(at_rows[n][: len(x)], world["caps"][1])
        expected += x.T @ (ring(a[n], world["caps"][0])[:, None] * c)
    np.testing.assert_allclose(open_sum(query, answer), expected.ravel(), rtol=1e-13, atol=2.0**-42)


def test_what_each_of_the_three_receives_is_uniform_and_differs_between_runs() -> None:
    """Same inputs, two runs: nothing that travels between holders repeats, and low bits are balanced."""
    world = {
        "insurers": ["insurer-a"], "rows": 500, "width": 3, "columns": (0, 3), "vectors": 2, "caps": (1.0, 1.0),
        "overlap": 0.5, "chunk": 65_536, "seed": 3,
    }  # fmt: skip
    parts = []
    for run in ("run-1", "run-2"):
        federation, _, a, at_rows = build(world, run)
        query = planned((0, 3), 2, world["insurers"])
        contributions = ask(federation, query, a, at_rows, (1.0, 1.0))
        parts.append(contributions)
        with pytest.raises(MessageMissing):
            open_sum(query, {k: v for k, v in contributions.items() if k != CHARGING})
    for party in parts[0]:
        assert not (parts[0][party] == parts[1][party]).any()


def test_out_of_turn_twice_or_too_large_is_refused() -> None:
    """Steps in order, once; head-room is checked before anything is added; one third party only."""
    world = {
        "insurers": ["insurer-a"], "rows": 60, "width": 2, "columns": (0, 2), "vectors": 1, "caps": (1.0, 1.0),
        "overlap": 1.0, "chunk": 65_536, "seed": 4,
    }  # fmt: skip
    federation, _, a, at_rows = build(world)
    query = planned((0, 2), 1, world["insurers"])
    with pytest.raises(MessageMissing):
        federation.sessions[CHARGING].share(query)
    with pytest.raises(MessageUnexpected):
        federation.dealer.deal(planned((0, 2), 1, world["insurers"], (CHARGING, "charging-b")))
    federation.deliver({federation.trustee: federation.dealer.deal(query)})
    opened = {"insurer-a": {OEM: a["insurer-a"]}, CHARGING: {"insurer-a": at_rows["insurer-a"]}, OEM: {}}
    federation.deliver({p: federation.sessions[p].open(query, f, 1.0) for p, f in opened.items()})
    with pytest.raises(TagReused):
        federation.sessions[CHARGING].open(query, opened[CHARGING], 1.0)
    with pytest.raises(MessageMissing):
        federation.sessions[OEM].check_ready(query)
    federation.deliver({p: federation.sessions[p].share(query) for p in opened})
    huge = planned((0, 2), 1, world["insurers"], clip=2.0**20)
    other = build(world)[0]
    other.deliver({other.trustee: other.dealer.deal(huge)})
    other.deliver({p: other.sessions[p].open(huge, f, 1.0) for p, f in opened.items()})
    other.deliver({p: other.sessions[p].share(huge) for p in opened})
    with pytest.raises(RingOverflow):
        other.sessions[OEM].check_ready(huge)


def test_nobody_in_common_with_the_third_party_is_refused() -> None:
    """An empty intersection makes no sum."""
    world = {
        "insurers": ["insurer-a"], "rows": 10, "width": 2, "columns": (0, 2), "vectors": 1, "caps": (1.0, 1.0),
        "overlap": 1.0, "chunk": 65_536, "seed": 5,
    }  # fmt: skip
    federation = MemoryFederation(
        {n: NoNoise() for n in (OEM, "insurer-a", CHARGING)},
        [(OEM, "insurer-a")],
        triples=[(OEM, "insurer-a", CHARGING)],
    )
    ids = [bytes([k]) * 16 for k in range(world["rows"])]
    federation.align({(OEM, "insurer-a"): ids, ("insurer-a", OEM): ids})
    federation.hold({(OEM, "insurer-a"): np.ones((10, 2))})
    with pytest.raises(LinksRefused):
        federation.place(CHARGING, [b"x" * 16])
