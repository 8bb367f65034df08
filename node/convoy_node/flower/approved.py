"""Which app bundles this node takes runs of: those of its signed contracts, never what a server says.

A contract names a bundle as an allowed algorithm called ``flower-app`` whose digest is the bundle's SHA-256. Where no signed
contract names one, it is the bundle of the installed release: it holds no code, and both ends compute the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from convoy_contracts.document import Contract

ALGORITHM: Final = "flower-app"
RELEASE: Final = "7409f642981dd57eebf1061b31455fa09e054fa1c25218b12251c4f8fd05950c"
"""SHA-256 of the app bundle of this release of Convoy; a test compares it with what the coordinator builds."""


def approved_apps(contracts: Iterable[str]) -> frozenset[str]:
    """Return the SHA-256 (hex) of each app bundle that the signed contracts name.

    Args:
        contracts: texts of the contracts that this party signed.
    """
    named = {
        algorithm.digest.removeprefix("sha256:")
        for text in contracts
        for algorithm in Contract.parse(text).algorithms
        if algorithm.id == ALGORITHM
    }
    return frozenset(named or {RELEASE})
