"""The secure sum is the plain sum: over shapes, caps, chunks and pairs."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy_models.errors import LinksRefused, RingOverflow
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, check_headroom, decode, encode
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import CHUNK_ROWS, fraction_bits, open_sum
from convoy_models.sums.align import common_rows, encode_links
from convoy_models.testing import MemoryFederation, NoNoise

OEM = "oem"
FAST = settings(max_examples=25, deadline=None)


def planned(
    kind: str,
    columns: tuple[int, int],
    width: int,
    matrix: Side,
    vectors: tuple[Side, ...],
    clip: float = 4.0,
) -> PlannedQuery:
    """A query of a plan."""
    return PlannedQuery(
        id=f"joint/{kind}/{matrix.role}", kind=kind, cohort="joint", module=matrix.role,
        purpose="model", sweep=1, group=0, columns=columns, shape=(columns[1] - columns[0], width),
        clip=clip, sigma=1.0, mu2=clip * clip, matrix=matrix, vectors=vectors,
    )  # fmt: skip


def grid(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Values as the ring sees them."""
    return decode(encode(values, bits), bits)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, object]:
    """Insurers with different books, a matrix width, a column slice, caps and a seed."""
    insurers = [f"insurer-{c}" for c in "abc"[: draw(st.integers(1, 3))]]
    width = draw(st.integers(1, 7))
    start = draw(st.integers(0, width - 1))
    return {
        "insurers": insurers,
        "rows": {name: draw(st.integers(1, 130)) for name in insurers},
        "width": width,
        "columns": (start, draw(st.integers(start + 1, width))),
        "vectors": draw(st.integers(1, 4)),
        "caps": (draw(st.floats(0.01, 4.0)), draw(st.floats(0.01, 4.0))),
        "matrix_at_oem": draw(st.booleans()),
        "chunk": draw(st.sampled_from([50, 100, 65_536])),
        "seed": draw(st.integers(0, 2**32)),
    }


def build(world: dict[str, object]) -> tuple[MemoryFederation, dict[tuple[str, str], NDArray]]:
    """A federation with aligned rows, and each edge's matrix in joint order."""
    rng = np.random.default_rng(world["seed"])
    insurers = world["insurers"]
    federation = MemoryFederation(
        {n: NoNoise() for n in [OEM, *insurers]},
        [(OEM, n) for n in insurers],
        chunk_rows=world["chunk"],
    )
    ids: dict[tuple[str, str], list[bytes]] = {}
    for name in insurers:
        shared = [rng.bytes(16) for _ in range(world["rows"][name])]
        for edge in ((OEM, name), (name, OEM)):
            own = shared + [rng.bytes(16) for _ in range(int(rng.integers(0, 60)))]
            rng.shuffle(own)
            ids[edge] = own
    order = federation.align(ids)
    for name in insurers:
        left, right = (OEM, name), (name, OEM)
        assert [ids[left][i] for i in order[left]] == [ids[right][i] for i in order[right]]
    matrices = {edge: rng.random((len(rows), world["width"])) for edge, rows in order.items()}
    federation.hold(matrices)
    return federation, matrices


@FAST
@given(worlds())
def test_a_secure_dot_sum_equals_the_plain_one_to_the_last_bit(world: dict[str, object]) -> None:
    """DOT over one to three pairs, either side holding the matrix, several vector columns."""
    federation, matrices = build(world)
    oem, side = Side("oem", (OEM,)), Side("insurer", tuple(world["insurers"]))
    matrix, vector = (oem, side) if world["matrix_at_oem"] else (side, oem)
    query = planned("DOT", world["columns"], world["vectors"], matrix, (vector,))
    rng, cap = np.random.default_rng(1), world["caps"][0]
    values, expected = {}, np.zeros(query.shape)
    start, stop = query.columns
    for (party, peer), x in matrices.items():
        if party in matrix.parties:
            v = cap * rng.random((len(x), world["vectors"]))
            values[peer, party] = v[:, 0] if world["vectors"] == 1 else v
            top = np.floor(cap * 2**FACTOR_BITS) / 2**FACTOR_BITS
            expected += grid(x[:, start:stop], MATRIX_BITS).T @ np.minimum(grid(v, FACTOR_BITS), top)
    answer = open_sum(query, federation.ask(query, values=values, caps=dict.fromkeys([OEM, *side.parties], cap)))
    np.testing.assert_allclose(answer, expected.ravel(), rtol=0, atol=2.0**-28)


@FAST
@given(worlds())
def test_a_secure_weighted_sum_equals_the_plain_one(world: dict[str, object]) -> None:
    """WEIGHTED: the product of two secret factors never exists in the clear, its sum is exact."""
    federation, matrices = build(world)
    oem, side = Side("oem", (OEM,)), Side("insurer", tuple(world["insurers"]))
    matrix = oem if world["matrix_at_oem"] else side
    query = planned("WEIGHTED", world["columns"], 1, matrix, (side, oem), clip=16.0)
    rng, (cap_a, cap_b) = np.random.default_rng(2), world["caps"]
    values, expected = {}, np.zeros(query.shape[0])
    start, stop = query.columns
    for (party, peer), x in matrices.items():
        if party in matrix.parties:
            a, b = cap_a * rng.random(len(x)), cap_b * rng.random(len(x))
            values[party, peer], values[peer, party] = a, b
            expected += x[:, start:stop].T @ (a * b)
    caps = {p: cap_a if p in matrix.parties else cap_b for p in [OEM, *side.parties]}
    answer = open_sum(query, federation.ask(query, values=values, caps=caps))
    rows = sum(world["rows"].values())
    np.testing.assert_allclose(answer, expected, rtol=0, atol=rows * 16 * 2.0**-13)


@FAST
@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32), st.floats(0.1, 1e6))
def test_a_local_sum_is_the_sum_of_all_nodes(parties: int, size: int, seed: int, scale: float) -> None:
    """LOCAL over one to four nodes: masks cancel, whatever the order of arrival."""
    rng = np.random.default_rng(seed)
    names = [f"node-{n}" for n in range(parties)]
    federation = MemoryFederation({n: NoNoise() for n in names})
    query = planned("LOCAL", (0, size), 1, Side("insurer", tuple(names)), ())
    local = {n: scale * rng.normal(size=size) for n in names}
    contributions = federation.ask(query, local=local)
    reverse = dict(reversed(list(contributions.items())))
    expected = sum(grid(v, 20) for v in local.values())
    np.testing.assert_allclose(open_sum(query, reverse), expected, rtol=1e-14, atol=2.0**-20)


@FAST
@given(st.integers(2, 5), st.integers(1, 50), st.integers(0, 2**31), st.text(max_size=20))
def test_masks_of_all_participants_sum_to_zero(parties: int, size: int, attempt: int, query: str) -> None:
    """For any tag; and no participant's own mask is zero."""
    names = [f"party-{n}" for n in range(parties)]
    federation = MemoryFederation({n: NoNoise() for n in names})
    masks = [federation.keys[n].mask("run", query, attempt, size, names) for n in names]
    assert not np.sum(masks, axis=0, dtype=np.uint64).any()
    assert all(mask.any() for mask in masks)


@FAST
@given(st.sets(st.binary(min_size=16, max_size=16)), st.sets(st.binary(min_size=16, max_size=16)),
       st.sets(st.binary(min_size=16, max_size=16), min_size=1), st.randoms())  # fmt: skip
def test_alignment_finds_the_same_persons_in_the_same_order(a: set, b: set, both: set, rng) -> None:
    """Also for ids that end in zero bytes."""
    left, right = list(a | both), list(b | both)
    rng.shuffle(left)
    rng.shuffle(right)
    at_left = common_rows(left, encode_links(right, "r"), "l", "r")
    at_right = common_rows(right, encode_links(left, "l"), "r", "l")
    assert [left[i] for i in at_left] == [right[i] for i in at_right]
    assert {left[i] for i in at_left} == set(left) & set(right)


@FAST
@given(st.integers(0, 10**9), st.floats(0, 1e12), st.integers(0, 60), st.floats(0, 1e9))
def test_headroom_refuses_exactly_what_could_wrap(rows: int, bound: float, bits: int, noise: float) -> None:
    """Whatever passes stays inside the signed range of the ring."""
    exact = (rows * bound + 16 * noise) * 2**bits
    if exact >= 2.0**63:
        with pytest.raises(RingOverflow):
            check_headroom(rows, bound, bits, noise)
    else:
        check_headroom(rows, bound, bits, noise)


@FAST
@given(st.lists(st.binary(min_size=0, max_size=40), max_size=5), st.binary(max_size=70))
def test_untrusted_link_lists_raise_nothing_but_links_refused(ids: list, blob: bytes) -> None:
    """Any bytes from a peer, any ids of one's own."""
    with contextlib.suppress(LinksRefused):
        common_rows(ids, blob, "own", "peer")


def test_bits_are_those_of_the_protocol() -> None:
    """LOCAL 20, DOT 28, WEIGHTED 43: changing them changes the protocol's number."""
    side = Side("oem", (OEM,))
    kinds = {kind: fraction_bits(planned(kind, (0, 1), 1, side, ())) for kind in ("LOCAL", "DOT", "WEIGHTED")}
    assert kinds == {"LOCAL": 20, "DOT": 28, "WEIGHTED": 43}
    assert CHUNK_ROWS == 65_536
