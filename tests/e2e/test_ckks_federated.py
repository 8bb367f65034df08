"""The backend without a trustee through the real apps: contract, nodes, ledgers, log, release."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoy_contracts.specification import RowAudit
from convoy_demo import agreements, figures
from convoy_demo.population import generate
from convoy_demo.scenario import Scenario
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_models.risk.model import RiskModel
from convoy_models.testing import NoNoise

SHORT = risk_specification()
TOWERS = tuple(t.model_copy(update={"features": t.features[1:2], "groups": None}) for t in SHORT.towers)
FAST = {"cohortFloor": 300, "towers": TOWERS, "sweeps": 1, "patterns": "joint-only", "evaluation": None}
Found = Callable[[Path, Scenario], contextlib.AbstractContextManager[Any]]


def scenario(**changes: Any) -> Scenario:
    return Scenario(
        drivers=2_000,
        seed=5,
        risk=SHORT.model_copy(update=FAST | changes),
        offers=recommend_specification().model_copy(update={"cohortFloor": 50}),
        min_subjects=20,
        cap_micro=12_000_000,
        year_cap_micro=20_000_000,
    )


def test_a_run_under_ckks_gives_the_model_of_the_trustees_run(tmp_path: Path, found_small: Found) -> None:
    """Without noise both backends fit the same rates; the trustee of the CKKS run deals nothing."""
    rates = {}
    for name, changes in (("dealt", {}), ("ckks", {"backend": "ckks"})):
        with found_small(tmp_path / name, scenario(**changes)) as federation:
            with federation.embedded(lambda _: NoNoise()) as runtime:
                run = federation.train(runtime)
            assert run["state"] == "finished", (run["party"], run["reasons"], run["cause"], run["fix"])
            assert ("deal" in run["progress"]["exchanges"]) == (name == "dealt")
            released = figures.load_release(
                federation.places, run["uid"], agreements.RISK, federation.contracts[agreements.RISK]
            )
            model = RiskModel.from_arrays(federation.scenario.risk, released.arrays)
            rates[name] = np.asarray(model.rate("joint", generate(500, 7).columns))
    np.testing.assert_allclose(rates["ckks"], rates["dealt"], rtol=1e-3)


def test_row_audit_and_ckks_cannot_be_agreed_together() -> None:
    """The audit takes off the trustee's pads, which this backend has not."""
    with pytest.raises(ValueError, match="rowAudit"):
        type(SHORT).model_validate(
            {**SHORT.model_dump(), "backend": "ckks", "rowAudit": RowAudit(rowsMilli=10).model_dump()}
        )
