"""HTTP of questions to the log: open to everybody who may read it; every filter is in the URL.

GET /v1/log/search?contract&party&run&model&since&until&reason&kind&after&limit
                                       {"found": [{"index", "level", "entry"}], "next": index or null}
GET /v1/log/use?contract&quarter       {"use": [...]}: who used which data under which contract, by quarter
GET /v1/log/sample?count&seed          {"seed", "size", "found": [...]}; the same seed gives the same sample anywhere
GET /v1/log/statements                 {"parties": [{"party", "logged", "highest", "missing", "lastAt"}]}
GET /v1/log/receipts?party&after       {"receipts": [{"number", "index", "proof"}]}: tlog-proofs under cosigned checkpoints
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from convoy_audit.errors import AuditError
from convoy_audit.query import Filter
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.log.questions import MAX_FOUND, Questions
from convoy_coordinator.log.service import LogService

Text = Annotated[str | None, Query(min_length=1, max_length=300)]
Number = Annotated[int, Query(ge=0, le=2**53)]
Quarter = Annotated[str | None, Query(pattern=r"^[0-9]{4}-Q[1-4]$")]
Seed = Annotated[str | None, Query(min_length=1, max_length=100, pattern=r"^[ -~]+$")]


def read_filter(
    contract: Text = None,
    party: Text = None,
    run: Text = None,
    model: Text = None,
    since: Text = None,
    until: Text = None,
    reason: Text = None,
    kind: Text = None,
) -> Filter:
    """Read the filters of a URL; an instant needs an offset, such as 2026-10-01T00:00:00+08:00."""
    faults = []
    instants = []
    for name, text in (("since", since), ("until", until)):
        read = None if text is None else _instant(text)
        if text is not None and read is None:
            faults.append(Fault(f"/{name}", "is not an instant with an offset"))
        instants.append(read)
    if faults:
        raise Problem("INPUT_INVALID", f"{len(faults)} filter(s) cannot be read", faults=faults)
    return Filter(
        contract=contract,
        party=party,
        run=run,
        model=model,
        since=instants[0],
        until=instants[1],
        reason=reason,
        kind=kind,
    )


def router(log: LogService, questions: Questions) -> APIRouter:
    """Return the routes under ``/v1/log``."""
    routes = APIRouter(prefix="/v1/log", tags=["log"])

    def shown(index: int) -> dict[str, Any]:
        (raw,) = log.entries(index, index + 1)
        return {"index": index, "level": log.level_of(index).word, "entry": json.loads(raw)}

    @routes.get("/search")
    def search(
        contract: Text = None,
        party: Text = None,
        run: Text = None,
        model: Text = None,
        since: Text = None,
        until: Text = None,
        reason: Text = None,
        kind: Text = None,
        after: Number = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 100,
    ) -> dict[str, Any]:
        """Find entries; all conditions that are given must hold."""
        asked = read_filter(contract, party, run, model, since, until, reason, kind)
        with _refusals():
            found, following = questions.search(asked, after, limit)
        return {"found": [shown(hit.index) for hit in found], "next": following}

    @routes.get("/use")
    def use(contract: Text = None, quarter: Quarter = None) -> dict[str, Any]:
        """Tell who used which data under which contract, by quarter."""
        with _refusals():
            return {"use": questions.use(contract, quarter)}

    @routes.get("/sample")
    def sampled(count: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 25, seed: Seed = None) -> dict[str, Any]:
        """Draw entries for a reviewer; without a seed a fresh one is made and printed."""
        seed = secrets.token_hex(8) if seed is None else seed
        size = questions.sample_size()
        with _refusals():
            indices = questions.sample(min(count, size), seed)
        return {"seed": seed, "size": size, "found": [shown(index) for index in indices]}

    @routes.get("/statements")
    def statements() -> dict[str, Any]:
        """Tell how far each party's statements have come, and which numbers are missing."""
        rows = [
            {
                "party": seen.party,
                "logged": len(seen.index_of),
                "highest": seen.highest,
                "missing": seen.missing,
                "lastAt": None if seen.last_at is None else seen.last_at.isoformat(),
            }
            for seen in questions.chains()
        ]
        return {"parties": rows}

    @routes.get("/receipts")
    def receipts(party: Annotated[str, Query(min_length=1, max_length=300)], after: Number = 0) -> dict[str, Any]:
        """Return receipts of a party's statements: a tlog-proof under a cosigned checkpoint for each."""
        found = questions.receipts(party, after)
        rows = [{"number": r.number, "index": r.index, "proof": r.proof.decode()} for r in found]
        return {"party": party, "receipts": rows}

    return routes


def _instant(text: str) -> datetime | None:
    try:
        read = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped + of a URL comes as a space
    except ValueError:
        return None
    return read if read.tzinfo is not None else None


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except AuditError as error:
        raise Problem("LOG_REFUSED", error.cause, party=error.party) from None
