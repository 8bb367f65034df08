"""Who is held back from a run: decided person by person, by a secret of the node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from convoy_node.held_back import hold_back, nobody

SEED = bytes(range(32))
PERSONS = [f"P{n}" for n in range(20_000)]


@given(st.sets(st.sampled_from(PERSONS[:500])), st.sets(st.sampled_from(PERSONS[:500])))
def test_nobody_moves_because_somebody_else_comes_or_goes(some: set[str], more: set[str]) -> None:
    """One person more or less changes a sum by that person alone; else no clip would bound it."""
    chosen = hold_back(SEED, "urn:convoy:contract:1", 100)
    assert chosen(some) == chosen(some | more) & some


def test_the_share_is_kept_and_the_secret_and_the_contract_decide_who() -> None:
    """A fiftieth, other persons under another contract or at another node, the same again in the next run."""
    mine = hold_back(SEED, "urn:convoy:contract:1", 20)(PERSONS)
    assert 330 < len(mine) < 470
    assert hold_back(SEED, "urn:convoy:contract:1", 20)(PERSONS) == mine
    for seed, contract in ((SEED[::-1], "urn:convoy:contract:1"), (SEED, "urn:convoy:contract:2")):
        assert len(hold_back(seed, contract, 20)(PERSONS) & mine) < 40
    assert nobody(PERSONS) == frozenset()
