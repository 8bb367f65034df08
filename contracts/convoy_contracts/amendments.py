"""What an amendment does to people and parties, member by member: pure comparison of two versions of a contract.

*Widening* lets anything happen that the old version did not: it needs every signature and, for data about persons, their
consent again. *Narrowing* takes something away: it needs notice. *Neutral* changes neither. What cannot be shown to be
narrower is called wider. Guarantee (a test holds it): if no change is widening, whatever the new version allows, the old one
allowed too, impact assessments aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from convoy_contracts.consent import REASK_DAYS
from convoy_contracts.decide.gates import at, is_a, territory
from convoy_contracts.document import Contract, Permission, Prohibition, ScheduledAsset
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.vocabulary import ACTIONS, GRADES, PURPOSES


class Effect(StrEnum):
    """What one change does."""

    WIDENING = "widening"
    NARROWING = "narrowing"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Change:
    """One changed member: where, what it does, what it was and is (None: not there)."""

    where: str
    effect: Effect
    old: Any
    new: Any

    def as_json(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return {"where": self.where, "effect": str(self.effect), "old": self.old, "new": self.new}


@dataclass(frozen=True, slots=True)
class Amendment:
    """All changes between two versions."""

    changes: tuple[Change, ...]

    @property
    def needs_consent(self) -> bool:
        """Whether persons must be asked again; otherwise they are notified."""
        return any(change.effect is Effect.WIDENING for change in self.changes)


def classify(old: Contract, new: Contract) -> Amendment:
    """Compare two versions of one contract.

    Raises:
        ArgumentRefused: not the same contract, or the version does not grow.
    """
    if old.uid != new.uid:
        raise ArgumentRefused(f"{old.uid} and {new.uid} are two contracts", fix="Compare versions of one contract.")
    if new.version <= old.version:
        raise ArgumentRefused(f"version {new.version} does not follow {old.version}", fix="Number versions upwards.")
    found = [change for part in _PARTS for change in part(old, new) if change.old != change.new]
    return Amendment(tuple(found))


# Building blocks -------------------------------------------------------------------------------------------------------


def _more(where: str, old: Any, new: Any, *, is_wider: bool) -> Change:
    return Change(where, Effect.WIDENING if is_wider else Effect.NARROWING, old, new)


def _set(where: str, old: Sequence[str], new: Sequence[str]) -> Iterator[Change]:
    """More members mean more is possible."""
    for item in sorted(set(new) - set(old)):
        yield Change(where, Effect.WIDENING, None, item)
    for item in sorted(set(old) - set(new)):
        yield Change(where, Effect.NARROWING, item, None)


def _keyed(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """As ``_set``, over the keys of two mappings."""
    yield from _set(where, list(old), list(new))


def _moment(where: str, old: str, new: str, *, later_is_wider: bool) -> Change:
    """Equal instants under two offsets are no change."""
    if at(old) == at(new):
        return Change(where, Effect.NEUTRAL, old, new)
    return _more(where, old, new, is_wider=(at(new) > at(old)) is later_is_wider)


def _rank(grade: str) -> int:
    return GRADES.index(grade) if grade in GRADES else len(GRADES)


# Parts -----------------------------------------------------------------------------------------------------------------


def _frame(old: Contract, new: Contract) -> Iterator[Change]:
    for name in ("title", "offerNonce", "offerUntil", "author"):
        yield Change(name, Effect.NEUTRAL, getattr(old, name), getattr(new, name))
    yield Change("vocab.purposes", Effect.WIDENING, old.vocab.purposes, new.vocab.purposes)
    yield _moment("term.notBefore", old.term.notBefore, new.term.notBefore, later_is_wider=False)
    yield _moment("term.notAfter", old.term.notAfter, new.term.notAfter, later_is_wider=True)
    wider_grade = _rank(new.limits.maxGrade) >= _rank(old.limits.maxGrade)
    yield _more("limits.maxGrade", old.limits.maxGrade, new.limits.maxGrade, is_wider=wider_grade)
    seconds = old.limits.maxRoundSeconds, new.limits.maxRoundSeconds
    yield _more("limits.maxRoundSeconds", *seconds, is_wider=seconds[1] > seconds[0])
    effective = old.withdrawal.effective, new.withdrawal.effective
    yield _more("withdrawal.effective", *effective, is_wider=effective[1] == "next-round")
    yield from _set("consent.notices", old.consent.notices, new.consent.notices)
    separate = (old.consent.separateNotices or [], new.consent.separateNotices or [])
    yield from _set("consent.separateNotices", *separate)
    days = old.consent.reaskAfterDays, new.consent.reaskAfterDays
    is_sooner = (days[1] or REASK_DAYS) < (days[0] or REASK_DAYS)
    yield _more("consent.reaskAfterDays", *days, is_wider=is_sooner)
    texts = [dict(c.legalText.digests) if c.legalText else None for c in (old, new)]
    yield Change("legalText", Effect.NEUTRAL, *texts)  # rendered from the document, which is compared member by member
    for name in ("minSubjects", "minProviders"):
        floors = getattr(old.cohort, name), getattr(new.cohort, name)
        yield _more(f"cohort.{name}", *floors, is_wider=floors[1] < floors[0])


def _parties(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({party.id: party for party in contract.parties} for contract in (old, new))
    yield from _keyed("parties", before, after)
    for name in sorted(before.keys() & after.keys()):
        was, now = before[name], after[name]
        is_moved = territory(was.region) != territory(now.region)
        effect = Effect.WIDENING if is_moved else Effect.NEUTRAL
        yield Change(f"parties.{name}.region", effect, was.region, now.region)
        dropped = "convoy:Controller" in was.roles and "convoy:Controller" not in now.roles
        effect = Effect.WIDENING if dropped or set(now.roles) - set(was.roles) else Effect.NEUTRAL
        yield Change(f"parties.{name}.roles", effect, sorted(was.roles), sorted(now.roles))
        tiers = was.tier or "", now.tier or ""
        yield _more(f"parties.{name}.tier", was.tier, now.tier, is_wider=not tiers[1] or tiers[1] > tiers[0] > "")
        for member in ("pia", "maskKey", "witnessKey"):
            pair = (getattr(was, member), getattr(now, member))
            shown = [value.model_dump() if hasattr(value, "model_dump") else value for value in pair]
            effect = Effect.WIDENING if pair[1] is None else Effect.NEUTRAL
            yield Change(f"parties.{name}.{member}", effect, *shown)


def _schedule(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({row.asset: row for row in contract.data} for contract in (old, new))
    yield from _keyed("data", before, after)
    for asset in sorted(before.keys() & after.keys()):
        yield from _asset(before[asset], after[asset])


def _asset(old: ScheduledAsset, new: ScheduledAsset) -> Iterator[Change]:
    where = f"data.{old.asset}"
    yield Change(f"{where}.provider", Effect.WIDENING, old.provider, new.provider)
    before, after = ({item.name: item for item in row.fields} for row in (old, new))
    yield from _keyed(f"{where}.fields", before, after)
    for name in sorted(before.keys() & after.keys()):
        was, now = before[name], after[name]
        here = f"{where}.fields.{name}"
        # Either way: a lower grade has laxer rules, a higher one admits again what its owner has graded higher since signing.
        yield Change(f"{here}.grade", Effect.WIDENING, was.grade, now.grade)
        # Either way: a new flag means more is known about persons, a dropped one means less protection for them.
        yield Change(f"{here}.sensitive", Effect.WIDENING, was.sensitive, now.sensitive)
        yield Change(f"{here}.necessity", Effect.NEUTRAL, was.necessity, now.necessity)
        if Decimal(was.step) != Decimal(now.step):
            yield _more(f"{here}.step", was.step, now.step, is_wider=Decimal(now.step) < Decimal(was.step))


def _machinery(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({a.id: a for a in contract.algorithms} for contract in (old, new))
    yield from _keyed("algorithms", before, after)
    for name in sorted(before.keys() & after.keys()):
        was, now = before[name], after[name]
        yield Change(f"algorithms.{name}.digest", Effect.WIDENING, was.digest, now.digest)
        yield from _keyed(f"algorithms.{name}.args", was.args, now.args)
        for arg in sorted(was.args.keys() & now.args.keys()):
            low, high = now.args[arg]
            is_wider = low <= high and (low < was.args[arg][0] or high > was.args[arg][1])
            yield _more(f"algorithms.{name}.args.{arg}", was.args[arg], now.args[arg], is_wider=is_wider)
    recipients = [{o.kind: o.recipients for o in contract.outputs} for contract in (old, new)]
    yield from _keyed("outputs", *recipients)
    for kind in sorted(recipients[0].keys() & recipients[1].keys()):
        yield from _set(f"outputs.{kind}.recipients", recipients[0][kind], recipients[1][kind])


def _duties(old: Contract, new: Contract) -> Iterator[Change]:
    """A duty more binds more; one that is dropped or changed binds less, for all that can be shown."""
    before, after = ({duty.id: duty.model_dump(exclude_none=True) for duty in c.duties or ()} for c in (old, new))
    for name in sorted(before.keys() | after.keys()):
        effect = Effect.NARROWING if name not in before else Effect.WIDENING
        yield Change(f"duties.{name}", effect, before.get(name), after.get(name))


def _places(old: Contract, new: Contract) -> Iterator[Change]:
    yield from _set("location.processing", old.location.processing, new.location.processing)
    was, now = old.location.export, new.location.export
    if was is None or now is None:
        shown = [value.model_dump() if value else None for value in (was, now)]
        yield _more("location.export", *shown, is_wider=now is not None)
        return
    yield Change("location.export.mechanism", Effect.WIDENING, was.mechanism, now.mechanism)
    yield _moment("location.export.validUntil", was.validUntil, now.validUntil, later_is_wider=True)
    yield from _set("location.export.recipients", was.recipients, now.recipients)


def _budgets(old: Contract, new: Contract) -> Iterator[Change]:
    yield from _keyed("privacy", old.privacy, new.privacy)
    for asset in sorted(old.privacy.keys() & new.privacy.keys()):
        for name in ("perRoundMicro", "totalMicro", "deltaNano"):
            pair = getattr(old.privacy[asset], name), getattr(new.privacy[asset], name)
            yield _more(f"privacy.{asset}.{name}", *pair, is_wider=pair[1] > pair[0])


# Rules -----------------------------------------------------------------------------------------------------------------


def _permissions(old: Contract, new: Contract) -> Iterator[Change]:
    """A new permission is narrower if one old permission contains it; a dropped one narrows."""
    before, after = [_body(rule) for rule in old.permission], [_body(rule) for rule in new.permission]
    for rule in new.permission:
        if _body(rule) not in before:
            is_wider = not any(_permits_no_more(rule, was) for was in old.permission)
            yield _more(f"permission.{rule.uid}", None, _body(rule), is_wider=is_wider)
    for rule in old.permission:
        if _body(rule) not in after:
            yield Change(f"permission.{rule.uid}", Effect.NARROWING, _body(rule), None)


def _prohibitions(old: Contract, new: Contract) -> Iterator[Change]:
    """A dropped prohibition widens unless one new prohibition forbids as much."""
    before, after = [_body(rule) for rule in old.prohibition], [_body(rule) for rule in new.prohibition]
    for prohibition in new.prohibition:
        if _body(prohibition) not in before:
            yield Change(f"prohibition.{prohibition.uid}", Effect.NARROWING, None, _body(prohibition))
    for prohibition in old.prohibition:
        if _body(prohibition) not in after:
            is_wider = not any(_forbids_as_much(now, prohibition) for now in new.prohibition)
            yield _more(f"prohibition.{prohibition.uid}", _body(prohibition), None, is_wider=is_wider)


def _body(rule: Permission | Prohibition) -> dict[str, Any]:
    return {name: value for name, value in rule.model_dump().items() if name != "uid"}


def _permits_no_more(new: Permission, old: Permission) -> bool:
    return (
        is_a(ACTIONS, new.action, old.action)
        and set(new.target) <= set(old.target)
        and set(new.assignee) <= set(old.assignee)
        and all(any(_implies(mine, theirs) for mine in new.constraint) for theirs in old.constraint)
    )


def _forbids_as_much(new: Prohibition, old: Prohibition) -> bool:
    covers = not new.target or (bool(old.target) and set(old.target) <= set(new.target))
    is_same_action = new.action == old.action or new.action == "use"
    return covers and is_same_action and all(constraint in old.constraint for constraint in new.constraint)


def _implies(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a permission's constraint ``new`` holds only where ``old`` holds."""
    if dict(new) == dict(old):
        return True
    known = {"leftOperand", "operator", "rightOperand"}
    if set(new) != known or set(old) != known or new["leftOperand"] != old["leftOperand"]:
        return False
    left, mine, theirs = new["leftOperand"], new["rightOperand"], old["rightOperand"]
    if left == "elapsedRounds":
        is_lteq = new["operator"] == old["operator"] == "lteq"
        return is_lteq and type(mine) is int and type(theirs) is int and mine <= theirs
    if left in ("algorithm", "recipient"):
        is_any = new["operator"] == old["operator"] == "isAnyOf"
        return is_any and isinstance(mine, list) and isinstance(theirs, list) and all(item in theirs for item in mine)
    if left == "purpose" and old["operator"] in ("isA", "isAnyOf") and new["operator"] in ("eq", "isA", "isAnyOf"):
        narrow = mine if isinstance(mine, list) else [mine]
        wide = theirs if isinstance(theirs, list) else [theirs]
        texts = all(isinstance(term, str) for term in (*narrow, *wide))
        return texts and bool(narrow) and all(any(is_a(PURPOSES, n, w) for w in wide) for n in narrow)
    return False


_PARTS = (
    _frame,
    _parties,
    _permissions,
    _prohibitions,
    _schedule,
    _machinery,
    _places,
    _budgets,
    _duties,
)
