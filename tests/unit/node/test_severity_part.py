"""An insurer in a severity run: counts and amounts as the sums need them, and a candidate tried on own claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convoy_contracts.specification import Levels, SeveritySpecification, Tower
from convoy_models.plan import plan
from convoy_models.risk.severity import severity_labels
from convoy_node.rounds import make_part

SPEC = SeveritySpecification(
    kind="severity-towers/1",
    towers=(
        Tower(role="insurer", features=(Levels(kind="levels", name="car", levels=("small", "large")),), cap="3"),
        Tower(role="oem", features=(Levels(kind="levels", name="driver", levels=("calm", "fast")),), cap="2"),
    ),
    claims="n",
    amount="paid",
    claimCap=1,
    amountCap="5000",
    amountUnit="2000",
    epsilonMicro=4_000_000,
    deltaNano=1_000,
)
IDS = [f"P{n}" for n in range(2_000)]
ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"]}


class _Book:
    """2,000 customers without carmaker data; every fifth had a claim, large cars cost twice as much."""

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return their columns."""
        rng = np.random.default_rng(2)
        size = len(local_ids)
        car = rng.integers(0, 2, size)
        n = (rng.random(size) < 0.2).astype(int)
        paid = n * rng.gamma(2.0, 750.0 * (1 + car))
        return {"car": np.array(["small", "large"])[car], "n": n, "paid": paid}


def test_label_and_model_sums_are_counts_and_amounts_over_means() -> None:
    """By hand, for the solo cohort at weights zero; amounts are cut as the contract says."""
    part = make_part(SPEC, "insurer", {}, IDS, _Book())
    columns = _Book().columns(IDS)
    labels = severity_labels(SPEC, columns)
    queries = {q.purpose: q for q in plan(SPEC, ROLES).queries if q.cohort == "solo" and q.sweep <= 1}
    small = columns["car"] == "small"
    counts = [labels.claims[small].sum(), labels.claims[~small].sum()]
    np.testing.assert_allclose(part.local(queries["labels"], {}), counts)
    amounts = np.minimum(np.rint(labels.exposure_years * 2**15) / 2**15, 3.0)
    got = part.local(queries["model"], {"insurer": {"car": [0.0, 0.0]}})
    np.testing.assert_allclose(got, [amounts[small].sum(), amounts[~small].sum()], rtol=1e-12)


def test_a_candidate_is_tried_on_claims_and_a_level_that_is_far_off_is_vetoed() -> None:
    """Rates are one over the mean amount in units: log(2000 / 1500) for a small car."""
    part = make_part(SPEC, "insurer", {}, IDS, _Book())
    fair = {"solo/level": [0.0], "solo/insurer/car": [float(np.log(2000 / 1500)), float(np.log(2000 / 2850))]}
    joint = {"joint/level": [0.0], "joint/insurer/car": [0.0, 0.0], "joint/oem/driver": [0.0, 0.0]}
    assert part.try_candidate(fair | joint) is None
    assert part.try_candidate(fair | joint | {"solo/level": [1.2]}) is not None
    worse = {"solo/insurer/car": [-1.2, 0.9]}
    assert part.try_candidate(fair | joint | worse) is not None
