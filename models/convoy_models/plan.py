"""The exact list of noisy sums that a run may ask, computed alike at every node and at the
coordinator.

A node answers nothing that is not on this list, at the noise written here; the coordinator cannot
ask for more. The plan is a pure function of the signed specification and of who takes part, so that
every side derives the same bytes.

Privacy. Unit: person. Relation: add or remove all records of one person at all nodes (towards the
other holder of a
pair: replace one person's values by zeros). Every query is ``sum_i g_i + noise`` with ``||g_i||_2
<= clip`` whatever the public weights are, hence a Gaussian-DP mechanism of ``mu = clip / sigma``;
queries compose exactly as the sum of ``mu^2`` (adaptively chosen weights included). Joint and solo
cohorts are disjoint persons within a run (parallel composition), so the charge of a run is the
largest cohort total.

Derivation of ``clip`` (exact upper bounds, fixed-point rounding included):

1. A block (one feature) has entries on the 2^-13 grid that sum to 1, so its L2 norm is <= 1
   (``features``). A row of ``m`` blocks has norm <= sqrt(m).
2. Label sums: ``g_i = x_i min(y_i, claimCap)``, an integer factor, so ``clip = sqrt(m) claimCap``.
   Severity (``severity-towers/1``): the same with counts as labels and capped amounts in the place of exposure, so the same
   bounds.
3. Model sums: ``g_i = x_i prod_t f_t(i)`` with ``0 <= f_t <= floor_15(cap_t)``: factors are cut to
   the cap and rounded to the 2^-15 grid at the node that holds them, so ``clip = sqrt(m) prod_t
   cap_t``.
4. LOCAL sums are rounded to the 2^-20 grid once after summing. A rounded sum moves by at most
   ``clip`` plus one grid step per coordinate: ``+ sqrt(size) 2^-20``. DOT and WEIGHTED sums are
   exact in the ring.
   Tables (``risk-pairs/1``): a person is in one cell of each of ``m`` tables, so label sums have ``clip = sqrt(m)
   claimCap`` and model sums ``clip = sqrt(m) modelCap``, plus the same rounding term.
   Networks (``Residual``, ``recommend-towers/1``): a person's gradient is cut to ``clip`` in L2, plus the same rounding term.
   Steps are sampled inside each node (secret coins), so they are charged together by an envelope (``mechanisms``), with a
   tail of delta / 50.
5. Gram ``x x'`` with ``||x|| <= C``: Frobenius norm <= C^2; profile ``z z'`` with ``||z|| <= 1``:
   <= 1; cross ``z x'``: <= C. Rows are rounded towards zero, which cannot lengthen them. All
   entries are opened, symmetric ones twice, and the norm counts both.

``sigma`` is what remains for anyone who knows one party's share (rule ``honest-one/1``: one party
alone on its side adds sigma^2, each of K >= 2 parties sigma^2 / (K - 1)). Epsilon is quoted for
that. ACCURACY must be quoted under the noise that is really added, ``PlannedQuery.noise_sd``: over
the sides of a query the factors 1 (one party) or K/(K-1) add up.

LIMIT: a person counts once in a cohort, with one OEM record and one insurer (the consent register
refuses a second link). A person insured twice under two identities is in two cohorts; the loss of
the two adds up (in mu^2: twice).

What may never change for a ``kind``: ids, order, clips and the rounding of sigma (up, to 2^-20) and
mu^2 (up, to 1e-12).
LENGTH: over 500 lines, so that each derivation stands beside the queries that rest on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from convoy_contracts.specification import (
    Cuts,
    Knots,
    Levels,
    PairsSpecification,
    RecommendSpecification,
    RiskSpecification,
    SeveritySpecification,
    Specification,
    Tower,
    TowersSpecification,
)
from convoy_models.accounting import mu_of
from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import FACTOR_BITS, local_clip, widened
from convoy_models.mechanisms import left_of

Kind = Literal["LOCAL", "DOT", "WEIGHTED", "TRILINEAR"]
Cohort = Literal["joint", "solo", "all"]
Purpose = Literal[
    "labels", "model", "gram", "cross", "profile",
    "holdout-observed", "holdout-levels", "holdout-logs", "holdout-ratio", "holdout-base", "holdout-squares",
    "holdout-score", "holdout-years", "holdout-null", "holdout-oem", "holdout-bands", "holdout-band",
    "holdout-insurer", "holdout-own-logs", "holdout-less-base", "holdout-less-expected", "holdout-less-logs",
    "residual", "popularity", "descent", "holdout-lists",
]  # fmt: skip

EVALUATION_LOG_BOUND = 0.5
"""Bound on |log of the OEM factor| in the evaluation (``holdout``)."""
EVALUATION_RATIO_BOUND = 0.5
"""Bound on |log of the joint insurer factor over the insurers' own model| in the evaluation."""
SIGMA_STEP = 2.0**-20
MU2_STEP = 1e-12


class PlanRefused(ModelsError):
    """The specification and the parties do not make a run; the message says which part."""

    code = "PLAN_REFUSED"
    fix = "Correct the specification or the list of parties and sign again."
    fix_zh = "请更正规格或参与方名单，并重新签署。"


@dataclass(frozen=True, slots=True)
class Side:
    """The parties that hold one operand of a sum, and add its noise."""

    role: str
    parties: tuple[str, ...]

    @property
    def variance(self) -> float:
        """Total noise variance of the side in units of sigma^2: 1, or K / (K - 1)."""
        count = len(self.parties)
        return 1.0 if count == 1 else count / (count - 1)


@dataclass(frozen=True, slots=True)
class PlannedQuery:
    """One noisy sum of a run.

    ``columns`` is the half-open slice of the matrix holder's design; ``shape`` is (rows, columns)
    of the result; ``clip`` the L2 sensitivity per person; ``sigma`` the noise that remains without
    any one share; ``matrix`` the side that holds the rows x, ``vectors`` the sides that hold the
    other factors (none for LOCAL, one for DOT, two for WEIGHTED and TRILINEAR).

    ``rate`` and ``lead``: a step of a Poisson-sampled training (DP-SGD, LOCAL, never joint): each
    person is in it with probability ``rate`` by a secret coin of its node, and ``lead`` names the
    training, whose steps a ledger pays for together (``mechanisms.envelope``). The ``mu2`` of its
    steps add up to that envelope's. ``peak``: the largest size of one coordinate of one person's
    part where that is less than ``clip``; decides the head-room of the ring only.
    """

    id: str
    kind: Kind
    cohort: Cohort
    module: str
    purpose: Purpose
    sweep: int
    group: int
    columns: tuple[int, int]
    shape: tuple[int, int]
    clip: float
    sigma: float
    mu2: float
    matrix: Side
    vectors: tuple[Side, ...]
    rate: float = 1.0
    lead: str | None = None
    peak: float | None = None

    @property
    def size(self) -> int:
        """Numbers in the result."""
        return self.shape[0] * self.shape[1]

    @property
    def sides(self) -> tuple[Side, ...]:
        """Every side that adds noise, each once; the matrix holder first."""
        seen = {self.matrix.role: self.matrix}
        for side in self.vectors:
            seen.setdefault(side.role, side)
        return tuple(seen.values())

    @property
    def participants(self) -> tuple[str, ...]:
        """Every party that answers this query."""
        return tuple(party for side in self.sides for party in side.parties)

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the noise that the opened sum really carries (all parties
        honest)."""
        return self.sigma * math.sqrt(sum(side.variance for side in self.sides))


@dataclass(frozen=True, slots=True)
class Plan:
    """All queries of one run in the order in which they may be asked."""

    kind: str
    queries: tuple[PlannedQuery, ...]
    mu2_limit: float

    def __getitem__(self, query: str) -> PlannedQuery:
        for planned in self.queries:
            if planned.id == query:
                return planned
        raise PlanRefused(f"query {query!r} is not in the plan of this run")

    @property
    def training(self) -> Plan:
        """The queries that the optimiser asks: all but those about the hold-out."""
        return Plan(self.kind, tuple(q for q in self.queries if not q.purpose.startswith("holdout")), self.mu2_limit)

    @property
    def evaluation(self) -> Plan:
        """The queries about the hold-out, asked after the model is fitted; none where nothing is held out."""
        return Plan(self.kind, tuple(q for q in self.queries if q.purpose.startswith("holdout")), self.mu2_limit)

    def mu2(self, cohort: Cohort) -> float:
        """Sum of mu^2 over the queries that touch a cohort ('all' queries touch every cohort)."""
        return math.fsum(q.mu2 for q in self.queries if q.cohort in (cohort, "all"))

    @property
    def charge(self) -> float:
        """mu^2 that the run costs every person: the largest cohort total."""
        return max(self.mu2(q.cohort) for q in self.queries)


def layout(tower: Tower) -> tuple[tuple[Knots | Levels, ...], ...]:
    """Return the tower's features by group, in the order of its design columns."""
    if tower.groups is None:
        return (tower.features,)
    by_name = {feature.name: feature for feature in tower.features}
    return tuple(tuple(by_name[name] for name in group) for group in tower.groups)


def floor_cap(tower: Tower) -> float:
    """Return the tower's cap on the factor grid, rounded down."""
    return math.floor(float(tower.cap) * (1 << FACTOR_BITS)) / (1 << FACTOR_BITS)


def plan(specification: Specification, roles: Mapping[str, Sequence[str]]) -> Plan:
    """Return the plan of a run.

    Args:
        specification: the signed specification.
        roles: party ids by role ('oem', 'insurer', 'charging'); other roles are ignored.

    Raises:
        PlanRefused: a role is missing, there is more than one OEM, or the numbers make no run.
    """
    from convoy_models.neural.planned import tail_of, tower_queries

    sides = {role: Side(role, tuple(sorted(parties))) for role, parties in roles.items() if parties}
    limit = mu_of(specification.epsilonMicro / 1e6, left_of(specification.deltaNano / 1e9, tail_of(specification))) ** 2
    if isinstance(specification, RiskSpecification):
        queries = _risk(specification, sides, limit)
    elif isinstance(specification, SeveritySpecification):
        queries = _risk(specification.as_frequency(), sides, limit)
    elif isinstance(specification, PairsSpecification):
        queries = _pairs(specification, _side(sides, "insurer"), limit)
    elif isinstance(specification, TowersSpecification):
        queries = tower_queries(specification, _side(sides, "charging"), limit)
    else:
        queries = _recommend(specification, sides, limit)
    made = Plan(specification.kind, tuple(queries), limit)
    if made.charge > limit:
        raise PlanRefused("the plan would pass its own epsilon")
    return made


def _side(sides: Mapping[str, Side], role: str, single: bool = False) -> Side:
    if role not in sides:
        raise PlanRefused(f"no party with role {role!r} takes part; the specification needs one")
    if single and len(sides[role].parties) != 1:
        raise PlanRefused(f"{len(sides[role].parties)} parties with role {role!r}; one is needed")
    return sides[role]


def noise_of(clip: float, mu2: float) -> tuple[float, float]:
    """Return (sigma rounded up, mu^2 rounded up) of a query that may spend ``mu2``."""
    sigma = math.ceil(clip / math.sqrt(mu2) / SIGMA_STEP + 2) * SIGMA_STEP
    return sigma, math.ceil((clip / sigma) ** 2 / MU2_STEP) * MU2_STEP


def clip_of(kind: Kind, norm: float, size: int) -> float:
    """Return the L2 sensitivity of a sum of ``size`` numbers in which a person's part has at most this norm."""
    return local_clip(norm, size) if kind == "LOCAL" else widened(norm)


def local_query(
    query: str,
    side: Side,
    purpose: Purpose,
    size: int,
    *,
    clip: float,
    noise: tuple[float, float],
    sweep: int = 0,
    group: int = 0,
    first: int = 0,
    rate: float = 1.0,
    lead: str | None = None,
) -> PlannedQuery:
    """Return a LOCAL sum of ``size`` numbers over everybody at one side; ``noise`` is (sigma, mu^2), ``first`` where it begins."""
    return PlannedQuery(
        id=query,
        kind="LOCAL",
        cohort="all",
        module=side.role,
        purpose=purpose,
        sweep=sweep,
        group=group,
        columns=(first, first + size),
        shape=(size, 1),
        clip=clip,
        sigma=noise[0],
        mu2=noise[1],
        matrix=side,
        vectors=(),
        rate=rate,
        lead=lead,
    )


def _risk(spec: RiskSpecification, sides: Mapping[str, Side], limit: float) -> list[PlannedQuery]:
    towers = {tower.role: tower for tower in spec.towers}
    if "insurer" not in towers or len(towers) != len(spec.towers):
        raise PlanRefused("a risk specification needs one insurer tower and at most one OEM tower")
    insurer = _side(sides, "insurer")
    own = (towers["insurer"],)
    if "oem" not in towers:
        return _risk_cohort(spec, "all", own, spec.sweeps, {"insurer": insurer}, limit)
    both = {"insurer": insurer, "oem": _side(sides, "oem", single=True)}
    kept = limit if spec.evaluation is None else limit * (1 - spec.evaluation.shareMilli / 1000)
    queries = _risk_cohort(spec, "joint", (towers["insurer"], towers["oem"]), spec.sweeps, both, kept)
    if spec.patterns == "own":
        queries += _risk_cohort(spec, "solo", own, spec.soloSweeps, {"insurer": insurer}, limit)
    if spec.evaluation is None:
        return queries
    from convoy_models.plan_holdout import holdout_queries

    return queries + holdout_queries(spec, both, limit - kept)


def _risk_cohort(
    spec: RiskSpecification,
    cohort: Cohort,
    towers: Sequence[Tower],
    sweeps: int,
    sides: Mapping[str, Side],
    limit: float,
) -> list[PlannedQuery]:
    """Label sums and a first model sum of whole towers, then passes group by group; mu^2 in
    proportion to the blocks asked."""
    usable = limit * (1 - 1e-6)
    blocks = sum(len(tower.features) for tower in towers)
    label_mu2 = usable * spec.labelShareMilli / 1000 / blocks
    model_mu2 = usable * (1 - spec.labelShareMilli / 1000) / blocks / sweeps
    cap = math.prod(floor_cap(tower) for tower in towers)
    if cap <= 0:
        raise PlanRefused("a tower's cap is below 2^-15; raise it")
    insurer = sides["insurer"]
    queries = []
    for sweep in range(sweeps + 1):
        for tower in towers:
            stop = 0
            groups = (tower.features,) if sweep <= 1 else layout(tower)
            for index, group in enumerate(groups):
                start, stop = stop, stop + sum(feature.width for feature in group)
                joined = len(towers) > 1
                matrix = sides[tower.role]
                if sweep == 0:
                    purpose: Purpose = "labels"
                    factor, share = float(spec.claimCap), label_mu2
                    kind: Kind = "LOCAL" if tower.role == "insurer" else "DOT"
                    vectors: tuple[Side, ...] = () if kind == "LOCAL" else (insurer,)
                else:
                    purpose, factor, share = "model", cap, model_mu2
                    kind = "WEIGHTED" if joined else "LOCAL"
                    vectors = tuple(sides[t.role] for t in towers) if joined else ()
                clip = clip_of(kind, math.sqrt(len(group)) * factor, stop - start)
                sigma, mu2 = noise_of(clip, share * len(group))
                name = (
                    f"{cohort}/labels/{tower.role}"
                    if sweep == 0
                    else f"{cohort}/model-{sweep:02d}/{tower.role}/{index}"
                )
                queries.append(
                    PlannedQuery(
                        id=name,
                        kind=kind,
                        cohort=cohort,
                        module=tower.role,
                        purpose=purpose,
                        sweep=sweep,
                        group=index,
                        columns=(start, stop),
                        shape=(stop - start, 1),
                        clip=clip,
                        sigma=sigma,
                        mu2=mu2,
                        matrix=matrix,
                        vectors=vectors,
                        peak=factor,
                    )
                )
    return queries


Table = tuple[str, ...]
"""A table of ``risk-pairs/1`` by the features that span it: one name or two."""


def table_rounds(spec: PairsSpecification) -> tuple[tuple[Table, ...], ...]:
    """Return the tables by exchange: each feature alone, then pairs in rounds that use a feature once.

    Pairs of one round share no feature, so their updates hardly disturb each other (round-robin, circle method).
    """
    wanted = {frozenset(pair): pair for pair in spec.pairs}
    names: list[str | None] = [feature.name for feature in spec.features]
    rounds: list[tuple[Table, ...]] = [((name,),) for name in names if name is not None]
    if len(names) % 2:
        names.append(None)
    for _ in range(len(names) - 1):
        met = [frozenset((names[i], names[-1 - i])) for i in range(len(names) // 2)]
        turn = tuple(wanted[pair] for pair in met if pair in wanted)  # type: ignore[index]
        if turn:
            rounds.append(turn)
        names = [names[0], names[-1], *names[1:-1]]
    return tuple(rounds)


def table_cells(spec: PairsSpecification, table: Table) -> int:
    """Return how many cells a table has."""
    features = {feature.name: feature for feature in spec.features}
    if len(table) == 1:
        return features[table[0]].width
    return math.prod(pair_width(features[name]) for name in table)


def pair_width(feature: Cuts | Levels) -> int:
    """Return how many cells a feature has in tables of two."""
    if isinstance(feature, Levels) or feature.coarse is None:
        return feature.width
    return len(feature.coarse) + 1


def _pairs(spec: PairsSpecification, side: Side, limit: float) -> list[PlannedQuery]:
    """Label sums of all tables once, then model sums round by round in every pass; mu^2 in proportion to the squared
    weight of the tables asked. A residual's steps come last."""
    from convoy_models.neural.planned import residual_queries

    steps = residual_queries(spec, side, limit)
    usable = (limit - math.fsum(step.mu2 for step in steps)) * (1 - 1e-6)
    rounds = table_rounds(spec)
    weight = {1: (spec.mainWeightMilli / 1000) ** 2, 2: 1.0}
    parts = sum(weight[len(table)] for turn in rounds for table in turn)
    share = spec.labelShareMilli / 1000
    alone: tuple[Table, ...] = tuple(table for turn in rounds for table in turn if len(table) == 1)
    paired: tuple[Table, ...] = tuple(table for turn in rounds for table in turn if len(table) == 2)
    asked: list[tuple[str, Purpose, int, int, tuple[Table, ...], float, float]] = [
        (f"all/labels/{name}", "labels", 0, group, tables, float(spec.claimCap), usable * share / parts)
        for group, (name, tables) in enumerate((("mains", alone), ("pairs", paired)))
        if tables
    ]
    cap, each = float(spec.modelCap), usable * (1 - share) / parts / spec.passes
    for turn in range(1, spec.passes + 1):
        asked += [
            (f"all/model-{turn:02d}/{group:02d}", "model", turn, group, tables, cap, each)
            for group, tables in enumerate(rounds)
        ]
    start: dict[Table, int] = dict.fromkeys(alone + paired, 0)
    place = 0
    for table in start:
        start[table], place = place, place + table_cells(spec, table)
    queries = []
    for name, purpose, sweep, group, tables, factor, mu2 in asked:
        first = start[tables[0]]
        size = sum(table_cells(spec, table) for table in tables)
        clip = local_clip(math.sqrt(len(tables)) * factor, size)
        noise = noise_of(clip, mu2 * sum(weight[len(table)] for table in tables))
        queries.append(
            local_query(name, side, purpose, size, clip=clip, noise=noise, sweep=sweep, group=group, first=first)
        )
    return queries + steps


def _recommend(spec: RecommendSpecification, sides: Mapping[str, Side], limit: float) -> list[PlannedQuery]:
    """Gram of the items (LOCAL, charging), profile x items (DOT), second moments of the profile
    (LOCAL, OEM)."""
    oem, charging = _side(sides, "oem", single=True), _side(sides, "charging")
    norm = float(spec.historyNorm)
    if norm <= 0:
        raise PlanRefused("historyNorm must be positive")
    items, width = len(spec.items), 1 + sum(knots.width for knots in spec.profile)
    gram, cross = spec.gramShareMilli / 1000, spec.crossShareMilli / 1000
    rows: list[tuple[Purpose, Kind, tuple[int, int], float, float, Side, tuple[Side, ...]]] = [
        ("gram", "LOCAL", (items, items), norm * norm, gram, charging, ()),
        ("cross", "DOT", (width, items), norm, cross, oem, (charging,)),
        ("profile", "LOCAL", (width, width), 1.0, 1 - gram - cross, oem, ()),
    ]
    queries = []
    for purpose, kind, shape, bound, share, matrix, vectors in rows:
        clip = clip_of(kind, bound, shape[0] * shape[1])
        sigma, mu2 = noise_of(clip, limit * (1 - 1e-6) * share)
        queries.append(
            PlannedQuery(
                id=f"joint/{purpose}",
                kind=kind,
                cohort="joint",
                module=matrix.role,
                purpose=purpose,
                sweep=0,
                group=0,
                columns=(0, shape[0]),
                shape=shape,
                clip=clip,
                sigma=sigma,
                mu2=mu2,
                matrix=matrix,
                vectors=vectors,
            )
        )
    return queries
