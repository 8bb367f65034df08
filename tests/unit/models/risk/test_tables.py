"""Tables of one feature and of two: cells, sums, plan, fit, model, and the diff of two versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from convoy_contracts.specification import PairsSpecification
from convoy_models.curves import diff, factors
from convoy_models.features import ColumnRefused
from convoy_models.plan import plan, table_rounds
from convoy_models.risk.boosting import PairsFit
from convoy_models.risk.fit import FitRefused
from convoy_models.risk.model import ModelMalformed
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import LEVEL, TableRows, capped_mean, check_table_weights, ordered_tables, tables_in
from convoy_models.risk.towers import WeightsRefused
from convoy_models.simulate import fit_pairs_plain
from convoy_node.columns import expected_columns

ROLES = {"insurer": ["a", "b", "c"]}
DOCUMENT = {
    "kind": "risk-pairs/1",
    "features": [
        {"kind": "cuts", "name": "age", "cuts": ["25", "35", "50", "70"], "coarse": ["35", "50"]},
        {"kind": "cuts", "name": "km", "cuts": ["5", "10", "20"]},
        {"kind": "levels", "name": "fuel", "levels": ["d", "p", "x"], "other": "x"},
    ],
    "pairs": [["age", "fuel"], ["age", "km"]],
    "claims": "n", "exposure": "t", "priorRate": "0.2", "epsilonMicro": 4_000_000, "deltaNano": 1000, "cohortFloor": 100,
}  # fmt: skip


def specification(**changed: object) -> PairsSpecification:
    """Return a small specification."""
    import json

    return PairsSpecification.model_validate_json(json.dumps(DOCUMENT | changed))


def rows(size: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return a portfolio in which the young pay more for petrol only."""
    rng = np.random.default_rng(seed)
    age, fuel = rng.uniform(18, 90, size), rng.choice(["d", "p", "gas"], size, p=[0.5, 0.4, 0.1])
    years = rng.uniform(0.2, 1, size)
    log_rate = np.log(0.2) + 0.4 * (fuel == "p") + np.where((age < 35) & (fuel == "p"), 0.7, 0.0)
    return {
        "age": age, "km": rng.gamma(2, 6, size), "fuel": fuel, "t": years, "n": rng.poisson(np.exp(log_rate) * years),
    }  # fmt: skip


def test_a_plan_asks_labels_once_and_each_table_once_a_pass() -> None:
    """Within its own epsilon; the tables of an ask are those of its columns."""
    spec = specification()
    made = plan(spec, ROLES)
    assert made.charge <= made.mu2_limit
    labels = [query for query in made.queries if query.purpose == "labels"]
    assert [t for query in labels for t in tables_in(spec, query)] == list(ordered_tables(spec))
    for turn in range(1, spec.passes + 1):
        asked = [t for q in made.queries if q.purpose == "model" and q.sweep == turn for t in tables_in(spec, q)]
        assert sorted(asked) == sorted(ordered_tables(spec))
    assert {query.kind for query in made.queries} == {"LOCAL"}
    assert len({query.id for query in made.queries}) == len(made.queries)


def test_pairs_of_one_round_share_no_feature() -> None:
    """So that their steps do not disturb each other."""
    for turn in table_rounds(specification()):
        names = [name for table in turn for name in table]
        assert len(set(names)) == len(names)


def test_two_passes_of_one_seed_give_one_model() -> None:
    """Deterministic given sums: every side derives the same numbers."""
    spec = specification()
    made, encoded = plan(spec, ROLES), TableRows.build(spec, rows(3_000))
    first = fit_pairs_plain(spec, made, encoded, np.random.default_rng(2))
    again = fit_pairs_plain(spec, made, TableRows.build(spec, rows(3_000)), np.random.default_rng(2))
    for name, values in first.to_arrays().items():
        np.testing.assert_allclose(values, again.to_arrays()[name], atol=2e-6)


def test_a_pair_is_found_that_no_single_feature_can_say() -> None:
    """Young petrol drivers pay about twice; young others do not."""
    spec = specification(mainScale="0.5", pairScale="0.3", modelCap="1")
    data = rows(60_000)
    model = fit_pairs_plain(spec, plan(spec, ROLES), TableRows.build(spec, data))
    at = {"age": np.array([25.0, 60.0, 25.0, 60.0]), "km": np.full(4, 8.0), "fuel": np.array(["p", "p", "d", "d"])}
    young_petrol, old_petrol, young_diesel, old_diesel = model.rate(at)
    assert young_petrol / old_petrol == pytest.approx(2.0, rel=0.15)
    assert young_diesel / old_diesel == pytest.approx(1.0, rel=0.15)
    assert model.rate(data) @ data["t"] == pytest.approx(data["n"].sum(), rel=0.05)


def test_noise_of_the_plan_costs_little_and_no_noise_is_better() -> None:
    """The fit believes the noise it is told and shrinks."""
    spec, data = specification(), rows(60_000)
    made, truth = plan(spec, ROLES), rows(60_000, seed=9)
    exact = fit_pairs_plain(spec, made, TableRows.build(spec, data)).rate(truth)
    noisy = fit_pairs_plain(spec, made, TableRows.build(spec, data), np.random.default_rng(0)).rate(truth)
    assert np.abs(np.log(noisy / exact)).mean() < 0.1


def test_the_price_is_the_product_of_its_tables() -> None:
    """Exactly, for every row; a row's factors can be read off."""
    spec = specification()
    model = fit_pairs_plain(spec, plan(spec, ROLES), TableRows.build(spec, rows(5_000)))
    factors = {(row.feature, row.point): row.factor for row in model.table()}
    one = {"age": np.array([28.0]), "km": np.array([12.0]), "fuel": np.array(["p"])}
    product = (
        math.exp(model.level) * factors["age", "25 to 35"] * factors["km", "10 to 20"] * factors["fuel", "p"]
        * factors["age*fuel", "< 35 & p"] * factors["age*km", "< 35 & 10 to 20"]
    )  # fmt: skip
    assert model.rate(one)[0] == pytest.approx(product, rel=1e-12)


def test_canonical_form_moves_numbers_and_changes_no_price() -> None:
    """A pair keeps only what its features cannot say."""
    spec = specification()
    rng = np.random.default_rng(3)
    sizes = {"*".join(table): len(values) for table, values in _tables(spec).items()}
    tables = {key: rng.normal(0, 0.3, size) for key, size in sizes.items()}
    margins = {key: rng.uniform(1, 9, size) for key, size in sizes.items()}
    data = rows(500)
    plain = TableRows.build(spec, data, labelled=False).score({**tables, LEVEL: np.array([-1.5])}).copy()
    model = PairsModel.canonical(spec, -1.5, tables, margins)
    np.testing.assert_allclose(np.log(model.rate(data)), plain, atol=1e-5)
    grid = model.tables["age*fuel"].reshape(3, 3) * margins["age*fuel"].reshape(3, 3)
    assert np.abs(grid.sum(0)).max() < 1e-3
    assert np.abs(grid.sum(1)).max() < 1e-3


def _tables(spec: PairsSpecification) -> dict[tuple[str, ...], np.ndarray]:
    made = PairsFit(spec, plan(spec, ROLES))
    return {table: state.theta for table, state in made._tables.items()}


def test_arrays_make_the_same_model_again_and_wrong_arrays_none() -> None:
    """As a recipient loads them."""
    spec = specification()
    model = fit_pairs_plain(spec, plan(spec, ROLES), TableRows.build(spec, rows(2_000)))
    arrays = model.to_arrays()
    data = rows(50)
    np.testing.assert_array_equal(PairsModel.from_arrays(spec, arrays).rate(data), model.rate(data))
    for wrong in (
        {k: v for k, v in arrays.items() if k != "all/insurer/age"},
        arrays | {"all/insurer/age*km": np.zeros(3)},
        arrays | {"all/level": np.array([np.nan])},
        arrays | {"all/insurer/ghost": np.zeros(1)},
    ):
        with pytest.raises(ModelMalformed):
            PairsModel.from_arrays(spec, wrong)


def test_bad_columns_are_refused_all_at_once_and_never_wrapped() -> None:
    """NaN, an absent column, an unknown level; beyond the outer cuts is the outer cell."""
    spec = specification(features=[*DOCUMENT["features"][:2], {"kind": "levels", "name": "fuel", "levels": ["d", "p"]}])
    data = rows(10) | {"age": np.full(10, np.nan), "fuel": np.array(["d", "gas"] * 5)}
    del data["km"]
    with pytest.raises(ColumnRefused) as refused:
        TableRows.build(spec, data)
    for part in ("'age'", "'km' is absent", "not among the 2 levels"):
        assert part in str(refused.value)
    far = rows(2) | {"age": np.array([-1e9, 1e9]), "fuel": np.array(["d", "p"])}
    assert TableRows.build(spec, far).cells(("age",)).tolist() == [0, 4]


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_capped_claims_meet_capped_expectations(cap: int) -> None:
    """The mean of min(Y, cap) for Poisson Y."""
    rng = np.random.default_rng(cap)
    mean = np.array([0.01, 0.3, 1.0, 4.0])
    drawn = np.minimum(rng.poisson(mean, (200_000, 4)), cap).mean(0)
    np.testing.assert_allclose(capped_mean(mean, cap), drawn, rtol=0.03, atol=2e-3)


def test_weights_of_an_ask_must_fit_the_tables_exactly() -> None:
    """A node computes nothing from weights that do not."""
    spec = specification()
    good = {"*".join(table): np.zeros(values.size) for table, values in _tables(spec).items()} | {LEVEL: np.zeros(1)}
    assert set(check_table_weights(spec, good)) == set(good)
    without = {key: values for key, values in good.items() if key != "age"}
    for wrong in (
        None,
        without,
        good | {"age": np.zeros(2)},
        good | {"age": np.full(5, np.inf)},
        good | {"age": ["x"] * 5},
    ):
        with pytest.raises(WeightsRefused):
            check_table_weights(spec, wrong)


def test_a_sum_that_is_missing_or_not_finite_stops_the_fit() -> None:
    """Nothing is made up."""
    spec = specification()
    steps = PairsFit(spec, plan(spec, ROLES)).steps()
    asks = next(steps)
    with pytest.raises(FitRefused):
        steps.send({ask.query: np.array([np.nan]) for ask in asks})


@pytest.mark.parametrize(
    "changed",
    [
        {"pairs": [["age", "age"]]},
        {"pairs": [["age", "ghost"]]},
        {"pairs": [["age", "km"], ["km", "age"]]},
        {"claims": "age"},
        {"modelCap": "0"},
        {"features": [{"kind": "cuts", "name": "a*b", "cuts": ["1"]}], "pairs": []},
        {"features": [{"kind": "cuts", "name": "age", "cuts": ["2", "1"]}], "pairs": []},
        {"features": [{"kind": "cuts", "name": "age", "cuts": ["1", "2"], "coarse": ["3"]}], "pairs": []},
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    """Before anybody signs."""
    with pytest.raises(ValidationError):
        specification(**changed)


def test_only_insurers_hold_columns_of_tables() -> None:
    """Numbers, texts with any value where 'other' is agreed, claims and exposure."""
    spec = specification()
    assert expected_columns(spec, "oem") == ()
    kinds = {column.name: (column.kind, column.levels) for column in expected_columns(spec, "insurer")}
    assert kinds == {
        "age": ("numeric", ()), "km": ("numeric", ()), "fuel": ("text", ()), "n": ("claims", ()), "t": ("exposure", ()),
    }  # fmt: skip


def test_a_diff_lists_every_factor_that_changed_and_only_those() -> None:
    """From released arrays; a factor, and the base rate."""
    spec = specification()
    before = fit_pairs_plain(spec, plan(spec, ROLES), TableRows.build(spec, rows(4_000)))
    tables = {key: values.copy() for key, values in before.tables.items()}
    tables["fuel"][1] += math.log(1.5)
    after = PairsModel(spec, before.level + 0.1, tables)
    document = spec.model_dump(mode="json", exclude_none=True)
    old, new = factors(document, before.to_arrays()), factors(document, after.to_arrays())
    found = {change.key: change.size for change in diff(old, new)}
    assert found == pytest.approx({("all", "insurer", "fuel", "p"): math.log(1.5), ("all", "", "base rate", ""): 0.1})
    assert diff(old, old) == []
