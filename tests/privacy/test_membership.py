"""The attack before a release: a plan that keeps its promise is not blamed, one that leaks is caught."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_contracts.specification import Cuts, Knots, Levels, PairsSpecification, RiskSpecification, Tower
from convoy_models.errors import AccountingRefused
from convoy_models.membership import attack
from convoy_models.privacy_audit import AuditRefused, membership

TOWERS = RiskSpecification(
    kind="risk-towers/1",
    towers=(
        Tower(
            role="insurer",
            features=(
                Knots(kind="knots", name="age", knots=("18", "30", "50", "80")),
                Levels(kind="levels", name="garage", levels=("no", "yes")),
            ),
            cap="0.25",
        ),
        Tower(
            role="oem", features=(Knots(kind="knots", name="braking", knots=("0", "1", "4", "10")),), cap="2.2"
        ),
    ),
    claims="claims", exposure="years", claimCap=1, priorRate="0.08", priorScale="0.2", smoothness="0.8", sweeps=2,
    labelShareMilli=650, patterns="joint-only", epsilonMicro=4_000_000, deltaNano=1_000,
)  # fmt: skip
TABLES = PairsSpecification(
    kind="risk-pairs/1",
    features=(
        Cuts(kind="cuts", name="age", cuts=("25", "40", "60")),
        Levels(kind="levels", name="fuel", levels=("petrol", "diesel")),
    ),
    pairs=(("age", "fuel"),), claims="claims", exposure="years", priorRate="0.08", passes=2,
    epsilonMicro=4_000_000, deltaNano=1_000,
)  # fmt: skip
ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"]}
SMALL = {"shadows": 16, "attacked": 240}


@pytest.mark.parametrize("specification", [TOWERS, TABLES], ids=["towers", "tables"])
def test_a_planned_run_does_not_tell_its_members_and_the_same_run_without_noise_does(
    specification: RiskSpecification | PairsSpecification,
) -> None:
    """LiRA over conspicuous persons: below what epsilon 4 allows; at a thousandth of the noise, an alarm."""
    good = attack(specification, ROLES, np.random.default_rng(1), **SMALL)
    assert not good.is_alarm
    bad = attack(specification, ROLES, np.random.default_rng(1), noise=1e-3, **SMALL)
    assert bad.is_alarm, bad
    assert bad.auc > good.auc


def test_losses_of_an_overfitted_model_are_an_alarm_and_those_of_an_honest_one_are_not() -> None:
    """The threshold attack on scores that a node computes on its own rows."""
    rng = np.random.default_rng(2)
    honest = membership(rng.normal(size=4000), rng.normal(size=4000), 4.0, 1e-6)
    assert not honest.is_alarm
    assert membership(rng.normal(size=4000) + 4, rng.normal(size=4000), 1.0, 1e-6).is_alarm


def test_too_few_persons_or_an_unknown_model_are_refused() -> None:
    """Nothing is concluded from ten persons, nor from a specification that this attack does not know."""
    with pytest.raises(AuditRefused):
        membership(np.zeros(5), np.zeros(50), 4.0, 1e-6)
    with pytest.raises(AccountingRefused):
        attack(object(), ROLES, np.random.default_rng(1))  # type: ignore[arg-type]
