"""The gates of FORMAT.md §6, one function a gate or a family of gates, numbered as there.

Each yields reason codes, and obligations into ``case.obligations``. No gate looks at another's result; all of them always run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from convoy_contracts import signatures
from convoy_contracts.decide.world import Event, Record, Spending, World
from convoy_contracts.document import Contract, Permission, ScheduledAsset, ScheduledField
from convoy_contracts.instants import MICROSECONDS, decimal, instant

MAX_REQUEST_AGE = 300 * MICROSECONDS
IMPORTANT_DATA_PERSONS = 100_000
ADULT_CONSENT_AGE = 14
EVERYBODY = "*"
OWN_TERRITORIES = ("CN-HK", "CN-MO", "CN-TW")
CONTROLLER = "convoy:Controller"


def is_a(tree: Mapping[str, str | None], term: str, ancestor: str) -> bool:
    """Whether ``term`` is ``ancestor`` or below it; terms outside the tree are related to nothing."""
    if term not in tree or ancestor not in tree:
        return False
    here: str | None = term
    while here is not None:
        if here == ancestor:
            return True
        here = tree[here]
    return False


def related(tree: Mapping[str, str | None], one: str, other: str) -> bool:
    """Equal, narrower or wider."""
    return is_a(tree, one, other) or is_a(tree, other, one)


def territory(region: str) -> str:
    """Return the territory of a region code (FORMAT.md §1)."""
    for special in OWN_TERRITORIES:
        if region == special or region.startswith(special + "-"):
            return special.removeprefix("CN-")
    return region.split("-", 1)[0]


def at(text: str) -> int:
    """Return a timestamp of the parsed document, which is known to be one."""
    value = instant(text)
    if value is None:  # pragma: no cover - Contract.parse has checked it
        raise ValueError(text)
    return value


@dataclass
class Case:
    """One decision in progress."""

    now: int
    world: World
    contract: Contract
    request_scope: str
    purposes_digest: str
    obligations: set[str] = field(default_factory=set)

    @cached_property
    def schedule(self) -> dict[str, ScheduledAsset]:
        """Lines of the schedule by asset."""
        return {row.asset: row for row in self.contract.data}

    @cached_property
    def requested_fields(self) -> list[tuple[str, ScheduledField]]:
        """(asset, scheduled field) of every requested field that is scheduled."""
        found = []
        for asset, names in self.world.request.fields.items():
            if asset in self.schedule:
                wanted = set(names)
                found += [(asset, f) for f in self.schedule[asset].fields if f.name in wanted]
        return found

    @cached_property
    def is_sensitive(self) -> bool:
        """A sensitive round (gate 39)."""
        return any(f.sensitive for _, f in self.requested_fields)

    @cached_property
    def authorised_at(self) -> int | None:
        """When this node authorised this very round, if it did (gate 24)."""
        entry = self.world.node.authorised.get(self.world.request.round)
        return entry[0] if entry and entry[0] <= self.now and entry[1] == self.request_scope else None

    @cached_property
    def events(self) -> list[Event]:
        """Events that count: of this contract, up to now, by ascending seq."""
        return [e for e in self.world.events if e.uid == self.contract.uid and e.at <= self.now]


def clock(case: Case) -> Iterator[str]:
    """1 (b)."""
    if not case.world.node.clock_ok:
        yield "CLOCK_UNTRUSTED"


def binding(case: Case) -> Iterator[str]:
    """4-5: the request is about this contract, under the pinned purposes."""
    if case.world.request.contract_digest != case.contract.digest:
        yield "CONTRACT_DIGEST_MISMATCH"
    if case.contract.vocab.purposes != case.purposes_digest:
        yield "VOCABULARY_MISMATCH"


def signed(case: Case) -> Iterator[str]:
    """6-12: every party has one good signature."""
    for codes in signatures.faults(case.contract, case.world.signatures, case.world.keys).values():
        yield from codes


def in_force(case: Case) -> Iterator[str]:
    """13-18: term and events."""
    contract, request = case.contract, case.world.request
    if case.now < at(contract.term.notBefore):
        yield "TERM_NOT_STARTED"
    if case.now >= at(contract.term.notAfter):
        yield "TERM_ENDED"
    parties = {p.id for p in contract.parties}
    suspended: set[str] = set()
    is_terminated, superseded = False, None
    for event in case.events:
        is_member = event.by in parties
        party = event.rest.get("party")
        match event.type:
            case "suspend" if party == EVERYBODY:
                if (is_member or event.by == EVERYBODY) and event.rest.get("reasonClass") in (
                    "incident",
                    "legal",
                ):
                    suspended.add(EVERYBODY)
            case "suspend" if is_member and party == event.by:
                suspended.add(event.by)
            case "resume" if party == event.by and (is_member or party == EVERYBODY):
                suspended.discard(event.by)
            case "terminate" if is_member or event.by == EVERYBODY:
                is_terminated = True
            case "supersede" if event.by == EVERYBODY and _replaces(event, contract):
                superseded = event
            case _:
                pass
    if is_terminated:
        yield "CONTRACT_TERMINATED"
    if superseded is not None:
        if _may_finish(case, superseded):
            case.obligations.add(f"record:finished-under-v{contract.version}")
        else:
            yield "CONTRACT_SUPERSEDED"
    if EVERYBODY in suspended:
        yield "CONTRACT_SUSPENDED"
    concerned = {request.requester, *request.providers, *request.recipients}
    concerned |= {case.schedule[a].provider for a in request.assets if a in case.schedule}
    if suspended & concerned - {EVERYBODY}:
        yield "PARTY_SUSPENDED"


def _replaces(event: Event, contract: Contract) -> bool:
    version = event.rest.get("version")
    return type(version) is int and version == contract.version and event.rest.get("inFlight") in ("finish", "abort")


def _may_finish(case: Case, superseded: Event) -> bool:
    begun = case.authorised_at
    return (
        case.world.request.phase == "release"
        and begun is not None
        and superseded.rest["inFlight"] == "finish"
        and begun < superseded.at
        and case.now < begun + case.contract.limits.maxRoundSeconds * MICROSECONDS
    )


def parties(case: Case) -> Iterator[str]:
    """19-20."""
    request = case.world.request
    known = {p.id for p in case.contract.parties}
    if request.requester not in known or not known.issuperset(request.providers):
        yield "PARTY_NOT_IN_CONTRACT"
    if set(request.providers) != {case.schedule[a].provider for a in request.assets if a in case.schedule}:
        yield "PROVIDER_MISMATCH"


def freshness(case: Case) -> Iterator[str]:
    """21-24."""
    request, node = case.world.request, case.world.node
    if abs(case.now - request.issued_at) > MAX_REQUEST_AGE:
        yield "REQUEST_STALE"
    if request.nonce in node.seen_nonces:
        yield "REQUEST_REPLAYED"
    if request.phase == "authorise" and request.round <= node.last_round:
        yield "ROUND_NOT_MONOTONIC"
    if request.phase == "release" and case.authorised_at is None:
        yield "ROUND_NOT_AUTHORISED"


# Rules ---------------------------------------------------------------------------------------------------------------


def _holds(case: Case, constraint: Mapping[str, Any], *, in_prohibition: bool) -> bool | None:
    """Whether a constraint holds; None for an unknown term."""
    request, tree = case.world.request, case.world.vocabulary.purposes
    if set(constraint) != {"leftOperand", "operator", "rightOperand"}:
        return None
    left, operator, right = (constraint[k] for k in ("leftOperand", "operator", "rightOperand"))
    if not isinstance(left, str) or not isinstance(operator, str):
        return None
    match left, operator:
        case ("purpose", "eq") if isinstance(right, str):
            terms = [right]
        case ("purpose", "isA") if isinstance(right, str):
            terms = [right]
        case ("purpose", "isA" | "isAnyOf") if _is_ids(right):
            terms = right
        case ("algorithm", "isAnyOf") if _is_ids(right):
            return bool(request.algorithm in right)
        case ("recipient", "isAnyOf") if _is_ids(right):
            listed = set(right)
            asked = set(request.recipients)
            return bool(listed & asked) if in_prohibition else asked <= listed
        case ("elapsedRounds", "lteq") if type(right) is int:
            return bool(request.round <= right)
        case _:
            return None
    if not terms or any(term not in tree for term in terms):
        return None
    if in_prohibition:
        return any(related(tree, request.purpose, term) for term in terms)
    if operator == "eq":
        return bool(request.purpose == right)
    return any(is_a(tree, request.purpose, term) for term in terms)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def permissions(case: Case) -> Iterator[str]:
    """25-29: purpose, terms, and that every asset is covered by a permission."""
    request, vocabulary = case.world.request, case.world.vocabulary
    is_purpose_known = request.purpose in vocabulary.purposes
    if not is_purpose_known:
        yield "PURPOSE_UNKNOWN"
    if request.action not in vocabulary.actions:
        yield "UNKNOWN_TERM"
    assets = set(request.assets)
    applying = [
        rule
        for rule in case.contract.permission
        if is_a(vocabulary.actions, request.action, rule.action)
        and request.requester in rule.assignee
        and assets.intersection(rule.target)
    ]
    covered: set[str] = set()
    failing: list[set[str]] = []
    for rule in applying:
        held = [(c.get("leftOperand"), _holds(case, c, in_prohibition=False)) for c in rule.constraint]
        if any(result is None for _, result in held):
            yield "UNKNOWN_TERM"
        if all(result for _, result in held):
            covered.update(rule.target)
        failing.append({left for left, result in held if not result and isinstance(left, str)})
    if not assets <= covered:
        yield _why_uncovered(applying, failing, is_purpose_known)
    if all(algorithm.id != request.algorithm for algorithm in case.contract.algorithms):
        yield "ALGORITHM_NOT_ALLOWED"


def _why_uncovered(applying: list[Permission], failing: list[set[str]], is_purpose_known: bool) -> str:
    if applying and is_purpose_known and all("purpose" in lefts for lefts in failing):
        return "PURPOSE_NOT_COVERED"
    if applying and all("algorithm" in lefts for lefts in failing):
        return "ALGORITHM_NOT_ALLOWED"
    return "NO_MATCHING_PERMISSION"


def prohibitions(case: Case) -> Iterator[str]:
    """26 and 30: a prohibition hits if all its constraints hold; what is unknown counts as holding."""
    request, actions = case.world.request, case.world.vocabulary.actions
    assets = set(request.assets)
    for rule in case.contract.prohibition:
        if rule.target and not assets.intersection(rule.target):
            continue
        if rule.action not in actions:
            yield "UNKNOWN_TERM"
        elif not related(actions, request.action, rule.action):
            continue
        held = [_holds(case, c, in_prohibition=True) for c in rule.constraint]
        if any(result is None for result in held):
            yield "UNKNOWN_TERM"
        if all(result is None or result for result in held):
            yield "PROHIBITION_HIT"


# Data ----------------------------------------------------------------------------------------------------------------


def schedule(case: Case) -> Iterator[str]:
    """31-34: assets and fields are scheduled and in the catalogue, under the same owner."""
    request, catalogue = case.world.request, case.world.node.catalogue
    for asset in request.assets:
        row = case.schedule.get(asset)
        if row is None:
            yield "ASSET_NOT_IN_SCHEDULE"
        elif asset in catalogue and catalogue[asset].owner != row.provider:
            yield "ASSET_OWNER_CHANGED"
    for asset, names in request.fields.items():
        row = case.schedule.get(asset)
        scheduled = {f.name for f in row.fields} if row else set()
        if set(names) - scheduled:
            yield "FIELD_NOT_IN_SCHEDULE"
    for asset, item in case.requested_fields:
        if asset not in catalogue or item.name not in catalogue[asset].grades:
            yield "FIELD_NOT_IN_CATALOG"


def grades(case: Case) -> Iterator[str]:
    """35-37: the higher of the signed and the current grade counts."""
    order = {grade: rank for rank, grade in enumerate(case.world.vocabulary.grades)}
    limit = order[case.contract.limits.maxGrade]
    for asset, item in case.requested_fields:
        entry = case.world.node.catalogue.get(asset)
        current = entry.grades.get(item.name, item.grade) if entry else item.grade
        if order[current] > order[item.grade]:
            yield "GRADE_RAISED_SINCE_SIGNING"
        elif order[current] < order[item.grade]:
            case.obligations.add(f"note:downgrade-ignored:{item.name}")
        effective = max(current, item.grade, key=order.__getitem__)
        if effective == "C":
            yield "CORE_DATA_NEVER"
        if order[effective] > limit:
            yield "GRADE_EXCEEDS"


def sensitivity(case: Case) -> Iterator[str]:
    """38-39."""
    precision, purposes = case.world.request.precision, case.world.vocabulary.purposes
    for _, item in case.requested_fields:
        step = decimal(item.step)
        if item.name in precision and step is not None and precision[item.name] < step:
            yield "PRECISION_TOO_FINE"
    if case.is_sensitive and any(
        related(purposes, case.world.request.purpose, barred) for barred in case.world.vocabulary.barred
    ):
        yield "PURPOSE_BARRED_FOR_SENSITIVE"


def algorithm(case: Case) -> Iterator[str]:
    """40-42."""
    request = case.world.request
    entry = next((a for a in case.contract.algorithms if a.id == request.algorithm), None)
    if entry is None:
        return
    if entry.digest != request.algorithm_digest:
        yield "ALGORITHM_DIGEST_MISMATCH"
    for name, value in request.args.items():
        if name not in entry.args:
            yield "ALGORITHM_ARG_UNKNOWN"
        elif not entry.args[name][0] <= value <= entry.args[name][1]:
            yield "ALGORITHM_ARG_OUT_OF_RANGE"


def outputs(case: Case) -> Iterator[str]:
    """43-46: what comes out, who gets it, and where."""
    request, location = case.world.request, case.contract.location
    entry = next((o for o in case.contract.outputs if o.kind == request.output), None)
    if entry is None:
        yield "OUTPUT_NOT_IN_CONTRACT"
    elif not set(request.recipients) <= set(entry.recipients):
        yield "RECIPIENT_NOT_ALLOWED"
    export = location.export
    is_assessed = export is not None and case.now < at(export.validUntil)
    for recipient in request.recipients:
        party = case.contract.party(recipient)
        if party is not None and territory(party.region) in location.processing:
            continue
        if export is None or not is_assessed or recipient not in export.recipients:
            yield "EXPORT_NOT_ASSESSED"
    if any(territory(region) not in location.processing for region in request.node_regions):
        yield "REGION_NOT_ALLOWED"


# Persons and budget ----------------------------------------------------------------------------------------------------


def cohort(case: Case) -> Iterator[str]:
    """47-49: enough persons and providers; nobody withdrew since."""
    request, contract = case.world.request, case.contract
    if request.phase == "authorise":
        persons = _count(case)
        if persons > IMPORTANT_DATA_PERSONS:
            case.obligations.add("escalate:important-data-threshold")
        if persons < contract.cohort.minSubjects:
            yield "COHORT_TOO_SMALL"
        if len(set(request.providers)) < contract.cohort.minProviders:
            yield "TOO_FEW_PROVIDERS"
        return
    begun = case.authorised_at
    if begun is not None and contract.withdrawal.effective == "immediate":
        records = case.world.node.subjects
        if any(r.withdrawn is not None and begun < r.withdrawn <= case.now for r in records):
            yield "WITHDRAWAL_SINCE_AUTHORISATION"


def _count(case: Case) -> int:
    named: set[str] = set()
    persons = 0
    for record in case.world.node.subjects:
        if not counts_but_for_age(case, record):
            continue
        if record.age < ADULT_CONSENT_AGE and not record.has_guardian:
            case.obligations.add("exclude:minors-without-guardian")
        elif record.person is None:
            persons += record.n
        else:
            named.add(record.person)
    return persons + len(named)


def counts_but_for_age(case: Case, record: Record) -> bool:
    """Whether a record counts, the last test (age or guardian) aside."""
    request = case.world.request
    return (
        record.given is not None
        and record.given <= case.now
        and not (record.withdrawn is not None and record.withdrawn <= case.now)
        and (not case.is_sensitive if record.until is None else record.until > case.now)
        and record.notice in case.contract.consent.notices
        and is_a(case.world.vocabulary.purposes, request.purpose, record.purpose)
        and record.recipients.issuperset(request.recipients)
        and (record.is_separate or not case.is_sensitive)
    )


def budget(case: Case) -> Iterator[str]:
    """50-54; a release is not judged by 52-54 again: its epsilon was reserved when the round was authorised."""
    request, node = case.world.request, case.world.node
    for asset in set(request.assets):
        agreed = case.contract.privacy.get(asset)
        epsilon, delta = request.epsilon.get(asset), request.delta.get(asset)
        if agreed is None:
            yield "BUDGET_NOT_DEFINED"
        elif epsilon is None or delta is None or epsilon <= 0 or delta < 0:
            yield "BUDGET_NOT_STATED"
        elif request.phase == "authorise":
            used = node.budget.get(asset, Spending())
            if epsilon > agreed.perRoundMicro:
                yield "BUDGET_PER_ROUND"
            if used.spent + used.reserved + epsilon > min(agreed.totalMicro, node.asset_cap.get(asset, 0)):
                yield "BUDGET_EXHAUSTED"
            if used.delta_spent + used.delta_reserved + delta > agreed.deltaNano:
                yield "DELTA_EXHAUSTED"


def duties(case: Case) -> Iterator[str]:
    """55-57."""
    for party in case.contract.parties:
        if party.pia is not None and at(party.pia.validUntil) <= case.now:
            yield "PIA_EXPIRED"
        if party.pia is None and CONTROLLER in party.roles:
            yield "PIA_MISSING"
    if any(d.is_blocking and not d.is_fulfilled and d.due <= case.now for d in case.world.duties):
        yield "DUTY_OVERDUE"


GATES = (
    clock, binding, signed, in_force, parties, freshness, permissions, prohibitions, schedule, grades, sensitivity,
    algorithm, outputs, cohort, budget, duties,
)  # fmt: skip


def reasons(case: Case) -> Iterable[str]:
    """Run every gate."""
    for gate in GATES:
        yield from gate(case)
