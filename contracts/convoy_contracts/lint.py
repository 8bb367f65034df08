"""Everything that is wrong or doubtful in a contract, at once, before anybody signs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from convoy_contracts.canonical import canonical_bytes, parse_json
from convoy_contracts.catalogue import tier_faults
from convoy_contracts.decide.gates import at, is_a, related, territory
from convoy_contracts.document import Contract, Permission
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.lawyers import text_faults
from convoy_contracts.specification import (
    PairsSpecification,
    RiskSpecification,
    SeveritySpecification,
    TowersSpecification,
)
from convoy_contracts.vocabulary import ACTIONS, GRADES, PURPOSES


@dataclass(frozen=True, slots=True)
class LintFault:
    """One fault: stable code, place in the document, cause and fix."""

    code: str
    where: str
    cause: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """Return the fault as JSON values."""
        return {"code": self.code, "where": self.where, "cause": self.cause, "fix": self.fix}


def lint(text: str | bytes) -> list[LintFault]:
    """Return every fault of a contract text at once; an unreadable text is a fault as well.

    Unknown members do not hide what else is wrong: the rest of the document is judged without them.
    """
    try:
        contract, faults = Contract.parse(text), []
    except DocumentMalformed as error:
        problems = error.problems or (error.cause,)
        faults = [LintFault(error.code, "document", problem, error.fix) for problem in problems]
        readable = _without_unknown(text)
        if readable is None:
            return faults
        contract = readable
    return [*faults, *(fault for check in CHECKS for fault in check(contract))]


def _without_unknown(text: str | bytes) -> Contract | None:
    """Return the contract that is left when unknown members are taken out, or None if more is wrong with the document."""
    try:
        value = parse_json(text)
        try:
            Contract.model_validate_json(canonical_bytes(value))
        except ValidationError as error:
            for found in error.errors():
                if found["type"] == "extra_forbidden":
                    _take_out(value, found["loc"])
        return Contract.parse(canonical_bytes(value))
    except DocumentMalformed:
        return None


def _take_out(value: Any, path: Sequence[str | int]) -> None:
    """Delete the member at a path; steps that name an alternative of a type and no member are passed over."""
    here: Any = value
    for step in path[:-1]:
        if (isinstance(here, list) and isinstance(step, int)) or (isinstance(here, dict) and step in here):
            here = here[step]  # type: ignore[index]
    if isinstance(here, dict):
        here.pop(path[-1], None)


def _grades(contract: Contract) -> Iterator[LintFault]:
    for problem in contract.grade_faults(GRADES):
        yield LintFault("GRADE_UNKNOWN", problem.split(":")[0], problem, f"Use one of {', '.join(GRADES)}.")
    order = {grade: rank for rank, grade in enumerate(GRADES)}
    limit = order.get(contract.limits.maxGrade, len(GRADES))
    for row in contract.data:
        for item in row.fields:
            if order.get(item.grade, 0) > limit:
                yield LintFault(
                    "GRADE_EXCEEDS", f"data.{row.asset}.{item.name}",
                    f"grade {item.grade} is above limits.maxGrade {contract.limits.maxGrade}; no round can use the field",
                    "Leave the field out or raise maxGrade.",
                )  # fmt: skip


def _rules(contract: Contract) -> Iterator[LintFault]:
    parties = {party.id for party in contract.parties}
    assets = {row.asset for row in contract.data}
    for rule in contract.permission:
        where = f"permission.{rule.uid}"
        if rule.action not in ACTIONS:
            yield LintFault(
                "UNKNOWN_TERM",
                where,
                f"action {rule.action} is unknown",
                "Use the closed vocabulary.",
            )
        for name in sorted(set(rule.assignee) - parties):
            yield LintFault(
                "PARTY_UNKNOWN",
                where,
                f"assignee {name} is no party",
                "Add the party or remove it here.",
            )
        for name in sorted(set(rule.target) - assets):
            yield LintFault("ASSET_UNKNOWN", where, f"target {name} is not in data", "Schedule the asset.")
        for problem in _never_holds(contract, rule):
            yield LintFault("PERMISSION_UNREACHABLE", where, problem, "Mend the constraint or drop the permission.")
        for banned in contract.prohibition:
            covers = not banned.target or set(rule.target) <= set(banned.target)
            hits = covers and all(_always_hits(constraint, rule) for constraint in banned.constraint)
            if hits and (is_a(ACTIONS, rule.action, banned.action) or is_a(ACTIONS, banned.action, rule.action)):
                yield LintFault(
                    "PERMISSION_UNREACHABLE", where, f"prohibition {banned.uid} forbids everything that it permits",
                    "Narrow the prohibition or drop the permission.",
                )  # fmt: skip
    for banned in contract.prohibition:
        if banned.action not in ACTIONS:
            yield LintFault(
                "UNKNOWN_TERM",
                f"prohibition.{banned.uid}",
                f"action {banned.action} is unknown; it would forbid everything",
                "Use the closed vocabulary.",
            )
        for name in sorted(set(banned.target) - assets):
            yield LintFault(
                "ASSET_UNKNOWN", f"prohibition.{banned.uid}", f"target {name} is not in data", "Schedule the asset."
            )
    for asset in sorted(assets - {target for rule in contract.permission for target in rule.target}):
        yield LintFault(
            "ASSET_UNUSED",
            f"data.{asset}",
            "no permission covers the asset",
            "Drop it, or permit its use.",
        )
    for kind, uid, constraint in [
        *(("permission", r.uid, c) for r in contract.permission for c in r.constraint),
        *(("prohibition", r.uid, c) for r in contract.prohibition for c in r.constraint),
    ]:
        right = constraint.get("rightOperand")
        if constraint.get("leftOperand") == "purpose":
            for term in right if isinstance(right, list) else [right]:
                if term not in PURPOSES:
                    yield LintFault(
                        "UNKNOWN_TERM",
                        f"{kind}.{uid}",
                        f"purpose {term} is unknown",
                        "Use the vocabulary.",
                    )


def _terms(constraint: Mapping[str, Any]) -> list[str]:
    right = constraint.get("rightOperand")
    return [term for term in (right if isinstance(right, list) else [right]) if isinstance(term, str)]


def _always_hits(banned: Mapping[str, Any], rule: Permission) -> bool:
    """Whether a prohibition's constraint holds for everything that a permission's purpose constraints leave."""
    if banned.get("leftOperand") != "purpose":
        return False
    allowed = [term for c in rule.constraint if c.get("leftOperand") == "purpose" for term in _terms(c)]
    return bool(allowed) and all(any(related(PURPOSES, term, ban) for ban in _terms(banned)) for term in allowed)


def _never_holds(contract: Contract, rule: Permission) -> Iterator[str]:
    """Say why no request can ever use a permission."""
    if not rule.assignee:
        yield "it has no assignee"
    if not rule.target:
        yield "it has no target"
    for constraint in rule.constraint:
        left, right = constraint.get("leftOperand"), constraint.get("rightOperand")
        if left == "algorithm" and not {a.id for a in contract.algorithms} & set(_terms(constraint)):
            yield "its algorithms are none of the contract's"
        if left == "recipient" and not {r for o in contract.outputs for r in o.recipients} & set(_terms(constraint)):
            yield "its recipients get none of the outputs"
        if left == "elapsedRounds" and type(right) is int and right < 1:
            yield "it allows no round"


def _privacy(contract: Contract) -> Iterator[LintFault]:
    """Necessity, separate consent, tiers, and the text for people."""
    has_separate = bool(set(contract.consent.separateNotices or ()) & set(contract.consent.notices))
    for row in contract.data:
        for item in row.fields:
            where = f"data.{row.asset}.{item.name}"
            if item.necessity is None:
                yield LintFault(
                    "FIELD_WITHOUT_NECESSITY",
                    where,
                    "nothing says why it is needed",
                    "State necessity, or leave it out.",
                )
            if item.sensitive and not has_separate:
                yield LintFault(
                    "SENSITIVE_WITHOUT_SEPARATE_CONSENT", where, "no accepted notice asks for separate consent",
                    "Name such a notice in consent.separateNotices, or leave the field out.",
                )  # fmt: skip
    for rule in contract.permission:
        for name in rule.assignee:
            party = contract.party(name)
            if party is None or party.tier is None:
                continue
            grades = {
                f"{row.asset}.{item.name}": item.grade
                for row in contract.data
                if row.asset in rule.target and row.provider != name
                for item in row.fields
            }
            for problem in tier_faults(party.tier, rule.action, grades):
                yield LintFault(
                    "TIER_EXCEEDED", f"permission.{rule.uid}", f"{name}: {problem}",
                    "Raise the tier by a signed grant, or ask for less.",
                )  # fmt: skip
    if contract.legalText is None:
        yield LintFault(
            "TEXT_NOT_BOUND", "legalText", "no text for people is bound", "Run 'convoy-contracts text --bind'."
        )
    else:
        for problem in text_faults(contract):
            yield LintFault(
                "TEXT_NOT_BOUND", "legalText", problem, "Run 'convoy-contracts text --bind', or bind your own."
            )


def _exports(contract: Contract) -> Iterator[LintFault]:
    """Recipients abroad need an assessed export, parties too."""
    export = contract.location.export
    for output in contract.outputs:
        for name in output.recipients:
            party = contract.party(name)
            if party is None or territory(party.region) in contract.location.processing:
                continue
            if export is None or name not in export.recipients:
                yield LintFault(
                    "EXPORT_WITHOUT_RECORD", f"outputs.{output.kind}", f"{name} is in {party.region} and has no assessed export",
                    "Assess the export in location.export, or leave the recipient out.",
                )  # fmt: skip
    if export is not None and at(export.validUntil) < at(contract.term.notAfter):
        yield LintFault(
            "EXPORT_ENDS_EARLY",
            "location.export",
            "the export record ends before the term",
            "Renew it, or shorten the term.",
        )


def _parties(contract: Contract) -> Iterator[LintFault]:
    parties = {party.id for party in contract.parties}
    for row in contract.data:
        if row.provider not in parties:
            yield LintFault(
                "ASSET_WITHOUT_OWNER",
                f"data.{row.asset}",
                f"{row.provider} is no party",
                "Add the provider.",
            )
        if not row.fields:
            yield LintFault("ASSET_EMPTY", f"data.{row.asset}", "it has no fields", "Schedule its fields.")
        if row.asset not in contract.privacy:
            yield LintFault("BUDGET_NOT_DEFINED", f"data.{row.asset}", "no privacy budget", "Add it to privacy.")
    for output in contract.outputs:
        for name in sorted(set(output.recipients) - parties):
            export = contract.location.export
            if export is None or name not in export.recipients:
                yield LintFault(
                    "EXPORT_WITHOUT_RECORD", f"outputs.{output.kind}", f"{name} is no party and has no assessed export",
                    "Assess the export in location.export.",
                )  # fmt: skip
    for party in contract.parties:
        if "convoy:Controller" in party.roles and party.pia is None:
            yield LintFault("PIA_MISSING", f"parties.{party.id}", "a controller without assessment", "Add pia.")
    if at(contract.offerUntil) > at(contract.term.notAfter):
        yield LintFault("OFFER_AFTER_TERM", "offerUntil", "the offer outlives the term", "Shorten the offer.")


def _budgets(contract: Contract) -> Iterator[LintFault]:
    for algorithm in contract.algorithms:
        specification = algorithm.specification
        if specification is None:
            continue
        for asset, agreed in sorted(contract.privacy.items()):
            if specification.epsilonMicro > min(agreed.perRoundMicro, agreed.totalMicro):
                yield LintFault(
                    "BUDGET_CANNOT_COVER_ONE_RUN", f"privacy.{asset}",
                    f"one run of {algorithm.id} costs {specification.epsilonMicro} micro-epsilon", "Raise the budget.",
                )  # fmt: skip
        roles = [role for party in contract.parties for role in party.roles]
        is_risk = isinstance(specification, RiskSpecification | SeveritySpecification | PairsSpecification)
        if is_risk and roles.count("convoy:Insurer") < 3:
            yield LintFault(
                "TOO_FEW_INSURERS", "parties", "a joint risk model needs three insurers, else sums expose one of them",
                "Add insurers.",
            )  # fmt: skip
        if "convoy:Trustee" not in roles and _is_vertical(specification):
            yield LintFault(
                "TRUSTEE_MISSING",
                "parties",
                "no party deals correlated randomness",
                "Add a trustee.",
            )
        for party in contract.parties:
            if party.maskKey is None:
                yield LintFault(
                    "MASK_KEY_MISSING",
                    f"parties.{party.id}",
                    "no X25519 key is pinned",
                    "Add maskKey.",
                )


def _is_vertical(specification: object) -> bool:
    if isinstance(specification, PairsSpecification | TowersSpecification):
        return False
    return not isinstance(specification, RiskSpecification | SeveritySpecification) or len(specification.towers) > 1


CHECKS = (_grades, _rules, _parties, _exports, _privacy, _budgets)
