"""What a joint model is worth to this insurer, and its standing vetoes: computed, kept and decided at home.

    value/<run>.json   figures of the own held-out customers; exact on the own side, so they never leave
    veto.json          contracts for which this node wants nothing released, with the reason, until cleared

One noisy sum of the evaluation concerns this insurer's customers only (``holdout-own-logs``). The node keeps its share of it;
the carmaker's share, uniform to everybody else, comes with the candidate, and the sum is opened here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np

from convoy_contracts.instants import timestamp
from convoy_contracts.specification import RiskSpecification
from convoy_models.card import show_delta
from convoy_models.gates import each_confidence
from convoy_models.holdout import OwnValue, Word
from convoy_models.home_attack import Attack
from convoy_models.messages import Payload
from convoy_models.sums import open_sum
from convoy_node.admission import Run
from convoy_node.errors import ActionRefused, NodeError
from convoy_node.rounds import Part, own_value

TOLD: Final = "an attack with own persons tells who trained it better than epsilon allows."
ARRAYS: Final = "candidate/"
Verdict = Literal["passed", "alarm", "not run"]
"""Of a node's membership attacks: an alarm stops the release."""
OWN: Final = "holdout-own-logs"
"""Purpose of the sum that the insurer opens at home."""
VALUES, VETOES = "value", "veto.json"
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def own(run: Run, part: Part, party: str, payload: Payload) -> OwnValue | None:
    """Open the own sum and compare the candidate with what this insurer can do alone; None where nothing was asked.

    Raises:
        ActionRefused: the carmaker's share is missing or of another size.
    """
    query = next((q for q in run.case.plan.queries if q.purpose == OWN and party in q.matrix.parties), None)
    if query is None or query.id not in run.kept:
        return None
    words = payload.arrays.get(query.id)
    if words is None or words.size != query.size:
        raise ActionRefused(f"the other share of {query.id} is missing.", party=party, code="MESSAGE_MISSING")
    other = next(p for p in query.participants if p != party)
    total = open_sum(query, {party: run.kept[query.id], other: words})
    return own_value(part, payload.data.get("weights"), (float(total.sum()), query.sigma))


@runtime_checkable
class _Attacker(Protocol):
    """A part that can attack a candidate with own persons."""

    def attack(self, candidate: object) -> list[Attack]:
        """Return an attack for each cohort of which this party has labels or histories."""


def candidate_of(payload: Payload) -> object:
    """Return the candidate's arrays by name: of JSON, or the float64 that travelled as ring words (``candidate/...``)."""
    words = {name.removeprefix(ARRAYS): v for name, v in payload.arrays.items() if name.startswith(ARRAYS)}
    return {name: array.view(np.float64) for name, array in words.items()} or payload.data.get("candidate")


def attacks_of(part: Part, candidate: object) -> list[Attack]:
    """Return how well membership attacks with own persons do on the candidate; none where this party has nothing to try."""
    return part.attack(candidate) if isinstance(part, _Attacker) else []


def verdict(attacks: Sequence[Attack]) -> Verdict:
    """Return what leaves of them: one word."""
    if any(attack.is_alarm for attack in attacks):
        return "alarm"
    return "passed" if any(attack.found is not None for attack in attacks) else "not run"


def word(run: Run, value: OwnValue) -> Word:
    """Return this insurer's verdict at its share of the contract's confidence."""
    spec = run.case.specification
    insurers = len({p for q in run.case.plan.queries if q.purpose == OWN for p in q.matrix.parties})
    terms = spec.evaluation if isinstance(spec, RiskSpecification) else None
    return value.word(each_confidence(0.8 if terms is None else terms.confidenceMilli / 1000, insurers))


def statement(value: OwnValue, epsilon_micro: int, delta_nano: int) -> dict[str, Any]:
    """Return a value as JSON, with the sentence that a manager reads."""
    low, high = value.gain.interval()
    said = (
        f"Your held-out book of {value.customers:,} customers ({value.claims} claims): alone {value.d2_alone:.1f} %, joint "
        f"{value.d2_joint:.1f} % of deviance explained (± {1.96 * value.d2_sd:.1f}, 95 %); costs epsilon "
        f"{-(-epsilon_micro // 10_000) / 100:g} per person (delta {show_delta(delta_nano)}, this run, towards the coordinator and every"
        " recipient)."
    )
    return {
        "statement": said,
        "customers": value.customers,
        "claims": value.claims,
        "d2Alone": round(value.d2_alone, 3),
        "d2Joint": round(value.d2_joint, 3),
        "d2Sd": round(value.d2_sd, 3),
        "gainNats": round(value.gain.value, 2),
        "interval95": [round(low, 2), round(high, 2)],
        "epsilonMicro": epsilon_micro,
    }


def keep(
    home: Path, run: Run, value: OwnValue | None, attacks: Sequence[Attack], said: Mapping[str, Any], now: datetime
) -> None:
    """Write down what this node found and said about a candidate."""
    folder = home / VALUES
    folder.mkdir(mode=0o700, exist_ok=True)
    if _RUN.fullmatch(run.known.run) is None:
        return
    facts: dict[str, Any] = {
        "run": run.known.run,
        "contract": run.case.contract.digest,
        "at": timestamp(now),
        "said": dict(said),
    }
    if value is not None:
        facts |= statement(value, run.case.specification.epsilonMicro, run.case.specification.deltaNano)
    facts["membership"] = [
        {"cohort": attack.cohort, "persons": found.persons}
        | {name: round(getattr(found, name), 4) for name in ("advantage", "proven", "allowed", "auc")}
        for attack in attacks
        if (found := attack.found) is not None
    ]
    _write(folder / f"{run.known.run}.json", facts)


def kept(home: Path) -> list[dict[str, Any]]:
    """Return every value found so far, the oldest first."""
    found = [_read(path) for path in sorted((home / VALUES).glob("*.json"))]
    return sorted(found, key=lambda facts: str(facts.get("at")))


def standing_veto(home: Path, contract: str) -> str | None:
    """Return the reason why this node wants nothing released under a contract, or None."""
    return vetoes(home).get(contract)


def vetoes(home: Path) -> dict[str, str]:
    """Return the standing vetoes: reason by contract digest."""
    path = home / VETOES
    return {str(key): str(value) for key, value in _read(path).items()} if path.exists() else {}


def set_veto(home: Path, contract: str, reason: str | None) -> None:
    """Set a standing veto, or clear it with ``None``."""
    standing = vetoes(home)
    if reason is None:
        standing.pop(contract, None)
    else:
        standing[contract] = reason
    _write(home / VETOES, standing)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(
            f"{path.name} cannot be read.",
            code="FILE_UNREADABLE",
            fix="Restore the file from a backup; a veto that cannot be read must not be forgotten.",
            fix_zh="请从备份恢复该文件；无法读取的否决不得被遗忘。",
        ) from error
    return value if isinstance(value, dict) else {}


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    """Replace a file as a whole, on disk before it is named."""
    hidden = path.with_name(f".{path.name}.part")
    with hidden.open("w", encoding="utf-8") as file:
        json.dump(facts, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    hidden.chmod(0o600)
    hidden.replace(path)
