"""HTTP for the administrator: invite, see who asks, approve or deny, revoke. All with the operator's token."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import Field, StringConstraints
from starlette.requests import Request as HttpRequest

from convoy_coordinator.body import Input, body, described
from convoy_coordinator.enrolment.access import AccessService
from convoy_coordinator.enrolment.authorities import Authorities, Succession
from convoy_coordinator.enrolment.service import EnrolmentService
from convoy_coordinator.enrolment.store import Certificate, Invitation, Request
from convoy_coordinator.parties.routes import instant_json
from convoy_coordinator.parties.store import Standing

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class NewInvitation(Input):
    """The body of an invitation."""

    name: Text
    role: Text
    party: Text | None = None
    hours: float = Field(default=48, gt=0, le=336)


class NewRevocation(Input):
    """The body of a revocation."""

    reason: Literal["key-compromise", "contract-ended", "cessation", "administrative"] = "administrative"


class NewAuthority(Input):
    """The body of an announcement."""

    leadDays: float = Field(default=7, ge=0, le=400)
    overlapDays: float = Field(default=90, gt=0, le=400)


def authorities_json(found: Authorities) -> dict[str, Any]:
    """Return the present certificate authority and the one that was announced."""
    coming = found.coming
    return {
        "fingerprint": found.present.fingerprint,
        "notAfter": instant_json(found.present.certificate.not_valid_after_utc),
        "coming": None
        if coming is None
        else {
            "fingerprint": coming.authority.fingerprint,
            "begins": instant_json(coming.begins),
            "ends": instant_json(coming.ends),
            "logIndex": coming.log_index,
        },
    }


def invitation_json(invitation: Invitation) -> dict[str, Any]:
    """Return an invitation without its secret."""
    return {
        "ticket": invitation.id,
        "party": invitation.party,
        "name": invitation.name,
        "role": invitation.role,
        "issuedAt": instant_json(invitation.issued_at),
        "until": instant_json(invitation.until),
        "withdrawnAt": instant_json(invitation.withdrawn_at),
    }


def request_json(request: Request) -> dict[str, Any]:
    """Return a request; the fingerprint is what the partner reads out."""
    return {
        "ticket": request.invitation,
        "party": request.party,
        "fingerprint": request.fingerprint,
        "state": request.state,
        "requestedAt": instant_json(request.requested_at),
        "decidedAt": instant_json(request.decided_at),
    }


def standing_json(standing: Standing, certificates: tuple[Certificate, ...]) -> dict[str, Any]:
    """Return how a party stands, with its certificates."""
    return {
        "party": standing.party,
        "state": standing.state,
        "reason": standing.reason or None,
        "since": instant_json(standing.since),
        "certificates": [
            {
                "serial": c.serial,
                "notAfter": instant_json(c.not_after),
                "revokedAt": instant_json(c.revoked_at),
                "reason": c.revoked_reason,
            }
            for c in certificates
        ],
    }


def router(
    enrolment: EnrolmentService,
    access: AccessService,
    succession: Succession,
    standing: Callable[[str], Standing],
    operator: Callable[[HttpRequest], None],
) -> APIRouter:
    """Return the administrator's routes."""
    routes = APIRouter(tags=["enrolment"], dependencies=[Depends(operator)])

    @routes.post("/v1/invitations", status_code=201, openapi_extra=described(NewInvitation))
    def invite(new: Annotated[NewInvitation, Depends(body(NewInvitation))]) -> dict[str, Any]:
        """Make a ticket; this answer is the only place where its secret is."""
        ticket, invitation = enrolment.invite(new.name, new.role, new.party, timedelta(hours=new.hours))
        return {
            **invitation_json(invitation),
            "text": ticket.text(),
            "at": ticket.at,
            "caFingerprint": ticket.ca_fingerprint,
        }

    @routes.get("/v1/invitations")
    def invitations() -> dict[str, Any]:
        """List the invitations, newest first."""
        return {"invitations": [invitation_json(found) for found in enrolment.invitations()]}

    @routes.delete("/v1/invitations/{ticket}")
    def withdraw(ticket: str) -> dict[str, Any]:
        """Make a ticket worthless."""
        return invitation_json(enrolment.withdraw(ticket))

    @routes.get("/v1/enrolment-requests")
    def requests(state: Literal["pending", "approved", "denied"] | None = None) -> dict[str, Any]:
        """List the requests, newest first."""
        return {"requests": [request_json(found) for found in enrolment.requests(state)]}

    @routes.put("/v1/enrolment-requests/{fingerprint}/approval")
    def approve(fingerprint: str) -> dict[str, Any]:
        """Enrol the party whose fingerprint was compared."""
        return request_json(enrolment.approve(fingerprint))

    @routes.put("/v1/enrolment-requests/{fingerprint}/denial")
    def deny(fingerprint: str) -> dict[str, Any]:
        """Refuse a request for good."""
        return request_json(enrolment.deny(fingerprint))

    @routes.get("/v1/authority")
    def authority() -> dict[str, Any]:
        """Show the certificate authority, and the one that was announced."""
        return authorities_json(succession.authorities)

    @routes.put("/v1/authority/next", openapi_extra=described(NewAuthority))
    def announce(new: Annotated[NewAuthority, Depends(body(NewAuthority))]) -> dict[str, Any]:
        """Announce another certificate authority; again, while one is announced, changes nothing."""
        succession.announce(timedelta(days=new.leadDays), timedelta(days=new.overlapDays))
        return authorities_json(succession.authorities)

    @routes.get("/v1/parties/{party}/access")
    def show(party: str) -> dict[str, Any]:
        """Show how a party stands, and its certificates."""
        return standing_json(standing(party), access.certificates(party))

    @routes.put("/v1/parties/{party}/revocation", openapi_extra=described(NewRevocation))
    def revoke(party: str, new: Annotated[NewRevocation, Depends(body(NewRevocation))]) -> dict[str, Any]:
        """Shut a party out, on every open stream and at Flower."""
        return standing_json(access.revoke(party, new.reason), access.certificates(party))

    @routes.put("/v1/parties/{party}/certificates/{serial}/revocation", openapi_extra=described(NewRevocation))
    def revoke_one(
        party: str, serial: str, new: Annotated[NewRevocation, Depends(body(NewRevocation))]
    ) -> dict[str, Any]:
        """Shut out one certificate of a party."""
        access.revoke_certificate(serial, party, new.reason)
        return standing_json(standing(party), access.certificates(party))

    return routes
