"""Everything that is wrong or doubtful in a contract, at once, before anybody signs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convoy_contracts.decide.gates import at, is_a
from convoy_contracts.document import Contract
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.specification import RiskSpecification
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
    """Return every fault of a contract text; an unreadable text is a fault as well."""
    try:
        contract = Contract.parse(text)
    except DocumentMalformed as error:
        problems = error.problems or (error.cause,)
        return [LintFault(error.code, "document", problem, error.fix) for problem in problems]
    return [fault for check in CHECKS for fault in check(contract)]


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
        for banned in contract.prohibition:
            hits = not banned.constraint and (not banned.target or set(rule.target) <= set(banned.target))
            if hits and (is_a(ACTIONS, rule.action, banned.action) or is_a(ACTIONS, banned.action, rule.action)):
                yield LintFault(
                    "PERMISSION_UNREACHABLE", where, f"prohibition {banned.uid} forbids everything that it permits",
                    "Narrow the prohibition or drop the permission.",
                )  # fmt: skip
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
        if isinstance(specification, RiskSpecification) and roles.count("convoy:Insurer") < 3:
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
    return not isinstance(specification, RiskSpecification) or len(specification.towers) > 1


CHECKS = (_grades, _rules, _parties, _budgets)
