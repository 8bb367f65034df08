"""HTTP to read the log: open to everybody, nothing changes.

GET /v1/log/checkpoint                              text/plain, the last that has the quorum, with cosignatures
GET /v1/log/checkpoint?which=newest, ?size=N        the last that was signed; the one of a size (&reader=PARTY: whose
                                                    cosignatures come first, where a note has no room for all)
POST /v1/log/cosignatures {"note"}                  a witness behind NAT brings its cosignatures; they prove themselves
GET /v1/log/level?index=N                           {"level": durable | published | witnessed}
GET /v1/log/entries?start&end                       {"start", "entries": [base64]}; at most 1,000
GET /v1/log/proof/inclusion?index&size              {"proof": [base64]}
GET /v1/log/proof/consistency?old&new               {"proof": [base64]}
GET /v1/log/policy                                  text/plain, c2sp.org/tlog-policy
GET /v1/log/tile/…                                  c2sp.org/tlog-tiles, tiles and entry bundles
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import StringConstraints

from convoy_audit.canonical import b64
from convoy_audit.errors import AuditError
from convoy_audit.tiles import encode_bundle, parse_path
from convoy_coordinator.body import Input, body, described
from convoy_coordinator.errors import Problem
from convoy_coordinator.log.service import LogService

MAX_ENTRIES = 1000
Number = Annotated[int, Query(ge=0, le=2**63 - 1)]
Which = Literal["latest", "newest"]
TEXT = "text/plain; charset=utf-8"
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}


class NewCosignatures(Input):
    """A checkpoint of this log with one or more cosignature lines."""

    note: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]


def router(log: LogService) -> APIRouter:
    """Return the routes under ``/v1/log``."""
    routes = APIRouter(prefix="/v1/log", tags=["log"])

    @routes.get("/checkpoint")
    def checkpoint(which: Which = "latest", size: Number | None = None, reader: str = "") -> Response:
        """Return a checkpoint with its cosignatures; those of ``reader``, a party, come first."""
        note = log.at(size, reader) if size is not None else log.latest() if which == "latest" else log.newest()
        if note is None:
            raise Problem("NOT_FOUND", "the log has no such checkpoint yet")
        return Response(note, media_type=TEXT, headers={"Cache-Control": "no-store"})

    @routes.post("/cosignatures", openapi_extra=described(NewCosignatures))
    def cosignatures(new: Annotated[NewCosignatures, Depends(body(NewCosignatures))]) -> dict[str, Any]:
        """Add cosignatures to a checkpoint; answers who has cosigned and whether that is the quorum."""
        with _refusals():
            return log.add_cosignatures(new.note).as_json()

    @routes.get("/level")
    def level(index: Number) -> dict[str, Any]:
        """Tell how far an entry has come: none, durable, published or witnessed."""
        return {"index": index, "level": log.level_of(index).word}

    @routes.get("/policy")
    def policy() -> Response:
        """Return the keys of the log and its witnesses; pin them, do not just believe them."""
        with _refusals():
            return Response(log.policy().text, media_type=TEXT)

    @routes.get("/entries")
    def entries(start: Number, end: Number) -> dict[str, Any]:
        """Return the entries [start, end), at most 1,000 of them."""
        with _refusals():
            found = log.entries(start, min(end, start + MAX_ENTRIES))
        return {"start": start, "entries": [b64(entry) for entry in found]}

    @routes.get("/proof/inclusion")
    def inclusion(index: Number, size: Number) -> dict[str, Any]:
        """Prove that an entry is in the tree of a size."""
        with _refusals():
            return {"proof": [b64(node) for node in log.inclusion(index, size)]}

    @routes.get("/proof/consistency")
    def consistency(old: Number, new: Number) -> dict[str, Any]:
        """Prove that the tree of one size extends another."""
        with _refusals():
            return {"proof": [b64(node) for node in log.consistency(old, new)]}

    @routes.get("/tile/{path:path}")
    def tile(path: str) -> Response:
        """Return a tile of hashes or a bundle of entries."""
        with _refusals():
            kind, span = parse_path(f"tile/{path}")
            data = log.tile(span) if kind == "tile" else encode_bundle(log.bundle(span))
        return Response(data, media_type="application/octet-stream", headers=FOR_EVER)

    return routes


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except AuditError as error:
        raise Problem("LOG_REFUSED", error.cause, party=error.party) from None
