"""What a run under a signed contract would do at this node: a dry run that reads no data and sends nothing.

    preview(settings, contract, ledger, register, now) -> Preview

Each line is one noisy sum of the plan that this node's persons pay for: what is summed over whom, how much one person can
move it (clip), the noise that remains without any one share (sigma), its cost. The list is complete: at run time a node
answers nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from convoy_contracts.document import Contract
from convoy_contracts.roles import roles_of
from convoy_contracts.specification import (
    PairsSpecification,
    RecommendSpecification,
    Specification,
    TowersSpecification,
)
from convoy_models import accounting
from convoy_models.mechanisms import left_of
from convoy_models.plan import Plan, PlannedQuery, PlanRefused, layout, plan
from convoy_models.risk.tables import tables_in
from convoy_node.admission import charges
from convoy_node.ledger import charge_tail, charge_units
from convoy_node.ledger_view import LedgerView
from convoy_node.register import Cohort, Register
from convoy_node.rounds import charged_to
from convoy_node.settings import Settings


@dataclass(frozen=True, slots=True)
class Line:
    """One noisy sum; ``epsilon`` is that of this sum alone, rounded up (sums compose in mu^2, not in epsilon).

    ``answered`` is False where others answer it about persons whom this node links.
    """

    query: str
    kind: str
    cohort: str
    columns: tuple[str, ...]
    numbers: int
    clip: float
    sigma: float
    mu2: float
    answered: bool
    epsilon: float


@dataclass(frozen=True, slots=True)
class Preview:
    """A dry run of one algorithm. ``persons`` counts consents now, without looking at rows; epsilon is rounded up."""

    contract: str
    algorithm: str
    asset: str
    purpose: str
    delta: float
    epsilon: float
    epsilon_after: float
    cap: float
    runs_left: int
    persons: int
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def preview(
    settings: Settings, contract: Contract, purpose: str, ledger: LedgerView, register: Register, now: datetime
) -> list[Preview]:
    """Return a dry run of each algorithm of a contract in which this node's persons take part."""
    row = next((row for row in contract.data if row.provider == settings.party), None)
    if row is None or row.asset not in contract.privacy:
        return []
    found = []
    for algorithm in contract.algorithms:
        spec = algorithm.specification
        if spec is None:
            continue
        planned = plan(spec, roles_of(contract))
        queries = charged_to(planned, settings.party)
        if not queries:
            continue
        delta = spec.deltaNano / 1e9
        request = charges(queries, delta)
        cost = accounting.mu2_of_units(charge_units(request))
        tail = charge_tail(request)
        left = left_of(delta, ledger.tail(row.asset, contract.uid) + tail)
        left_in_year = left_of(delta, ledger.tail(row.asset, year=now.year) + tail)
        used, cap = ledger.mu2(row.asset, contract.uid), contract.privacy[row.asset].totalMicro
        in_year = ledger.mu2(row.asset, year=now.year)
        sensitive = any(field.sensitive for field in row.fields)
        cohort = consenting(contract, purpose, register, now, sensitive=sensitive)
        found.append(
            Preview(
                contract=contract.digest,
                algorithm=algorithm.id,
                asset=row.asset,
                purpose=purpose,
                delta=delta,
                epsilon=accounting.epsilon_of(cost, left_of(delta, tail)),
                epsilon_after=accounting.epsilon_of(used + cost, left),
                cap=cap / 1e6,
                runs_left=min(
                    accounting.runs_left(used, cost, left, cap),
                    accounting.runs_left(in_year, cost, left_in_year, settings.asset_year_cap_micro),
                ),
                persons=cohort.size,
                lines=tuple(_line(spec, planned, query, settings.party, delta) for query in queries),
            )
        )
    return found


def unaffordable(settings: Settings, contract: Contract) -> list[str]:
    """Return a sentence for each algorithm of which a single run costs this node's persons more than the cap of a year.

    A specification of which no plan can be made has no run; that is not for this check to say.
    """
    row = next((row for row in contract.data if row.provider == settings.party), None)
    found = []
    for algorithm in contract.algorithms if row is not None and row.asset in contract.privacy else ():
        if (spec := algorithm.specification) is None:
            continue
        try:
            queries = charged_to(plan(spec, roles_of(contract)), settings.party)
        except PlanRefused:
            continue
        delta = spec.deltaNano / 1e9
        request = charges(queries, delta)
        cost, left = accounting.mu2_of_units(charge_units(request)), left_of(delta, charge_tail(request))
        if queries and not accounting.fits(0.0, cost, left, settings.asset_year_cap_micro):
            epsilon, cap = accounting.shown(accounting.epsilon_of(cost, left)), settings.asset_year_cap_micro / 1e6
            found.append(
                f"one run of {algorithm.id} costs a person epsilon {epsilon}; node.toml allows {cap:g} a year (year_cap_micro)"
            )
    return found


def usual_purpose(contract: Contract) -> str:
    """Return the first purpose that a permission names: what a run will most likely ask for."""
    for rule in contract.permission:
        for constraint in rule.constraint:
            if constraint.get("leftOperand") == "purpose":
                right = constraint.get("rightOperand")
                return str(right[0] if isinstance(right, list) else right)
    return "convoy:Any"


def consenting(contract: Contract, purpose: str, register: Register, now: datetime, *, sensitive: bool) -> Cohort:
    """Return the persons whose consents cover a purpose and every recipient of a contract now."""
    return register.cohort(
        contract.uid,
        purpose=purpose,
        recipients=sorted({recipient for output in contract.outputs for recipient in output.recipients}),
        notices=contract.consent.notices,
        now=now,
        sensitive=sensitive,
    )


def _line(spec: Specification, planned: Plan, query: PlannedQuery, party: str, delta: float) -> Line:
    return Line(
        query=query.id,
        kind=query.kind,
        cohort=query.cohort,
        columns=_columns(spec, query),
        numbers=query.size,
        clip=query.clip,
        sigma=query.sigma,
        mu2=query.mu2,
        answered=party in query.participants,
        epsilon=accounting.epsilon_of(query.mu2, delta),
    )


def _columns(spec: Specification, query: PlannedQuery) -> tuple[str, ...]:
    """Return the columns whose cells a query sums, by name."""
    if isinstance(spec, RecommendSpecification):
        profile = tuple(feature.name for feature in spec.profile)
        return {"gram": ("items",), "profile": profile}.get(query.purpose, (*profile, "items"))
    if isinstance(spec, TowersSpecification):
        profile = tuple(feature.name for feature in spec.profile)
        return ("items",) if query.purpose == "popularity" else (*profile, "items")
    if isinstance(spec, PairsSpecification) and query.purpose == "residual":
        return tuple(feature.name for feature in spec.features)
    if isinstance(spec, PairsSpecification):
        return tuple(dict.fromkeys(name for table in tables_in(spec, query) for name in table))
    tower = next(tower for tower in spec.towers if tower.role == query.module)
    names, place = [], 0
    for feature in (feature for group in layout(tower) for feature in group):
        if query.columns[0] <= place < query.columns[1]:
            names.append(feature.name)
        place += feature.width
    return tuple(names)
