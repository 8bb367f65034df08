"""Untrusted input raises nothing but errors of this package; accounting is monotone."""

from __future__ import annotations

import contextlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_models.accounting import epsilon_of, micro, mu2_of_units, mu_of, units_of
from convoy_models.errors import MessageMalformed, ModelsError
from convoy_models.fixedpoint import decode, encode
from convoy_models.messages import from_record
from convoy_models.sums import DealerSession, PartySession
from convoy_models.testing import NoNoise, new_keys

FAST = settings(max_examples=60, deadline=None)
KEYS = new_keys(["oem", "insurer", "trustee"])
NAMES = st.one_of(
    st.text(max_size=30),
    st.builds(
        "|".join,
        st.tuples(
            st.sampled_from(["from", "to"]),
            st.sampled_from(["oem", "insurer", "trustee", "x"]),
            st.sampled_from(["align", "matrix.0", "matrix.x", "shape.oem", "share.q", "deal.q.oem"]),
        ),
    ),
)


@FAST
@given(st.dictionaries(NAMES, st.binary(max_size=80), max_size=3), st.booleans())
def test_no_blob_from_the_network_raises_anything_else(blobs: dict, sealed: bool) -> None:
    """Any names and bytes, also bytes that a peer sealed correctly but that mean nothing."""
    party = PartySession("r", 1, KEYS["oem"], peers=["insurer"], trustee="trustee", noise=NoNoise())
    party.links("insurer", [bytes(16)])
    dealer = DealerSession("r", 1, KEYS["trustee"])
    for session, receiver in ((party, "oem"), (dealer, "trustee")):
        for name, plain in blobs.items():
            _, _, rest = name.partition("|")
            sender, _, tag = rest.partition("|")
            blob = plain
            if sealed and sender in KEYS and sender != receiver:
                aad = party._attempt.aad(tag, sender, receiver)
                blob = KEYS[sender].seal(receiver, aad, plain)
            with contextlib.suppress(ModelsError):
                session.receive({name: blob})
    with contextlib.suppress(ModelsError):
        party.align("insurer")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@FAST
@given(st.dictionaries(st.sampled_from(["c", "a", "x"]), st.dictionaries(NAMES | st.just("json"), JSON)))
def test_no_record_from_the_network_raises_anything_else(record: dict) -> None:
    """Whatever stands where JSON, blobs and arrays belong."""
    with contextlib.suppress(MessageMalformed):
        from_record(record)


@FAST
@given(st.floats(1e-3, 20.0), st.sampled_from([1e-9, 1e-6, 1e-4]))
def test_mu_of_any_epsilon_stays_under_it_and_close(epsilon: float, delta: float) -> None:
    """The round trip loses less than 1e-6 and gains nothing."""
    back = epsilon_of(mu_of(epsilon, delta) ** 2, delta)
    assert back <= epsilon
    assert back > epsilon - 1e-6


@FAST
@given(st.lists(st.floats(0, 2.0), min_size=2, max_size=6))
def test_spending_more_never_costs_less(costs: list[float]) -> None:
    """Epsilon is monotone in mu^2, and ledger units do not depend on the order."""
    totals = list(itertools.accumulate(costs))
    epsilons = [epsilon_of(total, 1e-6) for total in totals]
    assert epsilons == sorted(epsilons)
    units = [units_of(cost) for cost in costs]
    assert mu2_of_units(sum(units)) >= math.fsum(costs) - 1e-14
    assert micro(epsilons[-1]) >= epsilons[-1] * 1e6 - 1e-6


@FAST
@given(st.lists(st.floats(-1e5, 1e5), max_size=20), st.integers(0, 40))
def test_decoding_an_encoding_is_the_nearest_grid_value(values: list[float], bits: int) -> None:
    """Within half a step, for every fraction width."""
    back = decode(encode(values, bits), bits)
    assert np.all(np.abs(back - np.array(values)) <= 2.0 ** -(bits + 1))
    assert back.tolist() == pytest.approx(values, abs=2.0**-bits)
