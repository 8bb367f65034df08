"""Padded rows: the sums of the common persons, from which the lister does not learn who is with whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_models.errors import LinksRefused, MessageMissing, ShapeMismatch
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import open_sum
from convoy_models.sums.align import LINK_BYTES
from convoy_models.testing import MemoryFederation, NoNoise

OEM, CHARGING = "oem", "charging"
INSURERS = ("insurer-a", "insurer-b", "insurer-c")
WIDTH = 4


def planned(kind: str, matrix: Side, vectors: tuple[Side, ...], width: int = 1) -> PlannedQuery:
    """A query over all columns of the matrix."""
    return PlannedQuery(
        id=f"joint/{kind}/{matrix.role}", kind=kind, cohort="joint", module=matrix.role, purpose="model", sweep=1,
        group=0, columns=(0, WIDTH), shape=(WIDTH, width), clip=16.0, sigma=1.0, mu2=256.0, matrix=matrix,
        vectors=vectors,
    )  # fmt: skip


class World:
    """Drivers of the carmaker, each insured at most once; everybody's values by link id."""

    def __init__(self, seed: int, drivers: int, insured: int, names: tuple[str, ...] = INSURERS) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.names = rng, names
        self.links = [rng.bytes(LINK_BYTES) for _ in range(drivers)]
        self.books = {name: self.links[:insured][at :: len(names)] for at, name in enumerate(names)}
        strangers = {name: [rng.bytes(LINK_BYTES) for _ in range(3)] for name in names}
        self.own = {name: [*book, *strangers[name]] for name, book in self.books.items()}
        everybody = [*self.links, *(link for book in strangers.values() for link in book)]
        self.x = {link: rng.random(WIDTH) for link in everybody}
        self.z = {link: rng.random(WIDTH) for link in everybody}
        self.a = {link: rng.random() for link in everybody}
        self.b = {link: rng.random() for link in everybody}
        self.c = {link: rng.random(2) for link in everybody}

    def federation(self, *, is_padded: bool, triples: bool = False) -> tuple[MemoryFederation, dict[Any, list[bytes]]]:
        """Align; return for each edge whose link ids its rows are, in order."""
        made = MemoryFederation(
            dict.fromkeys([OEM, *self.names, *([CHARGING] if triples else [])], NoNoise()),
            [(OEM, name) for name in self.names],
            triples=[(OEM, name, CHARGING) for name in self.names] if triples else (),
            lister=OEM if is_padded else None,
        )
        ids: dict[Any, list[bytes]] = {}
        for name, own in self.own.items():
            ids[OEM, name] = list(self.links) if is_padded else [*self.links[:7], *self.books[name]]
            ids[OEM, name] = list(dict.fromkeys(ids[OEM, name]))
            ids[name, OEM] = list(own)
            for listed in ids.values():
                self.rng.shuffle(listed)
        order = made.align(ids)
        rows = {edge: [ids[edge][at] for at in places] for edge, places in order.items()}
        made.hold({(p, q): np.array([(self.x if p == OEM else self.z)[link] for link in rows[p, q]]) for p, q in rows})
        return made, rows

    def sums(self, *, is_padded: bool) -> list[np.ndarray]:
        """Ask one query of each kind, with the matrix at either side."""
        federation, rows = self.federation(is_padded=is_padded)
        oem, side = Side("oem", (OEM,)), Side("insurer", self.names)
        a = {(n, OEM): np.array([self.a[link] for link in rows[n, OEM]]) for n in self.names}
        b = {(OEM, n): np.array([self.b[link] for link in rows[OEM, n]]) for n in self.names}
        asked = [
            (planned("DOT", oem, (side,)), a),
            (planned("WEIGHTED", oem, (side, oem)), a | b),
            (planned("WEIGHTED", side, (side, oem)), a | b),
        ]
        return [open_sum(query, federation.ask(query, values=values)) for query, values in asked]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(60, 260), st.integers(9, 60))
def test_sums_are_equal_with_and_without_padding(seed: int, drivers: int, insured: int) -> None:
    """And equal to the plain sums over the persons whom both sides know."""
    world = World(seed, drivers, insured)
    common = [link for book in world.books.values() for link in book]
    expected = [
        sum(world.x[link] * world.a[link] for link in common),
        sum(world.x[link] * world.a[link] * world.b[link] for link in common),
        sum(world.z[link] * world.a[link] * world.b[link] for link in common),
    ]
    tolerance = drivers * 2.0**-12
    for with_padding, without, plain in zip(
        world.sums(is_padded=True), world.sums(is_padded=False), expected, strict=True
    ):
        np.testing.assert_array_equal(with_padding, without)
        np.testing.assert_allclose(with_padding, plain, rtol=0, atol=tolerance)


def test_a_sum_over_three_parties_is_the_plain_one_with_padding() -> None:
    """The charging operator places the carmaker's whole list, so it does not learn the insurer either."""
    world = World(5, 230, 90)
    federation, rows = world.federation(is_padded=True, triples=True)
    known = world.links[20:160]
    places = federation.place(CHARGING, known)
    third = {n: np.array([world.c[known[p]] if p >= 0 else np.zeros(2) for p in places[n]]) for n in INSURERS}
    values = {(n, OEM): np.array([world.a[link] for link in rows[n, OEM]]) for n in INSURERS}
    values |= {(CHARGING, n): v for n, v in third.items()}
    vectors = (Side("insurer", INSURERS), Side("charging", (CHARGING,)))
    query = planned("TRILINEAR", Side("oem", (OEM,)), vectors, width=2)
    answer = open_sum(query, federation.ask(query, values=values)).reshape(WIDTH, 2)
    expected = sum(
        np.outer(world.x[link], world.a[link] * world.c[link])
        for book in world.books.values() for link in book if link in known
    )  # fmt: skip
    np.testing.assert_allclose(answer, expected, rtol=0, atol=0.1)


def test_the_lister_receives_nothing_that_tells_who_is_with_whom() -> None:
    """No list of ids reaches it, its rows are its own list, and every message has the same length for every insurer."""
    world = World(3, 180, 120, names=INSURERS[:2])
    federation, rows = world.federation(is_padded=True)
    for name in world.names:
        assert federation.sessions[name].links(OEM, world.own[name]) == {}
        assert len(rows[OEM, name]) == 180
        assert len(rows[name, OEM]) == 60
        assert federation.sessions[OEM].rows(name) == federation.sessions[name].rows(OEM) == 200
    oem, side = Side("oem", (OEM,)), Side("insurer", world.names)
    query = planned("WEIGHTED", oem, (side, oem))
    federation.deliver({"trustee": federation.dealer.deal(query)})
    sent = [
        federation.sessions[n].open(query, {OEM: np.array([world.a[link] for link in rows[n, OEM]])}, 1.0)
        for n in world.names
    ]
    lengths = {len(blob) for blobs in sent for blob in blobs.values()}
    assert len(lengths) == 1
    raw = b"".join(blob for blobs in sent for blob in blobs.values())
    assert not [link for link in world.links if link in raw]


def test_padding_refuses_a_list_of_strangers_and_rows_of_another_number() -> None:
    """As the common alignment does."""
    federation = MemoryFederation({OEM: NoNoise(), "insurer-a": NoNoise()}, [(OEM, "insurer-a")], lister=OEM)
    own = [bytes([n]) * LINK_BYTES for n in range(60)]
    with pytest.raises(MessageMissing):
        federation.sessions["insurer-a"].align(OEM)
    federation.sessions["insurer-a"].links(OEM, own[:1])
    federation.deliver({OEM: federation.sessions[OEM].links("insurer-a", own[1:])})
    with pytest.raises(LinksRefused):
        federation.sessions["insurer-a"].align(OEM)
    assert len(federation.sessions[OEM].align("insurer-a")) == 59
    with pytest.raises(ShapeMismatch):
        federation.sessions[OEM].hold("insurer-a", np.zeros((100, 2)))
