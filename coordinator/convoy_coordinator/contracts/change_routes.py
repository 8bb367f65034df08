"""HTTP of a contract's life: its state at any instant, its chain of events, and what a new version changes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response

from convoy_contracts.amendments import Amendment
from convoy_contracts.instants import instant
from convoy_coordinator.body import Input, body, described
from convoy_coordinator.contracts import reading
from convoy_coordinator.contracts.changes import Chain, Change, ChangeService, Outcome
from convoy_coordinator.contracts.routes import Word, summary_json
from convoy_coordinator.errors import Problem
from convoy_coordinator.parties.routes import instant_json

STATUS = {Outcome.ACCEPTED: 201, Outcome.KNOWN: 200, Outcome.WAITING: 202}


class Proof(Input):
    """A party's signature over the event (``convoy-contracts event``)."""

    party: Word
    kid: Word
    jws: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class NewEvent(Input):
    """The body of an event: what was signed, and by whom."""

    event: dict[str, Any]
    proof: Annotated[list[Proof], Field(max_length=100)]


def chain_json(chain: Chain) -> dict[str, Any]:
    """Return a chain with its head and what waits for signatures."""
    return {
        "uid": chain.uid,
        "head": chain.head,
        "nextSeq": chain.next_seq,
        "events": [dict(event) for event in chain.events],
        "waiting": [
            {"id": p.id, "event": dict(p.value), "signed": [str(proof["party"]) for proof in p.proofs]}
            for p in chain.proposals
        ],
    }


def change_json(change: Change) -> dict[str, Any]:
    """Return what became of an event."""
    return {
        "id": change.id,
        "outcome": str(change.outcome),
        "missing": list(change.missing),
        "head": change.chain.head,
        "nextSeq": change.chain.next_seq,
    }


def amendment_json(amendment: Amendment) -> dict[str, Any]:
    """Return the changes of a version, and whether persons are asked again."""
    return {
        "reconsent": amendment.needs_consent,
        "then": "re-consent" if amendment.needs_consent else "notify",
        "changes": [change.as_json() for change in amendment.changes],
    }


def router(service: ChangeService) -> APIRouter:
    """Return the routes under ``/v1/contracts/{uid}``."""
    routes = APIRouter(prefix="/v1/contracts", tags=["contracts"])

    @routes.get("/{uid}/state")
    def state(uid: str, at: Annotated[str | None, Query(max_length=40)] = None) -> dict[str, Any]:
        """Say how every version stood, stands or will stand at an instant; now, if none is given."""
        when, views = service.at(uid, _moment(at))
        return {
            "uid": uid,
            "at": instant_json(when),
            "head": service.chain(uid).head,
            "versions": [
                summary_json(view)
                | {
                    "dpv": view.standing.dpv,
                    "suspendedAll": view.standing.is_suspended_as_a_whole,
                    "offerUntil": instant_json(view.agreed.offer_until),
                }
                for view in views
            ],
        }

    @routes.get("/{uid}/events")
    def events(uid: str, response: Response) -> dict[str, Any]:
        """Show the chain of events; its head is the ETag that the next event must match."""
        chain = service.chain(uid)
        response.headers["ETag"] = f'"{chain.head}"'
        return chain_json(chain)

    @routes.post("/{uid}/events", status_code=201, openapi_extra=described(NewEvent))
    def post(
        uid: str,
        new: Annotated[NewEvent, Depends(body(NewEvent))],
        if_match: Annotated[str | None, Header(max_length=120)] = None,
    ) -> JSONResponse:
        """Take an event: 201 it has effect, 202 other parties must sign it too, 200 it was known."""
        change = service.post(uid, new.event, [proof.model_dump() for proof in new.proof], if_match)
        headers = {"ETag": f'"{change.chain.head}"'}
        return JSONResponse(change_json(change), status_code=STATUS[change.outcome], headers=headers)

    @routes.get("/{uid}/diff")
    def diff(uid: str, old: Annotated[int, Query(ge=1)], new: Annotated[int, Query(ge=1)]) -> dict[str, Any]:
        """Say what a version changes, member by member, and whether it widens."""
        return amendment_json(service.amendment(uid, old, new))

    return routes


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    spelled = text.replace(" ", "+")  # a plus sign that was not percent-encoded
    if instant(spelled) is None:
        raise Problem("INPUT_INVALID", f"at={text[:40]!r} is no timestamp with offset (FORMAT.md §1)")
    return reading.moment(spelled)
