"""Persons whom a node holds back from every sum, by a secret of its own, so that a candidate can be attacked before its release.

A membership attack (``convoy_models.home_attack``) compares persons who were trained on with persons who were not. Where the
contract holds nobody out, each holder of labels or histories keeps a few of its persons out of everything it answers, chosen
by a keyed hash: nobody else, the coordinator least of all, knows or can choose who they are. They cost the model that share of
its persons and nothing of the budget.

Guarantees: whether a person is held back depends on that person, the contract and this node's secret alone, never on who
else is there - or adding one person would move others into a sum, and no clip bounds that. Whether a contract has anybody
held back is read from its text (``convoy_models.home_attack.held_back_milli``).

Does not: keep the same persons back for ever. They change with the node's identity key, which harms nobody: every candidate
is attacked with those who were held back in its own run.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection
from typing import Final

_LABEL: Final = b"convoy held-back/1\0"
HoldBack = Callable[[Collection[str]], frozenset[str]]
"""From the local ids of persons to those of them who are held back."""


def hold_back(seed: bytes, contract: str, milli: int) -> HoldBack:
    """Return who is held back under a contract.

    Args:
        seed: secret of this node, 32 bytes; the key is derived from it.
        contract: uid, alike for all versions.
        milli: of a thousand persons, how many on average.
    """
    key = hmac.digest(seed, _LABEL + contract.encode(), hashlib.sha256)
    top = milli * (1 << 32) // 1000

    def is_held_back(person: str) -> bool:
        return int.from_bytes(hmac.digest(key, person.encode(), hashlib.sha256)[:4], "big") < top

    return lambda persons: frozenset(filter(is_held_back, persons)) if top else frozenset()


nobody: Final[HoldBack] = hold_back(b"", "", 0)
"""Hold nobody back."""
