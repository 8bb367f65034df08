"""HTTP of the parties: enrol one (operator only), list them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import AwareDatetime, Field, StringConstraints
from starlette.requests import Request

from convoy_coordinator.body import Input, body, described
from convoy_coordinator.parties.service import Enrolment, PartyService
from convoy_coordinator.parties.store import Party

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
KeyText = Annotated[str, StringConstraints(min_length=1, max_length=8000)]
PartyId = Annotated[str, StringConstraints(pattern=r"^did:web:[a-z0-9]([a-z0-9.:-]*[a-z0-9])?$", max_length=200)]


class NewParty(Input):
    """The body of an enrolment."""

    id: PartyId
    name: Text
    role: Literal["oem", "insurer", "charging", "trustee", "auditor"]
    region: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3}){0,2}$")]
    identityKey: KeyText
    maskKey: KeyText
    witnessKey: KeyText
    supernodeKey: KeyText | None = None
    identityKid: Text | None = None
    keyNotBefore: AwareDatetime | None = None
    keyNotAfter: AwareDatetime | None = Field(default=None)

    def enrolment(self) -> Enrolment:
        """Return the value that the service takes."""
        return Enrolment(
            id=self.id,
            name=self.name,
            role=self.role,
            region=self.region,
            identity_key=self.identityKey,
            mask_key=self.maskKey,
            witness_key=self.witnessKey,
            supernode_key=self.supernodeKey,
            identity_kid=self.identityKid,
            key_not_before=self.keyNotBefore,
            key_not_after=self.keyNotAfter,
        )


def party_json(party: Party, witness_size: int) -> dict[str, Any]:
    """Return a party as the API shows it, with the largest tree that its witness has cosigned."""
    return {
        "id": party.id,
        "name": party.name,
        "role": party.role,
        "region": party.region,
        "identityKid": party.identity_kid,
        "identityKey": party.identity_key,
        "keyNotBefore": instant_json(party.key_not_before),
        "keyNotAfter": instant_json(party.key_not_after),
        "fingerprint": party.fingerprint,
        "maskKey": party.mask_key,
        "witnessKey": party.witness_key,
        "supernodeKey": party.supernode_key,
        "enrolledAt": instant_json(party.enrolled_at),
        "logIndex": party.log_index,
        "witness": {"size": witness_size},
    }


def instant_json(instant: datetime | None) -> str | None:
    """Return an instant as RFC 3339 in UTC."""
    return None if instant is None else f"{instant:%Y-%m-%dT%H:%M:%S.%f}Z"


def router(
    service: PartyService,
    witness_size: Callable[[str], int],
    operator: Callable[[Request], None],
) -> APIRouter:
    """Return the routes under ``/v1/parties``."""
    routes = APIRouter(prefix="/v1/parties", tags=["parties"])

    @routes.post("", status_code=201, dependencies=[Depends(operator)], openapi_extra=described(NewParty))
    def enrol(new: Annotated[NewParty, Depends(body(NewParty))]) -> dict[str, Any]:
        """Enrol a party with its public keys."""
        party = service.enrol(new.enrolment())
        return party_json(party, witness_size(party.id))

    @routes.get("")
    def list_parties() -> dict[str, Any]:
        """List every party, and the key ring that signatures are verified with."""
        parties = service.all()
        return {"parties": [party_json(p, witness_size(p.id)) for p in parties], "keys": service.key_ring()}

    @routes.get("/{party_id}")
    def show(party_id: str) -> dict[str, Any]:
        """Show one party."""
        return party_json(service.get(party_id), witness_size(party_id))

    return routes
