"""Membership inference with real persons: a data holder's attack at home on the candidate of a run, before its release.

    claim_scores(claims, expected, ...)      towers, severity, tables, tables with a residual
    offer_scores(model, rows)                item-item recommendations
    attacked(cohort, scores, is_out, spec)   Attack: what a threshold on such scores proves, against what epsilon allows
    held_back_milli(spec, holders)           how many persons each holder keeps out of every sum for it

The attacker knows most: real members, real others of the same book, exact labels, the model, and which of its own
persons took part. A score is how well the candidate explains a person *beyond what is known without it* (one rate, or the
person's other items): a calibrated loss, since the bare loss varies more between persons than between members and
others (Watson et al. 2022, arXiv:2111.08440). What may be proven is ``TPR - FPR <= 2 Phi(mu / 2) - 1``
(``privacy_audit.membership``).

Costs no budget: nothing of it leaves its node but the verdict, as a veto does. No alarm proves nothing: the promise rests
on the derivation in ``plan``; an alarm says that this very model, with whatever noise it really has, breaks it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import SeveritySpecification, Specification
from convoy_models.fixedpoint import Floats
from convoy_models.gates import floor_of
from convoy_models.privacy_audit import Membership, membership
from convoy_models.recommend.model import RecommendModel

FEWEST_ATTACKED: Final = 50
"""Below as many members, or others, an attack says nothing."""
LEAST_PERSONS: Final = 2_500
"""Of one holder on average, at the contract's floor: a fiftieth of them is ``FEWEST_ATTACKED``."""
HELD_BACK_MILLI: Final = 20
HELD_BACK_MILLI_SEVERITY: Final = 50
"""More, since only persons with a claim say anything about a severity."""
_SMALLEST: Final = 1e-12
_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack on one cohort of a candidate; ``found`` is None where too few persons are on a side."""

    cohort: str
    found: Membership | None

    @property
    def is_alarm(self) -> bool:
        """Whether the attack proves more than the claim allows."""
        return self.found is not None and self.found.is_alarm


def claim_scores(claims: Floats, expected: Floats, prior: Floats, is_out: npt.NDArray[np.bool_]) -> Floats:
    """Return each person's log likelihood under the candidate over that of one rate, (N,), at the members' level.

    The level is one number and the members' own, since an own tower lacks the other party's mean, and since what a model
    that knows its members by heart says about others is wild.
    Severity: counts as claims, amounts times the inverse mean as expected, amounts as prior (``risk.severity``).

    Args:
        claims: (N,) capped claims, members and others.
        expected: (N,) claims that the candidate, or the own tower of it, expects; > 0 up to a constant factor.
        prior: (N,) what one rate expects, > 0 up to a constant factor.
        is_out: (N,) who was not trained on.
    """

    def at_level(values: Floats) -> Floats:
        scale = max(float(claims[~is_out].sum()), 1.0) / max(float(values[~is_out].sum()), _SMALLEST)
        return np.maximum(values * scale, _SMALLEST)

    told, flat = at_level(expected), at_level(prior)
    return np.asarray(claims * np.log(told / flat) - (told - flat), dtype=np.float64)


def offer_scores(model: RecommendModel, rows: Floats) -> Floats:
    """Return how high each person's own items rank, (N,): mean share of all items that score lower than an item of theirs.

    The model's diagonal is zero, so an item's score comes from the person's other items only.

    Args:
        model: candidate.
        rows: (N, items) of ``recommend.items.history_rows``, each with an item at least.

    Raises:
        ItemsMalformed: rows of another width.
    """
    out = np.zeros(len(rows))
    for start in range(0, len(rows), _ROWS):  # a chunk at a time: ranks need several copies of the scores
        part = rows[start : start + _ROWS]
        ranks = model.warm(part).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        used = part > 0
        out[start : start + _ROWS] = (ranks * used).sum(axis=1) / np.maximum(used.sum(axis=1), 1) / part.shape[1]
    return out


def attacked(cohort: str, scores: Floats, is_out: npt.NDArray[np.bool_], specification: Specification) -> Attack:
    """Return what scores prove about who was trained on.

    Args:
        cohort: its name, for the report.
        scores: (N,) of members and others.
        is_out: (N,) who was not trained on.
        specification: with the claim, epsilon and delta.

    Raises:
        AuditRefused: scores that are not finite.
    """
    members, others = scores[~is_out], scores[is_out]
    if min(members.size, others.size) < FEWEST_ATTACKED:
        return Attack(cohort, None)
    claim = specification.epsilonMicro / 1e6, specification.deltaNano / 1e9
    return Attack(cohort, membership(members, others, *claim))


def held_back_milli(specification: Specification, holders: int) -> int:
    """Return how many of a thousand persons each holder of labels or histories holds back from every sum for the attack.

    Read from the contract alone: were it to depend on how many persons there are, one person more would move others into
    a sum. 0 where the contract lets a cohort train that is too small to spare anybody.

    Args:
        specification: signed.
        holders: insurers, or charging operators, that take part.
    """
    if floor_of(specification) < LEAST_PERSONS * holders:
        return 0
    return HELD_BACK_MILLI_SEVERITY if isinstance(specification, SeveritySpecification) else HELD_BACK_MILLI
