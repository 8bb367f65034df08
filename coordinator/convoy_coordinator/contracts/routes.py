"""HTTP of the contracts: offer one, sign it, see how it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import StringConstraints
from starlette.requests import Request

from convoy_coordinator.body import Input, body, described
from convoy_coordinator.contracts.changes import world_events
from convoy_coordinator.contracts.service import ContractService, ContractView
from convoy_coordinator.parties.routes import instant_json

Word = Annotated[str, StringConstraints(min_length=1, max_length=240)]


class OfferProof(Input):
    """The author's signature over an offer (``convoy-contracts offer``)."""

    party: Word
    kid: Word
    at: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    jws: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class Offer(Input):
    """The body of an offer: the document as text, exactly as it is to be signed."""

    text: Annotated[str, StringConstraints(min_length=2)]
    proof: OfferProof | None = None


class SignatureEntry(Input):
    """One element of ``signatures`` (FORMAT.md §2)."""

    party: Word
    role: Word
    act: Word
    kid: Word
    sigT: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    jws: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class NewSignature(Input):
    """The body of a signature."""

    entry: SignatureEntry


def summary_json(view: ContractView) -> dict[str, Any]:
    """Return a contract as lists show it."""
    return {
        "uid": view.contract.uid,
        "version": view.contract.version,
        "title": view.agreed.title,
        "digest": view.contract.digest,
        "state": view.standing.state.value,
        "signed": list(view.standing.signed),
        "unsigned": list(view.standing.unsigned),
        "suspended": list(view.standing.suspended),
        "notBefore": instant_json(view.agreed.not_before),
        "notAfter": instant_json(view.agreed.not_after),
        "offeredAt": instant_json(view.contract.offered_at),
        "logIndex": view.contract.log_index,
        "restsOn": {"index": view.rests_on, "level": view.level.word},
    }


def contract_json(view: ContractView) -> dict[str, Any]:
    """Return a contract with its text, signatures and events: all that a decision needs."""
    return summary_json(view) | {
        "text": view.contract.text,
        "signatures": [dict(entry) for entry in view.signatures],
        "events": [dict(event) for event in world_events(view.events)],
    }


def router(service: ContractService, operator: Callable[[Request], None]) -> APIRouter:
    """Return the routes under ``/v1/contracts``."""
    routes = APIRouter(prefix="/v1/contracts", tags=["contracts"])

    @routes.post("", status_code=201, openapi_extra=described(Offer))
    def offer(request: Request, new: Annotated[Offer, Depends(body(Offer))]) -> dict[str, Any]:
        """Offer a contract to the parties that its document names: the author with a proof, or the operator."""
        if new.proof is None:
            operator(request)
            return summary_json(service.offer(new.text))
        return summary_json(service.offer(new.text, new.proof.model_dump()))

    @routes.get("")
    def list_contracts() -> dict[str, Any]:
        """List every contract as it stands now."""
        return {"contracts": [summary_json(view) for view in service.all()]}

    @routes.get("/{digest}")
    def show(digest: str) -> dict[str, Any]:
        """Show one contract with its text, signatures and events."""
        return contract_json(service.view(digest))

    @routes.post("/{digest}/signatures", status_code=201, openapi_extra=described(NewSignature))
    def sign(digest: str, new: Annotated[NewSignature, Depends(body(NewSignature))]) -> dict[str, Any]:
        """Add a party's signature; it is verified before it is kept."""
        return summary_json(service.sign(digest, new.entry.model_dump()))

    return routes
