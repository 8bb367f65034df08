"""HTTP of the catalogue and the tiers. A signature needs no token: it proves itself."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import JSONResponse

from convoy_contracts.catalogue import TIERS, derived_grade, parse_entry
from convoy_coordinator.body import Input, body, described
from convoy_coordinator.catalogue.service import CatalogueService, Taken
from convoy_coordinator.catalogue.store import Catalogued
from convoy_coordinator.contracts.change_routes import Proof
from convoy_coordinator.parties.routes import instant_json

STATUS = {"accepted": 201, "known": 200, "waiting": 202}


class SignedValue(Input):
    """The body of an entry or a grant: what was signed, and by whom (``convoy-contracts catalogue sign``)."""

    value: dict[str, Any]
    proof: Annotated[list[Proof], Field(max_length=100)]


def entry_json(found: Catalogued) -> dict[str, Any]:
    """Return a version of an entry as the API shows it, with the grade that a model of all its fields would have."""
    entry = parse_entry(dict(found.entry))
    return {
        "entry": dict(found.entry),
        "digest": found.digest,
        "modelGrade": derived_grade(item.grade for item in entry.fields),
        "recordedAt": instant_json(found.recorded_at),
        "logIndex": found.log_index,
        "signedBy": [str(proof["party"]) for proof in found.proofs],
        "proof": [dict(proof) for proof in found.proofs],
    }


def router(service: CatalogueService) -> APIRouter:
    """Return the routes under ``/v1/catalogue`` and ``/v1/tiers``."""
    routes = APIRouter(prefix="/v1", tags=["catalogue"])

    @routes.get("/catalogue")
    def catalogue() -> dict[str, Any]:
        """List the newest entry of every asset."""
        return {"assets": [entry_json(found) for found in service.all()]}

    @routes.post("/catalogue", status_code=201, openapi_extra=described(SignedValue))
    def register(new: Annotated[SignedValue, Depends(body(SignedValue))]) -> JSONResponse:
        """Take a version of an entry: 201 in force, 202 others must sign the loosening too, 200 known."""
        return _answer(service.register(new.value, [proof.model_dump() for proof in new.proof]))

    @routes.get("/catalogue/{asset}")
    def asset(asset: str) -> dict[str, Any]:
        """Show an asset's entry with every version before it."""
        found = service.versions(asset)
        return entry_json(found[-1]) | {"history": [entry_json(one) for one in found]}

    @routes.get("/tiers")
    def tiers() -> dict[str, Any]:
        """List the tiers and every party's own."""
        return {
            "tiers": {
                tier.name: {
                    "actions": sorted(tier.actions),
                    "maxGrade": tier.max_grade,
                    "title": {"en": tier.title_en, "zh": tier.title_zh},
                }
                for tier in TIERS.values()
            },
            "parties": service.tiers(),
        }

    @routes.get("/tiers/{party}")
    def history(party: str) -> dict[str, Any]:
        """Show a party's tier and how it came to it."""
        return {
            "party": party,
            "tier": service.tiers().get(party),
            "grants": [
                {"grant": dict(g.grant), "digest": g.digest, "logIndex": g.log_index, "proof": list(g.proofs)}
                for g in service.grants(party)
            ],
        }

    @routes.post("/tiers", status_code=201, openapi_extra=described(SignedValue))
    def grant(new: Annotated[SignedValue, Depends(body(SignedValue))]) -> JSONResponse:
        """Take a tier grant: 201 in force, 202 others must sign the rise too, 200 known."""
        return _answer(service.grant(new.value, [proof.model_dump() for proof in new.proof]))

    return routes


def _answer(taken: Taken) -> JSONResponse:
    value = {
        "digest": taken.digest,
        "outcome": taken.outcome,
        "missing": list(taken.missing),
        "changes": [change.as_json() for change in taken.changes],
    }
    return JSONResponse(value, status_code=STATUS[taken.outcome])
