"""HTTP of the log for the ServerApp process: append, checkpoint, cosignatures, witness sizes.

The caller guards these routes with the internal token. Reading the log is open to everybody and
lives in ``log``.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field, StringConstraints

from convoy_audit.errors import AuditError
from convoy_coordinator.body import Input, body, described
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.intake import Intake
from convoy_coordinator.log import LogService
from convoy_coordinator.parties.service import PartyService

MAX_ENTRIES = 1000


class NewEntries(Input):
    """The body of an append: entries in base64, in order."""

    entries: tuple[str, ...] = Field(min_length=1, max_length=MAX_ENTRIES)

    def decoded(self) -> list[bytes]:
        """Return the entries' bytes; all that cannot be decoded are named at once."""
        entries, faults = [], []
        for position, text in enumerate(self.entries):
            try:
                entries.append(b64decode(text, validate=True))
            except (Base64Error, ValueError):
                faults.append(Fault(f"/entries/{position}", "is not base64"))
        if faults:
            raise Problem("LOG_REFUSED", f"{len(faults)} entries are not base64", faults=faults)
        return entries


class NewCosignatures(Input):
    """A checkpoint of this log with one or more cosignature lines."""

    note: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]


def router(log: LogService, intake: Intake, parties: PartyService) -> APIRouter:
    """Return the routes under ``/internal/log``."""
    routes = APIRouter(prefix="/internal/log", tags=["internal"])

    @routes.post("/append", openapi_extra=described(NewEntries))
    def append(new: Annotated[NewEntries, Depends(body(NewEntries))]) -> dict[str, Any]:
        """Append entries; answers once they are durable."""
        return {"indexes": intake.append(new.decoded())}

    @routes.post("/checkpoint")
    def checkpoint() -> dict[str, str]:
        """Sign a checkpoint over every durable entry."""
        return {"checkpoint": log.checkpoint()}

    @routes.post("/cosignatures", openapi_extra=described(NewCosignatures))
    def cosignatures(
        new: Annotated[NewCosignatures, Depends(body(NewCosignatures))],
    ) -> dict[str, Any]:
        """Add cosignatures; answers how many witnesses have cosigned and whether that is the
        quorum.
        """
        try:
            return log.add_cosignatures(new.note).as_json()
        except AuditError as error:
            raise Problem("LOG_REFUSED", error.cause, party=error.party) from None

    @routes.get("/ground")
    def ground(run: str) -> dict[str, Any]:
        """Return the last entry that a run rests on and how far it has come; it is authorised once that is witnessed."""
        index = intake.ground(run)
        return {"index": index, "level": log.level_of(index).word}

    @routes.get("/witness")
    def witness(party: str) -> dict[str, Any]:
        """Return the size of the largest tree that a party has cosigned; 0 for none."""
        found = parties.get(party)
        return {"party": found.id, "size": log.witness_size(found.id)}

    return routes
