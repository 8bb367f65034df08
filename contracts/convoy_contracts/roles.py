"""From the contract's role names to the federation's."""

from __future__ import annotations

from convoy_contracts.document import Contract

ROLE_OF = {
    "convoy:Oem": "oem",
    "convoy:Insurer": "insurer",
    "convoy:ChargingOperator": "charging",
    "convoy:Trustee": "trustee",
}


def roles_of(contract: Contract) -> dict[str, tuple[str, ...]]:
    """Return the contract's party ids by federation role, sorted; other roles are left out."""
    roles: dict[str, list[str]] = {}
    for party in contract.parties:
        for role in party.roles:
            if role in ROLE_OF:
                roles.setdefault(ROLE_OF[role], []).append(party.id)
    return {role: tuple(sorted(parties)) for role, parties in roles.items()}
