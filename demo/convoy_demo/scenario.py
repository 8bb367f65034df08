"""What the demo trains on and under which terms; tests found smaller federations with scenarios of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

from convoy_contracts.specification import RecommendSpecification, RiskSpecification
from convoy_demo.specifications import evaluated_risk_specification, recommend_specification


@dataclass(frozen=True, slots=True)
class Scenario:
    """A generated population and the terms of both contracts.

    ``drivers``, ``seed``: of the population. ``min_subjects``: the contracts' floor per node. ``cap_micro``: epsilon that each
    contract allows per person of an asset; two runs at epsilon 4 compose to 5.9 (delta 1e-6), a third would pass 6.
    ``year_cap_micro``: epsilon that a year may cost a person of an asset, at every node; that of each party if not given.
    ``max_runs``: runs that each contract permits, refused ones included.
    """

    drivers: int = 100_000
    seed: int = 1
    risk: RiskSpecification = field(default_factory=evaluated_risk_specification)
    offers: RecommendSpecification = field(default_factory=recommend_specification)
    min_subjects: int = 1_000
    cap_micro: int = 6_000_000
    year_cap_micro: int | None = None
    max_runs: int = 50
