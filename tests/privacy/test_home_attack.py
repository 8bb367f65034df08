"""A node attacks the real candidate with its own persons: each kind of model without noise is caught, and the planned one is not.

Few persons and many terms, at epsilon 1, so that a model without noise learns its members by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from convoy_contracts.specification import (
    Cuts,
    Evaluation,
    Knots,
    Levels,
    ListTest,
    Network,
    PairsSpecification,
    RecommendSpecification,
    Residual,
    RiskSpecification,
    SeveritySpecification,
    Specification,
    Tower,
    TowersSpecification,
)
from convoy_models.holdout import held_out
from convoy_models.home_attack import Attack, attacked, held_back_milli
from convoy_models.neural.cann import fit_cann_plain
from convoy_models.plan import plan
from convoy_models.recommend.items import history_rows, profile_rows
from convoy_models.recommend.towers import TowersFit
from convoy_models.risk.fit import Ask, drive
from convoy_models.risk.severity import fit_severity_plain
from convoy_models.risk.tables import TableRows
from convoy_models.simulate import PlainCohort, fit_pairs_plain, fit_plain, noisy, recommend_plain
from convoy_node.errors import ActionRefused
from convoy_node.rounds import Part, make_part
from convoy_node.worth import attacks_of, verdict

SIZE, MEMBERS, FEW = 480, 110, 240
ZONES, FEATURES, CLAIMS = 24, 7, 20
ITEMS = tuple(f"i{n}" for n in range(60))
ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"], "charging": ["h"]}
TERMS: dict[str, Any] = {"epsilonMicro": 1_000_000, "deltaNano": 1_000, "cohortFloor": 100}
TOWERS = (
    Tower(
        role="insurer", cap="20",
        features=tuple(
            Levels(kind="levels", name=f"zone{k}", levels=tuple(f"z{n}" for n in range(ZONES))) for k in range(FEATURES)
        ),
    ),
    Tower(role="oem", features=(Knots(kind="knots", name="braking", knots=("0", "1", "4", "10")),), cap="4"),
)  # fmt: skip
RISK = RiskSpecification(
    kind="risk-towers/1", towers=TOWERS, claims="n", exposure="t", claimCap=CLAIMS, priorRate="5", priorScale="2",
    smoothness="0.8", sweeps=3, labelShareMilli=500, patterns="joint-only", **TERMS,
)  # fmt: skip
OPEN = RISK.model_copy(
    update={"evaluation": Evaluation(holdoutMilli=500, shareMilli=100, audit="zone0"), "epsilonMicro": 1_100_000}
)
ALONE = RISK.model_copy(update={"towers": TOWERS[:1]})
SEVERITY = SeveritySpecification(
    kind="severity-towers/1", towers=TOWERS, claims="m", amount="s", claimCap=CLAIMS, amountCap="8000", amountUnit="2000",
    priorScale="2", sweeps=3, patterns="joint-only", **TERMS,
)  # fmt: skip
TABLES = PairsSpecification(
    kind="risk-pairs/1", claims="n", exposure="t", claimCap=CLAIMS, modelCap="20", priorRate="5", mainScale="2", passes=4,
    features=tuple(Cuts(kind="cuts", name=f"x{k}", cuts=tuple(map(str, range(1, ZONES)))) for k in range(FEATURES)), **TERMS,
)  # fmt: skip
NETWORK = TABLES.model_copy(
    update={"residual": Residual(hidden=4, steps=4, rateMicro=1_000_000, batch=300, noiseMilli=40_000, costMicro=2_600)}
)
OFFERS = RecommendSpecification(
    kind="recommend-items/1", items=ITEMS, profile=(Knots(kind="knots", name="braking", knots=("0", "5", "10")),),
    historyNorm="3", gramShareMilli=600, crossShareMilli=300, **TERMS,
)  # fmt: skip
LISTS = TowersSpecification(
    kind="recommend-towers/1", items=ITEMS, test=ListTest(holdoutMilli=500), **TERMS,
    network=Network(units=64, space=32, steps=150, rateMicro=1_000_000, batch=110, noiseMilli=60_000, costMicro=42_000,
                    clip="4", learningRate="2"),
)  # fmt: skip
IDS = [str(n) for n in range(SIZE)]
LINKS = [n.to_bytes(16, "big") for n in range(SIZE)]
BACK = frozenset(IDS[MEMBERS:])


class _Book:
    """Persons about whom nothing can be learned but by heart: claims, amounts and items are drawn without regard to features."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        zones = np.array([f"z{n}" for n in range(ZONES)])
        self.all: dict[str, Any] = {f"zone{k}": zones[rng.integers(0, ZONES, SIZE)] for k in range(FEATURES)}
        self.all |= {f"x{k}": rng.uniform(0, ZONES, SIZE) for k in range(FEATURES)}
        self.all |= {"braking": rng.uniform(0, 10, SIZE), "t": np.ones(SIZE), "n": rng.choice([1, 12], SIZE)}
        self.all["m"] = rng.poisson(6.0, SIZE)
        self.all["s"] = self.all["m"] * rng.choice([100.0, 3_000.0], SIZE)
        used = rng.random((SIZE, len(ITEMS))) < 0.12
        self.all["items"] = np.array([[ITEMS[n] for n in np.flatnonzero(row)] for row in used], dtype=object)

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return the columns of some persons."""
        rows = np.array([int(name) for name in local_ids])
        return {name: values[rows] for name, values in self.all.items()}


BOOK = _Book()
Fit = Callable[[np.random.Generator | None], Mapping[str, Any]]


def hold_back(persons: Sequence[str]) -> frozenset[str]:
    """Hold all but the first back."""
    return BACK.intersection(persons)


def party(spec: Specification) -> Part:
    """Return the part of the party that holds claims or histories, aligned where it shares persons."""
    if isinstance(spec, TowersSpecification):  # holds out by itself, as the contract says
        return make_part(spec, "charging", {}, IDS[:FEW], BOOK)
    is_joint = not isinstance(spec, PairsSpecification) and spec is not ALONE
    size = FEW if spec is OPEN else SIZE  # a contract holds out half at most
    links = {"o": list(zip(IDS, LINKS, strict=True))[:size]} if is_joint else {}
    role = "charging" if isinstance(spec, RecommendSpecification) else "insurer"
    part = make_part(spec, role, links, [] if is_joint else IDS, BOOK, hold_back)
    if is_joint:
        part.aligned("o", np.arange(size))
    return part


def members(spec: Specification) -> Mapping[str, Any]:
    """Return the columns of whom a run trains on."""
    out = held_out(LINKS[:FEW], 500) if spec is OPEN else [name in BACK for name in IDS]
    return BOOK.columns([name for name, is_out in zip(IDS, out, strict=False) if not is_out])


def fitted(spec: Specification, part: Part, noise: np.random.Generator | None) -> dict[str, Any]:
    """Return the arrays of a model that a run of this specification trains, with its planned noise or without any."""
    made = plan(spec, ROLES)
    if isinstance(spec, TowersSpecification):
        return descended(spec, part, noise)
    rows = members(spec)
    if isinstance(spec, RiskSpecification):
        cohort = "joint" if len(spec.towers) > 1 else "all"
        return fit_plain(spec, made.training, {cohort: PlainCohort.build(spec, rows)}, noise).to_arrays()
    if isinstance(spec, SeveritySpecification):
        return fit_severity_plain(spec, made, {"joint": rows}, noise).inverse.to_arrays()
    if isinstance(spec, RecommendSpecification):
        used, profiles = history_rows(spec, rows["items"]), profile_rows(spec, rows)
        return {k: v.ravel() for k, v in recommend_plain(spec, made, used, profiles, noise).to_arrays().items()}
    if spec.residual is not None:
        return fit_cann_plain(spec, made, rows, noise).to_arrays()
    return fit_pairs_plain(spec, made, TableRows.build(spec, rows), noise).to_arrays()


def descended(spec: TowersSpecification, part: Part, noise: np.random.Generator | None) -> dict[str, Any]:
    """Run the optimiser of two towers on this part's own sums."""
    made = plan(spec, ROLES)

    def total(ask: Ask) -> Any:
        return noisy(made[ask.query], part.local(made[ask.query], ask.weights), noise)

    return dict(drive(TowersFit(spec, made).steps(), lambda asks: {ask.query: total(ask) for ask in asks}).to_arrays())


KINDS: dict[str, Specification] = {
    "towers": RISK, "towers with a hold-out": OPEN, "one tower": ALONE, "severity": SEVERITY, "tables": TABLES,
    "tables and network": NETWORK, "offers": OFFERS, "two towers": LISTS,
}  # fmt: skip


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS.keys())
def test_a_model_without_noise_is_caught_at_home_and_the_planned_one_is_not(spec: Specification) -> None:
    """What the node says of the same persons, before and after the noise is left out; nothing else differs."""
    part = party(spec)
    bad, good = (attacks_of(part, fitted(spec, part, noise)) for noise in (None, np.random.default_rng(3)))
    assert verdict(bad) == "alarm", bad
    assert verdict(good) == "passed", good
    assert all(attack.found and attack.found.persons > 200 for attack in bad)


def test_whoever_is_held_back_adds_nothing_to_any_sum() -> None:
    """Label, model and item sums are those of the members alone, whatever the persons held back did."""
    for spec in (RISK, ALONE, SEVERITY, TABLES, OFFERS):
        part = party(spec)
        rows = members(spec)
        query = next(q for q in plan(spec, ROLES).queries if q.purpose in ("labels", "gram") and q.kind == "LOCAL")
        total = float(part.local(query, {}).sum())
        if isinstance(spec, RecommendSpecification):
            assert total == pytest.approx(float((history_rows(spec, rows["items"]).sum(axis=1) ** 2).sum()))
        else:
            assert total == pytest.approx(FEATURES * np.minimum(rows[spec.claims], CLAIMS).sum(), rel=1e-4)
    vectors, _ = party(OFFERS).vectors(plan(OFFERS, ROLES)["joint/cross"])
    assert not vectors["o"][MEMBERS:].any()
    assert vectors["o"][:MEMBERS].any()


def test_no_attack_is_run_where_nobody_or_hardly_anybody_is_held_back() -> None:
    """The word says so; it is no pass."""
    whole = make_part(TABLES, "insurer", {}, IDS, BOOK)
    arrays = fitted(TABLES, whole, None)
    assert verdict(attacks_of(whole, arrays)) == "not run"
    scores = np.zeros(500)
    assert attacked("all", scores, np.arange(500) < 49, TABLES) == Attack("all", None)
    assert attacked("all", scores, np.arange(500) < 50, TABLES).found is not None


def test_arrays_that_make_no_model_are_refused_by_every_kind() -> None:
    """Also where nothing but the attack reads them."""
    for spec in KINDS.values():
        for wrong in (None, {}, {"item_item": np.zeros(7)}, {"all/level": ["x"]}):
            with pytest.raises(ActionRefused, match="make no model"):
                attacks_of(party(spec), wrong)


def test_who_is_held_back_is_read_from_the_contract_and_never_from_how_many_there_are() -> None:
    """A fiftieth where the contract's floor leaves 2,500 persons a party; a twentieth for severity; nobody in small cohorts."""
    assert held_back_milli(TABLES.model_copy(update={"cohortFloor": 30_000}), 3) == 20
    assert held_back_milli(TABLES.model_copy(update={"cohortFloor": 30_000}), 13) == 0
    assert held_back_milli(SEVERITY.model_copy(update={"cohortFloor": 30_000}), 4) == 50
    assert held_back_milli(OFFERS, 1) == 0
