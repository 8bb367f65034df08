"""Severity is a Gamma model on the frequency's sums; monotone curves; frequency x severity."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import GammaRegressor
from sklearn.metrics import mean_gamma_deviance

from convoy_contracts.specification import Knots, Levels, RiskSpecification, SeveritySpecification, Tower
from convoy_models.features import ColumnRefused
from convoy_models.plan import plan
from convoy_models.risk.isotonic import DirectionRefused, monotone, monotone_severity
from convoy_models.risk.model import CohortModel, ModelMalformed, RiskModel
from convoy_models.risk.severity import (
    PurePremium,
    SeverityModel,
    fit_severity_plain,
    gamma_deviance,
    severity_labels,
    severity_level,
)
from convoy_models.risk.towers import LabelsRefused
from convoy_node.columns import Column, expected_columns

INSURER = Tower(
    role="insurer",
    features=(
        Levels(kind="levels", name="car", levels=("small", "middle", "large")),
        Knots(kind="knots", name="age", knots=("18", "30", "80")),
    ),
    cap="30",
)
OEM = Tower(role="oem", features=(Levels(kind="levels", name="driver", levels=("calm", "fast")),), cap="3")
SPEC = SeveritySpecification(
    kind="severity-towers/1",
    towers=(INSURER, OEM),
    claims="n",
    amount="paid",
    claimCap=3,
    amountCap="40000",
    amountUnit="2000",
    priorScale="1",
    sweeps=8,
    patterns="joint-only",
    epsilonMicro=4_000_000,
    deltaNano=1_000,
)
ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"]}


def _people(size: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Return persons whose claims cost 2000 x 1 / 1.3 / 1.8 (car) x 1 / 1.4 (driver)."""
    rng = np.random.default_rng(seed)
    car, driver = rng.integers(0, 3, size), rng.integers(0, 2, size)
    counts = rng.poisson(0.4, size)
    mean = 2000 * np.array([1, 1.3, 1.8])[car] * np.array([1, 1.4])[driver]
    paid = rng.gamma(np.maximum(counts, 1) * 2.0, mean / 2.0) * (counts > 0)
    return {
        "car": np.array(["small", "middle", "large"])[car], "driver": np.array(["calm", "fast"])[driver],
        "age": rng.uniform(18, 80, size), "n": counts, "paid": paid,
    }  # fmt: skip


def test_without_noise_it_is_the_gamma_glm_of_scikit_learn() -> None:
    """Same predictions within one per cent on 20,000 persons; in every level the expected counts balance."""
    people = _people(20_000)
    model = fit_severity_plain(SPEC, plan(SPEC, ROLES), {"joint": people})
    kept = (people["n"] > 0) & (people["n"] <= 3)
    x = np.column_stack(
        [people["car"] == "middle", people["car"] == "large", people["driver"] == "fast",
         np.interp(people["age"], [18, 30, 80], [0, 1, 0]), people["age"] > 30, people["age"]]
    ).astype(float)  # fmt: skip
    x[:, 4] = np.interp(people["age"], [30, 80], [0, 1])
    glm = GammaRegressor(alpha=0, max_iter=2_000, tol=1e-9)
    glm.fit(x[kept, :5], people["paid"][kept] / people["n"][kept], sample_weight=people["n"][kept])
    mean = model.mean("joint", people)
    np.testing.assert_allclose(mean, glm.predict(x[:, :5]), rtol=0.015)
    labels = severity_labels(SPEC, people)
    for level in ("small", "middle", "large"):
        here = people["car"] == level
        assert labels.claims[here].sum() == pytest.approx(
            (labels.exposure_years[here] * 2000 / mean[here]).sum(), rel=0.005
        )


def test_factors_are_those_of_the_amount_and_survive_their_arrays() -> None:
    """A large car costs 1.8 times a small one; arrays hold log factors of the amount."""
    people = _people(20_000)
    model = fit_severity_plain(SPEC, plan(SPEC, ROLES), {"joint": people})
    factors = {(row.feature, row.point): row.factor for row in model.table()}
    assert factors["car", "large"] / factors["car", "small"] == pytest.approx(1.8, rel=0.06)
    assert factors["driver", "fast"] / factors["driver", "calm"] == pytest.approx(1.4, rel=0.06)
    arrays = model.to_arrays()
    assert np.exp(arrays["joint/insurer/car"][2]) == pytest.approx(factors["car", "large"], rel=1e-9)
    assert 2000 < np.exp(arrays["joint/level"][0]) < 4000
    again = SeverityModel.from_arrays(SPEC, arrays)
    np.testing.assert_allclose(again.mean("joint", people), model.mean("joint", people), rtol=1e-12)
    with pytest.raises(ModelMalformed):
        SeverityModel.from_arrays(SPEC, {name: v for name, v in arrays.items() if not name.endswith("car")})


def test_with_noise_it_stays_better_than_one_mean() -> None:
    """Epsilon 4 and the noise of the plan: deviance on fresh persons between the truth's and one mean's."""
    spec = SPEC.model_copy(
        update={
            "claimCap": 1, "amountCap": "6000", "priorScale": "0.2",
            "towers": (INSURER.model_copy(update={"cap": "3"}), OEM.model_copy(update={"cap": "1.5"})),
        }
    )  # fmt: skip
    people, fresh = _people(40_000), _people(20_000, seed=9)
    model = fit_severity_plain(spec, plan(spec, ROLES), {"joint": people}, np.random.default_rng(1))
    level = severity_level(people["paid"], people["n"].astype(float), model.mean("joint", people))
    claims = fresh["n"].astype(float)
    ours = gamma_deviance(claims, fresh["paid"], level * model.mean("joint", fresh))
    flat = gamma_deviance(claims, fresh["paid"], np.full(claims.size, people["paid"].sum() / people["n"].sum()))
    assert ours < flat
    assert level * (model.mean("joint", people) @ people["n"]) == pytest.approx(people["paid"].sum(), rel=0.02)


def test_caps_bound_a_person_and_persons_without_claims_are_zeros() -> None:
    """Counts to claimCap, the mean to amountCap; a claim without payment is no claim here."""
    spec = SPEC.model_copy(update={"claimCap": 2, "amountCap": "3000"})
    labels = severity_labels(spec, {"n": [0, 1, 5, 1], "paid": [0.0, 9000.0, 5000.0, 0.0]})
    assert labels.claims.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(labels.exposure_years, [0, 1.5, 1.0, 0])


@pytest.mark.parametrize(
    ("n", "paid", "error"),
    [
        ([1, -1], [1.0, 0.0], LabelsRefused),
        ([1.5, 0], [1.0, 0.0], LabelsRefused),
        ([1, 0], [-1.0, 0.0], LabelsRefused),
        ([0, 1], [100.0, 1.0], LabelsRefused),
        ([1, 0], [float("nan"), 0.0], ColumnRefused),
        ([1, 0], [float("inf"), 0.0], ColumnRefused),
        ([1, 0], [1.0], LabelsRefused),
    ],
)
def test_counts_and_amounts_that_do_not_fit_are_refused(n: list[float], paid: list[float], error: type) -> None:
    """Negative, fractional, NaN, infinite, an amount without a claim, other lengths."""
    with pytest.raises(error):
        severity_labels(SPEC, {"n": n, "paid": paid})
    with pytest.raises(LabelsRefused, match="absent"):
        severity_labels(SPEC, {"n": [1]})


def test_a_node_reads_counts_and_amounts() -> None:
    """The columns that the schedule must have."""
    columns = expected_columns(SPEC, "insurer")
    assert columns[-2:] == (Column("n", "claims"), Column("paid", "numeric"))
    assert [column.name for column in expected_columns(SPEC, "oem")] == ["driver"]


def test_amounts_without_sense_make_no_specification() -> None:
    """A cap below the unit, a unit of nothing, a column used twice."""
    for change in ({"amountCap": "100"}, {"amountUnit": "0"}, {"amount": "n"}, {"claims": "age"}):
        with pytest.raises(ValueError, match="must be"):
            SeveritySpecification(**(SPEC.model_dump() | change))


def _frequency(curve: list[float]) -> RiskModel:
    spec = RiskSpecification(
        kind="risk-towers/1", towers=(INSURER,), claims="n", exposure="years", claimCap=1, priorRate="0.1",
        priorScale="0.2", smoothness="0.8", sweeps=2, labelShareMilli=500, epsilonMicro=1, deltaNano=1,
    )  # fmt: skip
    weights = {"car": np.array([-0.1, 0.0, 0.1]), "age": np.array(curve)}
    return RiskModel(spec, {"all": CohortModel(-2.0, {"insurer": weights})})


def test_a_monotone_curve_is_the_nearest_one_and_leaves_the_rest() -> None:
    """Two knots that go the wrong way are pooled at their weighted mean; others and the level stay."""
    model = _frequency([0.4, -0.2, 0.0])
    up = monotone(model, {"age": "up"}, {"age": np.array([1.0, 3.0, 1.0])})
    np.testing.assert_allclose(up.cohorts["all"].weights["insurer"]["age"], [-0.05, -0.05, 0.0])
    down = monotone(model, {"age": "down"})
    np.testing.assert_allclose(down.cohorts["all"].weights["insurer"]["age"], [0.4, -0.1, -0.1])
    assert down.cohorts["all"].level == -2.0
    np.testing.assert_array_equal(down.cohorts["all"].weights["insurer"]["car"], [-0.1, 0.0, 0.1])
    rising = _frequency([-0.3, 0.0, 0.2])
    np.testing.assert_array_equal(
        monotone(rising, {"age": "up"}).cohorts["all"].weights["insurer"]["age"], [-0.3, 0.0, 0.2]
    )


@pytest.mark.parametrize(
    "directions", [{"car": "up"}, {"nobody": "up"}, {"age": "sideways"}],
)  # fmt: skip
def test_what_has_no_order_cannot_be_monotone(directions: dict[str, str]) -> None:
    """Levels, unknown features and unknown directions are refused; weights that do not fit too."""
    with pytest.raises(DirectionRefused):
        monotone(_frequency([0, 0, 0]), directions)  # type: ignore[arg-type]
    with pytest.raises(DirectionRefused):
        monotone(_frequency([0, 0, 0]), {"age": "up"}, {"age": np.array([1.0, -1.0, 1.0])})


def test_a_monotone_severity_is_monotone_in_the_amount() -> None:
    """Up means: the amount never falls."""
    people = _people(5_000)
    spec = SPEC.model_copy(update={"towers": (INSURER,)})
    model = fit_severity_plain(spec, plan(spec, {"insurer": ["a", "b"]}), {"all": people})
    for direction in ("up", "down"):
        made = monotone_severity(model, {"age": direction})  # type: ignore[dict-item]
        amounts = [row.factor for row in made.table() if row.feature == "age"]
        steps = np.diff(amounts)
        assert np.all(steps >= 0) if direction == "up" else np.all(steps <= 0)


def test_the_pure_premium_is_frequency_times_severity_point_by_point() -> None:
    """Premiums multiply, and so do the tables where both models have the same points."""
    spec = SPEC.model_copy(update={"towers": (INSURER,)})
    people = _people(5_000)
    severity = fit_severity_plain(spec, plan(spec, {"insurer": ["a", "b"]}), {"all": people})
    both = PurePremium(_frequency([0.1, 0.0, -0.1]), severity)
    np.testing.assert_allclose(
        both.premium("all", people), both.frequency.rate("all", people) * severity.mean("all", people)
    )
    rows = {(row.feature, row.point): row.factor for row in both.table()}
    factor = {(row.feature, row.point): row.factor for row in severity.table()}["car", "large"]
    assert rows["car", "large"] == pytest.approx(np.exp(0.1) * factor)
    assert len(rows) == 6


def test_the_deviance_agrees_with_scikit_learn() -> None:
    """Weighted by claims; persons without paid claims do not count."""
    people = _people(500)
    mean = np.full(500, 2500.0)
    kept = people["n"] > 0
    wanted = mean_gamma_deviance(people["paid"][kept] / people["n"][kept], mean[kept], sample_weight=people["n"][kept])
    assert gamma_deviance(people["n"].astype(float), people["paid"], mean) == pytest.approx(wanted)
