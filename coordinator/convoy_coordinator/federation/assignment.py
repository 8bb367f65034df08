"""From a queued run to the request that every node will decide on (FORMAT.md §2, ``request``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from convoy_contracts.canonical import digest
from convoy_contracts.document import Contract
from convoy_contracts.roles import roles_of
from convoy_contracts.specification import Specification
from convoy_coordinator.federation.errors import ProtocolBroken
from convoy_models.plan import Plan, plan


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run as the ServerApp works on it."""

    uid: str
    contract: Contract
    text: str
    signatures: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    specification: Specification
    algorithm_digest: str
    roles: Mapping[str, tuple[str, ...]]
    plan: Plan
    request: Mapping[str, Any]

    @property
    def holders(self) -> tuple[str, ...]:
        """Parties that answer queries, sorted."""
        return tuple(sorted({p for query in self.plan.queries for p in query.participants}))

    @property
    def trustee(self) -> str | None:
        """The dealer of correlated randomness, if the contract names one."""
        trustees = self.roles.get("trustee", ())
        return trustees[0] if trustees else None

    @property
    def needed(self) -> tuple[str, ...]:
        """Parties without which the run cannot start, sorted."""
        both = set(self.holders) | ({self.trustee} if self.trustee else set())
        return tuple(sorted(both))

    @property
    def scope(self) -> str:
        """Digest of the request without phase, nonce and issuedAt (FORMAT.md §2)."""
        volatile = {"phase", "nonce", "issuedAt"}
        return digest({k: v for k, v in self.request.items() if k not in volatile})


def assignment(order: Mapping[str, Any], now: datetime) -> Assignment:
    """Read a claimed run.

    Args:
        order: the answer of ``GET /internal/runs/next``.
        now: aware UTC time, the request's ``issuedAt``.

    Raises:
        ProtocolBroken: the run names an algorithm that the contract lacks or that has no specification.
        ContractsError: the contract's text is not a contract.
    """
    contract = Contract.parse(order["contractText"])
    entry = next((a for a in contract.algorithms if a.id == order["algorithm"]), None)
    if entry is None or entry.specification is None:
        raise ProtocolBroken(
            f"the contract has no algorithm {order['algorithm']!r} with a specification",
            code="ALGORITHM_UNKNOWN",
            fix="Ask for an algorithm that the contract lists.",
        )
    roles = roles_of(contract)
    specification: Specification = entry.specification
    return Assignment(
        uid=order["uid"],
        contract=contract,
        text=order["contractText"],
        signatures=order["signatures"],
        events=order["events"],
        specification=specification,
        algorithm_digest=entry.digest,
        roles=roles,
        plan=plan(specification, roles),
        request=_request(order, contract, entry.digest, specification, now),
    )


def _request(
    order: Mapping[str, Any], contract: Contract, algorithm_digest: str, specification: Specification, now: datetime
) -> dict[str, Any]:
    asked: Mapping[str, Any] = order.get("request") or {}
    schedule = {row.asset: row for row in contract.data}
    assets = sorted(asked.get("assets") or schedule)
    output = contract.outputs[0]
    request = {
        "phase": "authorise",
        "contractDigest": contract.digest,
        "requester": order["requester"],
        "action": asked.get("action", "convoy:train"),
        "purpose": order["purpose"],
        "providers": sorted({schedule[a].provider for a in assets if a in schedule}),
        "nodeRegions": sorted({party.region for party in contract.parties}),
        "assets": assets,
        "fields": {a: [f.name for f in schedule[a].fields] for a in assets if a in schedule},
        "algorithm": {"id": order["algorithm"], "digest": algorithm_digest},
        "output": asked.get("output", output.kind),
        "recipients": sorted(asked.get("recipients") or output.recipients),
        "round": order["round"],
        "nonce": f"{order['uid']}/{order['round']}",
        "issuedAt": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "epsilonMicro": dict.fromkeys(assets, specification.epsilonMicro),
        "deltaNano": dict.fromkeys(assets, specification.deltaNano),
    }
    for asset, names in (asked.get("fields") or {}).items():
        request["fields"][asset] = list(names)
    return request
