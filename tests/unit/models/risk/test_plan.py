"""The list of noisy sums of a run: complete, bounded and the same for everyone."""

from __future__ import annotations

import math

import pytest

from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_models.accounting import epsilon_of
from convoy_models.plan import Plan, PlanRefused, plan

ROLES = {"oem": ["oem"], "insurer": ["a", "b", "c"], "charging": ["e"], "trustee": ["t"]}


def made() -> Plan:
    """Return the demo's plan."""
    return plan(risk_specification(), ROLES)


def test_no_cohort_is_charged_more_than_the_run_may_cost() -> None:
    """The charge is below mu(epsilon)^2 and uses nearly all of it."""
    for planned in (made(), plan(recommend_specification(), ROLES)):
        assert planned.charge <= planned.mu2_limit
        assert planned.charge >= 0.99999 * planned.mu2_limit
        assert epsilon_of(planned.charge, 1e-6) <= 4.0
    assert made().mu2("solo") <= made().mu2_limit


def test_the_plan_does_not_depend_on_the_order_of_parties() -> None:
    """Every side derives the same bytes."""
    turned = {"insurer": ["c", "a", "b"], "oem": ["oem"]}
    assert plan(risk_specification(), turned).queries == made().queries


def test_label_sums_are_local_at_insurers_and_vertical_for_the_oem() -> None:
    """Labels are asked once; model sums of the joint cohort are weighted."""
    labels = [q for q in made().queries if q.purpose == "labels"]
    kinds = {(q.cohort, q.module, q.kind) for q in labels}
    assert kinds == {
        ("joint", "insurer", "LOCAL"),
        ("joint", "oem", "DOT"),
        ("solo", "insurer", "LOCAL"),
    }
    model = {(q.cohort, q.kind) for q in made().queries if q.purpose == "model"}
    assert model == {("joint", "WEIGHTED"), ("solo", "LOCAL")}


def test_the_demo_needs_few_exchanges() -> None:
    """At most 40 weighted sums (10 here); every query has its own id."""
    queries = made().queries
    assert sum(q.kind == "WEIGHTED" for q in queries) == 10
    assert len({q.id for q in queries}) == len(queries)


def test_accuracy_is_quoted_under_all_noise_that_is_added() -> None:
    """One OEM adds sigma^2, three insurers 3/2 sigma^2."""
    query = made()["joint/model-01/oem/0"]
    assert query.noise_sd == pytest.approx(query.sigma * math.sqrt(2.5))
    assert query.participants == ("oem", "a", "b", "c")
    local = made()["joint/labels/insurer"]
    assert local.noise_sd == pytest.approx(local.sigma * math.sqrt(1.5))


def test_clips_are_norms_times_caps() -> None:
    """8 blocks and caps .15 (on the 2^-15 grid) and 2 give sqrt(8) x .3; labels sqrt(8) x 1."""
    cap = math.floor(0.15 * 2**15) / 2**15 * 2
    assert made()["joint/model-02/oem/0"].clip == pytest.approx(math.sqrt(8) * cap, rel=1e-9)
    assert made()["joint/labels/oem"].clip == pytest.approx(math.sqrt(8), rel=1e-9)
    assert made()["joint/labels/insurer"].clip > math.sqrt(8)


def test_groups_split_every_sweep_but_the_first() -> None:
    """The first model sum covers whole towers; later ones go group by group and cost the same."""
    spec = risk_specification()
    names = [feature.name for feature in spec.towers[1].features]
    oem = spec.towers[1].model_copy(update={"groups": (tuple(names[:3]), tuple(names[3:]))})
    grouped = plan(spec.model_copy(update={"towers": (spec.towers[0], oem)}), ROLES)
    asked = [q.id for q in grouped.queries if q.module == "oem" and q.purpose == "model"]
    assert asked[:3] == ["joint/model-01/oem/0", "joint/model-02/oem/0", "joint/model-02/oem/1"]
    assert grouped.charge == pytest.approx(made().charge, rel=1e-9)


@pytest.mark.parametrize(
    ("roles", "cause"),
    [
        ({"oem": ["o"]}, "insurer"),
        ({"insurer": ["a"]}, "oem"),
        ({"insurer": ["a"], "oem": ["o", "p"]}, "2 parties"),
    ],
)
def test_missing_or_surplus_parties_are_refused(roles: dict[str, list[str]], cause: str) -> None:
    """The message names the role."""
    with pytest.raises(PlanRefused, match=cause):
        plan(risk_specification(), roles)


def test_a_query_that_is_not_planned_is_refused() -> None:
    """A node looks up every asked id here."""
    with pytest.raises(PlanRefused, match="not in the plan"):
        made()["joint/labels/everything"]


def test_one_insurer_alone_adds_all_noise_itself() -> None:
    """K = 1: its share is sigma."""
    single = plan(risk_specification(), {"oem": ["o"], "insurer": ["a"]})
    query = single["solo/labels/insurer"]
    assert query.noise_sd == query.sigma
