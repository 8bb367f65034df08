"""Who is in a step: secret Poisson coins, one for each person and step, thrown inside the node.

Amplification by sampling holds because nobody outside the node learns which persons a step was about.
So coins come from the operating system, are never stored, logged or sent, and the sum is divided by a
PUBLIC number: the size of a batch never leaves (opacus issue 571: its real size costs epsilon).
LIMIT: a step takes longer with more persons in it; a coordinator that times answers to milliseconds
could estimate the size of a batch. Answers of one exchange leave together, which blurs it.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt

from convoy_models.errors import ValueRefused

Bools = npt.NDArray[np.bool_]
MILLION = 1_000_000


class Coins(Protocol):
    """Whoever throws the coins."""

    def throw(self, persons: int, rate_micro: int) -> Bools:
        """Return which persons are in: each with probability ``rate_micro`` / 10^6, independently."""
        ...


class SecretCoins:
    """Coins of the operating system; the only ones a node uses."""

    def throw(self, persons: int, rate_micro: int) -> Bools:
        """Return which persons are in.

        The chance is rounded down to 2^-32 steps, so never above the stated one.

        Raises:
            ValueRefused: a rate outside (0, 1], or a negative number of persons.
        """
        if not 0 < rate_micro <= MILLION or persons < 0:
            raise ValueRefused(f"{persons} persons cannot be sampled at {rate_micro} millionths.")
        if rate_micro == MILLION:
            return np.ones(persons, dtype=np.bool_)
        words = np.frombuffer(secrets.token_bytes(4 * persons), dtype=np.uint32)
        return np.asarray(words < np.uint32(rate_micro * 2**32 // MILLION))
