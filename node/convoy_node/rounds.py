"""One run at this node: its data as designs, its session of the protocol, its place in the ledger.

What a query may be is decided by the plan, which this node derives from the signed contract; the coordinator's message
only names a query and carries public weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import (
    PairsSpecification,
    RecommendSpecification,
    RiskSpecification,
    SeveritySpecification,
    Specification,
    TowersSpecification,
)
from convoy_models.alone import alone_on
from convoy_models.features import Block
from convoy_models.holdout import InsurerRows, OwnValue, band_of, compare_alone, held_out, log_factor
from convoy_models.home_attack import Attack, attacked, claim_scores
from convoy_models.plan import EVALUATION_LOG_BOUND, Plan, PlannedQuery, floor_cap
from convoy_models.plan_holdout import BANDS, ONES
from convoy_models.risk.model import RiskModel
from convoy_models.risk.severity import severity_labels
from convoy_models.risk.towers import Design, Labels
from convoy_node import veto
from convoy_node.errors import ActionRefused
from convoy_node.held_back import HoldBack, nobody
from convoy_node.items_part import ItemsPart
from convoy_node.residual_part import ResidualPart
from convoy_node.tables_part import TablesPart
from convoy_node.towers_part import TowersPart

Floats = npt.NDArray[np.float64]
Ids = Sequence[tuple[str, bytes]]


class Table(Protocol):
    """The rows of one party by person."""

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return the columns of these persons, in this order."""


class Part(Protocol):
    """What this node contributes to a run; one class for each role and kind of model."""

    @property
    def links(self) -> Mapping[str, list[bytes]]:
        """Link ids towards each peer, in the order of the part's rows."""

    def aligned(self, peer: str, rows: npt.NDArray[np.int64]) -> Floats | None:
        """Keep the common rows with a peer; return the matrix to hold towards it, if any."""

    def factors(self, query: PlannedQuery, weights: object) -> tuple[dict[str, Floats], float]:
        """Return own factor by peer, and its cap, for ``open``."""

    def vectors(self, query: PlannedQuery) -> tuple[dict[str, Floats], float]:
        """Return own vectors by peer, and the cap of an entry, for ``share`` of a DOT query."""

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        """Return own clipped sum of a LOCAL query."""

    def try_candidate(self, candidate: object) -> str | None:
        """Return why this party does not want the fitted model released, or None."""


def make_part(
    specification: Specification,
    role: str,
    links: Mapping[str, Ids],
    solo: Sequence[str],
    table: Table,
    hold_back: HoldBack = nobody,
) -> Part:
    """Build the part of this node.

    Args:
        specification: the signed specification.
        role: 'insurer', 'oem' or 'charging'.
        links: (local id, link id) by peer, of everyone whose consent counts now.
        solo: local ids of counted persons without a counterpart.
        table: the node's rows.
        hold_back: whom this node keeps out of every sum for its attack on the candidate.

    Raises:
        ModelsError: columns that do not fit; every fault at once.
        ActionRefused: nobody to learn from.
    """
    if not any(links.values()) and not solo:
        raise ActionRefused(
            "nobody's consent counts for this run.",
            code="COHORT_EMPTY",
            fix="Import consents first.",
            fix_zh="请先导入同意记录。",
        )
    if isinstance(specification, RecommendSpecification):
        return ItemsPart(specification, role, links, table, hold_back)
    if isinstance(specification, PairsSpecification) and role == "insurer":
        everyone = dict.fromkeys([*solo, *(local for ids in links.values() for local, _ in ids)])
        part = TablesPart if specification.residual is None else ResidualPart
        return part(specification, list(everyone), table, hold_back)
    if isinstance(specification, TowersSpecification) and role == "charging":
        return TowersPart(specification, list(dict.fromkeys(solo)), table)
    if isinstance(specification, PairsSpecification | TowersSpecification):
        raise ActionRefused(f"role {role!r} has no part in a {specification.kind} run.", code="ROLE_WITHOUT_PART")
    labels: Callable[[Mapping[str, Any]], Labels] | None = None
    if isinstance(specification, SeveritySpecification):
        labels = partial(severity_labels, specification)
        specification = specification.as_frequency()
    if role == "insurer":
        return _Insurer(specification, links, solo, table, labels, hold_back)
    if role == "oem":
        return _Oem(specification, links, table)
    raise ActionRefused(f"role {role!r} has no part in a {specification.kind} run.", code="ROLE_WITHOUT_PART")


class _Insurer:
    def __init__(
        self,
        spec: RiskSpecification,
        links: Mapping[str, Ids],
        solo: Sequence[str],
        table: Table,
        labels: Callable[[Mapping[str, Any]], Labels] | None = None,
        hold_back: HoldBack = nobody,
    ) -> None:
        self._spec = spec
        self._labels = labels or partial(Labels.build, spec)
        self._tower = next(t for t in spec.towers if t.role == "insurer")
        self._is_joint = len(spec.towers) > 1
        self._ids = {peer: list(ids) for peer, ids in links.items()} if self._is_joint else {}
        alone = [*solo, *(local for ids in links.values() for local, _ in ids)] if not self._is_joint else list(solo)
        back = hold_back(alone)
        kept = [person for person in alone if person not in back]
        self._rest = self._rows(table, kept) if kept else None
        self._rest_back = self._rows(table, [person for person in alone if person in back]) if back else None
        # Where the contract holds some of the joint cohort out, they serve the attack as well.
        linked = [local for ids in self._ids.values() for local, _ in ids]
        self._linked_back = hold_back(linked) if spec.evaluation is None else frozenset()
        self._joint: dict[str, tuple[Design, Labels]] = {}
        self._real: dict[str, Labels] = {}
        self._back: dict[str, npt.NDArray[np.bool_]] = {}
        self._own = {peer: self._rows(table, [local for local, _ in ids]) for peer, ids in self._ids.items() if ids}
        self._out: dict[str, npt.NDArray[np.bool_]] = {}

    def _rows(self, table: Table, ids: Sequence[str]) -> tuple[Design, Labels]:
        columns = table.columns(ids)
        return Design.build(self._tower, columns), self._labels(columns)

    @property
    def links(self) -> Mapping[str, list[bytes]]:
        return {peer: [link for _, link in ids] for peer, ids in self._ids.items()}

    def aligned(self, peer: str, rows: npt.NDArray[np.int64]) -> Floats | None:
        design, labels = self._own.pop(peer)
        back = np.array([self._ids[peer][int(row)][0] in self._linked_back for row in rows], dtype=bool)
        real = Labels(labels.claims[rows], labels.exposure_years[rows])
        # No claims in no time: who is held back adds zero to every sum of either party, and the peer cannot tell.
        blank = Labels(np.where(back, 0, real.claims), np.where(back, 0.0, real.exposure_years))
        self._joint[peer], self._real[peer], self._back[peer] = (take(design, rows), blank), real, back
        self._out[peer] = out_of_training(self._spec, self._ids[peer], rows)
        dense = self._joint[peer][0].dense()
        return dense if self._spec.evaluation is None else np.hstack([dense, np.ones((len(dense), ONES))])

    def factors(self, query: PlannedQuery, weights: object) -> tuple[dict[str, Floats], float]:
        if query.purpose.endswith("-logs"):
            cap = self._spec.claimCap
            made = {peer: labels.capped(cap) for peer, (_, labels) in self._joint.items()}
            return only(made, self._out, query), float(cap)
        made = self._factor(weights)
        if query.purpose == "holdout-oem":
            prior = float(self._spec.priorRate)
            most = floor_cap(self._tower)
            made = {p: np.minimum(prior * labels.exposure_years, most) for p, (_, labels) in self._joint.items()}
        elif query.purpose == "holdout-band":
            made = {p: np.where(self._band(p, a, weights) == query.group, a, 0.0) for p, a in made.items()}
        return only(made, self._out, query), floor_cap(self._tower)

    def vectors(self, query: PlannedQuery) -> tuple[dict[str, Floats], float]:
        cap = self._spec.claimCap
        made = {peer: labels.capped(cap) for peer, (_, labels) in self._joint.items()}
        return only(made, self._out, query), float(cap)

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        if query.purpose.startswith("holdout"):
            return self._holdout_sum(query, weights)
        rest = {"": self._rest} if self._rest is not None else {}
        parts = self._joint if query.cohort == "joint" else rest
        made: dict[str, Floats] = {}
        for peer, (design, labels) in parts.items():
            if query.purpose == "labels":
                made[peer] = labels.capped(self._spec.claimCap)
            else:
                made[peer] = design.factor(tower_weights(weights, "insurer"), labels.exposure_years)
        if query.cohort == "joint":
            made = only(made, self._out, query)
        total = np.zeros(query.size)
        for peer, values in made.items():
            total = total + parts[peer][0].sums(values, query.columns)
        return total

    def try_candidate(self, candidate: object) -> str | None:
        return veto.tried(self._spec, candidate, self._rest)

    def committed(self, peer: str) -> Floats:
        labels = self._joint[peer][1]
        return np.column_stack([labels.exposure_years, labels.capped(self._spec.claimCap), self._out[peer]])

    def own_value(self, weights: object, logs: tuple[float, float]) -> OwnValue | None:
        """Compare the joint model with the own one on the own held-out customers; None where there are none."""
        if not self._joint or not any(mask.any() for mask in self._out.values()):
            return None
        kept = {peer: np.flatnonzero(~mask) for peer, mask in self._out.items()}
        level_on = [
            (take(design, kept[peer]), Labels(labels.claims[kept[peer]], labels.exposure_years[kept[peer]]))
            for peer, (design, labels) in self._joint.items()
        ]
        learned = [*level_on, *([self._rest] if self._rest is not None else [])]
        judged = [
            (take(design, rows), Labels(labels.claims[rows], labels.exposure_years[rows]))
            for peer, (design, labels) in self._joint.items()
            for rows in [np.flatnonzero(self._out[peer])]
        ]
        alone = np.concatenate(alone_on(self._spec, learned, judged, level_on))
        parts = [self._held(peer, weights) for peer in self._joint]
        rows = InsurerRows(
            np.concatenate([part.own for part in parts]),
            np.concatenate([part.base for part in parts]),
            np.concatenate([part.prior for part in parts]),
            np.concatenate([part.claims for part in parts]),
            parts[0].cap,
        )
        return compare_alone(rows, alone, numbers_of(weights, "mean", 1)[0], logs, self._spec.claimCap)

    def attack(self, candidate: object) -> list[Attack]:
        """Attack every cohort of the candidate with own persons; of the joint one by the own factor of the price."""
        model = veto.read_candidate(partial(RiskModel.from_arrays, self._spec), candidate)
        found = []
        for name, cohort in model.cohorts.items():
            books = self._books(name)
            if not books:
                continue
            claims = np.concatenate([labels.capped(self._spec.claimCap) for _, labels, _ in books])
            prior = np.concatenate([labels.exposure_years for _, labels, _ in books])
            expected = np.concatenate([veto.expected_of(design, labels, cohort) for design, labels, _ in books])
            is_out, there = np.concatenate([out for *_, out in books]), prior > 0  # severity: without a claim, no word
            scores = claim_scores(claims[there], expected[there], prior[there], is_out[there])
            found.append(attacked(name, scores, is_out[there], self._spec))
        return found

    def _books(self, cohort: str) -> list[tuple[Design, Labels, npt.NDArray[np.bool_]]]:
        """Return own persons of a cohort with their real labels, and who of them was not trained on."""
        if cohort == "joint":
            return [(self._joint[p][0], real, self._out[p] | self._back[p]) for p, real in self._real.items()]
        rest = [(self._rest, False), (self._rest_back, True)]
        return [(*rows, np.full(rows[0].size, is_out)) for rows, is_out in rest if rows is not None]

    def _factor(self, weights: object, name: str = "insurer") -> dict[str, Floats]:
        return {
            peer: design.factor(tower_weights(weights, name), labels.exposure_years)
            for peer, (design, labels) in self._joint.items()
        }

    def _band(self, peer: str, own: Floats, weights: object) -> npt.NDArray[np.int64]:
        return band_of(own, self._joint[peer][1].exposure_years, numbers_of(weights, "bands", BANDS - 1))

    def _all(self, peer: str, weights: object) -> InsurerRows:
        labels = self._joint[peer][1]
        return InsurerRows(
            self._factor(weights)[peer],
            self._factor(weights, "base")[peer],
            float(self._spec.priorRate) * labels.exposure_years,
            labels.capped(self._spec.claimCap),
            math.prod(floor_cap(tower) for tower in self._spec.towers),
        )

    def _held(self, peer: str, weights: object) -> InsurerRows:
        rows, out = self._all(peer, weights), self._out[peer]
        return InsurerRows(rows.own[out], rows.base[out], rows.prior[out], rows.claims[out], rows.cap)

    def _holdout_sum(self, query: PlannedQuery, weights: object) -> Floats:
        """Return a LOCAL sum of the evaluation: every model in it is public, every person's part is cut to the clip."""
        ratio = numbers_of(weights, "ratio", 1)[0] if query.purpose == "holdout-less-base" else 1.0
        total = np.zeros(query.size)
        for peer, (design, labels) in self._joint.items():
            rows, out = self._all(peer, weights), self._out[peer]
            if query.purpose == "holdout-bands":
                bands = self._band(peer, rows.own, weights)
                total = total + np.bincount(bands[out], labels.capped(self._spec.claimCap)[out], query.size)
            elif query.purpose == "holdout-observed":
                total = total + design.sums(np.where(out, rows.value(query.purpose), 0.0), query.columns)
            else:
                total = total + rows.value(query.purpose, ratio)[out].sum()
        return total


class _Oem:
    def __init__(self, spec: RiskSpecification, links: Mapping[str, Ids], table: Table) -> None:
        self._spec = spec
        self._out: dict[str, npt.NDArray[np.bool_]] = {}
        self._tower = next(t for t in spec.towers if t.role == "oem")
        self._ids = {peer: list(ids) for peer, ids in links.items()}
        self._own = {
            peer: Design.build(self._tower, table.columns([local for local, _ in ids]))
            for peer, ids in self._ids.items()
            if ids
        }
        self._joint: dict[str, Design] = {}

    @property
    def links(self) -> Mapping[str, list[bytes]]:
        return {peer: [link for _, link in ids] for peer, ids in self._ids.items()}

    def aligned(self, peer: str, rows: npt.NDArray[np.int64]) -> Floats | None:
        self._joint[peer] = take(self._own.pop(peer), rows)
        self._out[peer] = out_of_training(self._spec, self._ids[peer], rows)
        return self._joint[peer].dense()

    def factors(self, query: PlannedQuery, weights: object) -> tuple[dict[str, Floats], float]:
        made = {peer: design.factor(tower_weights(weights, "oem")) for peer, design in self._joint.items()}
        if query.purpose.endswith("-logs"):
            logs = {peer: log_factor(values) for peer, values in made.items()}
            return only(logs, self._out, query), EVALUATION_LOG_BOUND
        return only(made, self._out, query), floor_cap(self._tower)

    def vectors(self, query: PlannedQuery) -> tuple[dict[str, Floats], float]:
        raise ActionRefused(f"query {query.id} has no vector at the OEM.", code="QUERY_WITHOUT_PART")

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        raise ActionRefused(f"query {query.id} has no local sum at the OEM.", code="QUERY_WITHOUT_PART")

    def try_candidate(self, candidate: object) -> str | None:
        return None

    def committed(self, peer: str) -> Floats:
        return self._out[peer].astype(np.float64)[:, None]


def out_of_training(
    spec: RiskSpecification, ids: Sequence[tuple[str, bytes]], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which common rows are held out: a public hash of the link id, alike at both holders."""
    if spec.evaluation is None:
        return np.zeros(rows.size, dtype=bool)
    return held_out([ids[int(row)][1] for row in rows], spec.evaluation.holdoutMilli)


def only(
    made: Mapping[str, Floats], out: Mapping[str, npt.NDArray[np.bool_]], query: PlannedQuery
) -> dict[str, Floats]:
    """Return vectors with zeros for whom the query is not about: held-out persons in training, all others in the
    evaluation."""
    is_evaluation = query.purpose.startswith("holdout")
    return {peer: np.where(out[peer] == is_evaluation, values, 0.0) for peer, values in made.items()}


def take(design: Design, rows: npt.NDArray[np.int64]) -> Design:
    """Return some rows of a design, in the given order."""
    blocks = tuple(Block(b.name, b.width, b.low[rows], b.upper[rows]) for b in design.blocks)
    return Design(design.tower, blocks)


def queries_of(plan: Plan, party: str) -> tuple[PlannedQuery, ...]:
    """Return the planned queries that a party answers."""
    return tuple(query for query in plan.queries if party in query.participants)


def charged_to(plan: Plan, party: str) -> tuple[PlannedQuery, ...]:
    """Return the planned queries that a party's persons pay for: those it answers, and every query over the joint cohort.

    A person is in the joint cohort because both holders have that person's link. So a party's records decide about sums that
    it takes no part in (label sums at the insurers, the item Gram matrix at the charging operator), and removing a person's
    records at this party changes them by at most their clip.
    """
    mine = queries_of(plan, party)
    is_joint = any(query.cohort == "joint" for query in mine)
    return tuple(
        query for query in plan.queries if party in query.participants or (is_joint and query.cohort == "joint")
    )


def tower_weights(weights: object, role: str) -> Mapping[str, Sequence[float]]:
    """Return the public weights of one tower from a message.

    Raises:
        ActionRefused: not lists of numbers by feature.
    """
    tower = weights.get(role) if isinstance(weights, Mapping) else None
    if not isinstance(tower, Mapping) or not all(
        isinstance(name, str) and isinstance(values, list) and all(type(value) in (int, float) for value in values)
        for name, values in tower.items()
    ):
        raise ActionRefused(
            f"the weights of the {role} tower are not lists of numbers by feature.",
            code="WEIGHTS_REFUSED",
            fix="Ask with one finite weight per knot or level of every feature of the tower.",
        )
    return tower


def own_value(part: Part, weights: object, logs: tuple[float, float]) -> OwnValue | None:
    """Return what the fitted model is worth to this party on its own held-out persons, where it can tell."""
    return part.own_value(weights, logs) if isinstance(part, _Insurer) else None


def numbers_of(weights: object, name: str, size: int) -> list[float]:
    """Return public numbers of a message by name.

    Raises:
        ActionRefused: not ``size`` finite numbers in increasing order.
    """
    given = weights.get(name) if isinstance(weights, Mapping) else None
    numbers = given if isinstance(given, list) else []
    fits = len(numbers) == size and all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
    if not fits or any(b <= a for a, b in pairwise(numbers)) or (numbers and numbers[0] <= 0):
        raise ActionRefused(
            f"the message lacks {size} positive, increasing number(s) {name!r}.",
            code="WEIGHTS_REFUSED",
            fix="The coordinator and this node may run different versions.",
        )
    return [float(value) for value in numbers]
