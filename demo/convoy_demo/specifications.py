"""The demo's two specifications: what its contracts pin about the joint models.

Knots and bounds are domain knowledge or product terms, written before any data were drawn. Caps,
shares and prior were chosen on generated populations (``models/LOG.md``), never on a partner's
data.
"""

from __future__ import annotations

from collections.abc import Sequence

from convoy_contracts.specification import (
    Cuts,
    Evaluation,
    Knots,
    Levels,
    RecommendSpecification,
    RiskSpecification,
    Tower,
)
from convoy_demo.population import ITEMS

EPSILON_MICRO = 4_000_000
DELTA_NANO = 1_000


def _knots(name: str, points: Sequence[float], scale: str = "linear") -> Knots:
    texts = tuple(f"{point:g}" for point in points)
    return Knots(kind="knots", name=name, knots=texts, scale="log1p" if scale == "log1p" else "linear")


INSURER_FEATURES = (
    _knots("driver_age", (18, 21, 24, 28, 35, 50, 65, 75, 85)),
    _knots("licence_gap_years", (0, 2, 5, 12)),
    _knots("bonus_malus", (0.5, 0.6, 0.75, 0.9, 1.05, 1.3, 1.7)),
    _knots("vehicle_power", (4, 6, 8, 10, 13)),
    _knots("vehicle_age", (0, 3, 7, 12, 18)),
    _knots("density_log", (0, 2, 4, 6, 8, 10)),
    _knots("declared_km_1000", (2, 6, 10, 15, 22, 35), "log1p"),
    Levels(kind="levels", name="garage", levels=("no", "yes")),
)
OEM_FEATURES = (
    _knots("km_1000", (2, 5, 8, 12, 17, 25, 40), "log1p"),
    _knots("harsh_braking_100km", (0, 1, 2, 3, 4.5, 7, 10), "log1p"),
    _knots("harsh_acceleration_100km", (0, 1, 2, 3, 4.5, 7, 10), "log1p"),
    _knots("speeding_share", (0, 0.04, 0.08, 0.12, 0.17, 0.25)),
    _knots("night_share", (0, 0.06, 0.12, 0.18, 0.26, 0.4)),
    _knots("urban_share", (0, 0.2, 0.4, 0.6, 0.8, 1)),
    _knots("distraction_100km", (0.2, 0.6, 1.2, 2, 3.2, 5, 8), "log1p"),
    _knots("collision_warnings_1000km", (0.2, 0.6, 1.2, 2, 3.2, 5, 8), "log1p"),
)
AGE_GROUPS = Cuts(kind="cuts", name="driver_age", cuts=("25", "65"))
"""Groups whose levels every insurer corrects on its own book (``convoy_models.risk.model.local_levels``)."""
PROFILE = (
    _knots("km_1000", (2, 12, 40), "log1p"),
    _knots("harsh_braking_100km", (0, 2, 10), "log1p"),
    _knots("harsh_acceleration_100km", (0, 2, 10), "log1p"),
    _knots("speeding_share", (0, 0.25)),
    _knots("night_share", (0, 0.4)),
    _knots("urban_share", (0, 1)),
    _knots("distraction_100km", (0.2, 1.5, 8), "log1p"),
    _knots("collision_warnings_1000km", (0.2, 1.2, 8), "log1p"),
)


def risk_specification(epsilon_micro: int = EPSILON_MICRO, delta_nano: int = DELTA_NANO) -> RiskSpecification:
    """Return the claim-frequency model of the demo: 8 + 8 features, 10 vertical and 3 + 2 local
    sums."""
    return RiskSpecification(
        kind="risk-towers/1",
        towers=(
            Tower(role="insurer", features=INSURER_FEATURES, cap="0.15"),
            Tower(role="oem", features=OEM_FEATURES, cap="2"),
        ),
        claims="claim_count",
        exposure="exposure_years",
        claimCap=1,
        priorRate="0.08",
        priorScale="0.2",
        smoothness="0.8",
        sweeps=5,
        soloSweeps=4,
        labelShareMilli=650,
        patterns="own",
        epsilonMicro=epsilon_micro,
        deltaNano=delta_nano,
        cohortFloor=30_000,
    )


def evaluated_risk_specification() -> RiskSpecification:
    """Return the model of the demo's contract: a quarter of the joint cohort is held out, a fifth of mu^2 pays for judging it."""
    terms = Evaluation(holdoutMilli=250, shareMilli=200, confidenceMilli=600, audit="driver_age")
    return risk_specification().model_copy(update={"evaluation": terms, "cohortFloor": None})


def recommend_specification(epsilon_micro: int = EPSILON_MICRO, delta_nano: int = DELTA_NANO) -> RecommendSpecification:
    """Return the offer model of the demo: 100 items, cold start from the driving profile."""
    return RecommendSpecification(
        kind="recommend-items/1",
        items=ITEMS,
        profile=PROFILE,
        historyNorm="2",
        gramShareMilli=500,
        crossShareMilli=400,
        epsilonMicro=epsilon_micro,
        deltaNano=delta_nano,
        cohortFloor=3_000,
    )
