"""Measure what a sum over two holders costs by backend: the trustee's, the same under row audit, and CKKS without a trustee.

``python bench/backends.py --json bench/results/backends.json``: one carmaker with 7 columns, one insurer, 40,000 rows in common, a DOT
and a WEIGHTED sum each, all parties in this process, noise switched off so that the error of a sum can be stated. Seconds are processor
time of all parties together; bytes are the sealed blobs of the query, the set-up stated apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, Floats
from convoy_models.messages import Payload, relay
from convoy_models.plan import Kind, PlannedQuery, Side
from convoy_models.sums import DealerSession, PartySession, open_sum
from convoy_models.sums.ckks import CkksSession
from convoy_models.sums.row_audit import AuditTerms
from convoy_models.sums.row_audit_sessions import AuditedSession, AuditingDealer
from convoy_models.testing import NoNoise, new_keys

OEM, INSURER, TRUSTEE = "oem", "insurer", "trustee"
COLUMNS: Final = 7
ROUNDS: Final = 3


class Pair:
    """Both holders and the trustee of one backend."""

    def __init__(self, backend: str, rows: int) -> None:
        keys = new_keys([OEM, INSURER, TRUSTEE])
        kind = {"trustee": PartySession, "trustee, audited": AuditedSession, "ckks": CkksSession}[backend]
        self.backend, self.rows, self.bytes, self.seconds = backend, rows, 0, 0.0
        self.sessions: dict[str, Any] = {
            p: kind("run", 1, keys[p], peers=[q], trustee=TRUSTEE, noise=NoNoise())
            for p, q in ((OEM, INSURER), (INSURER, OEM))
        }
        audited = backend == "trustee, audited"
        self.dealer = (
            AuditingDealer("run", 1, keys[TRUSTEE], AuditTerms(10, 20))
            if audited
            else DealerSession("run", 1, keys[TRUSTEE])
        )

    def deliver(self, replies: Mapping[str, Mapping[str, bytes]]) -> None:
        """Relay."""
        for party, blobs in relay({p: Payload(blobs=dict(b)) for p, b in replies.items()}).items():
            self.bytes += sum(map(len, blobs.values()))
            (self.dealer if party == TRUSTEE else self.sessions[party]).receive(blobs)

    def prepare(self, x: Floats, factors: Mapping[str, Floats]) -> None:
        """Align, hold, exchange."""
        ids = [n.to_bytes(16, "big") for n in range(self.rows)]
        for p, q in ((OEM, INSURER), (INSURER, OEM)):
            self.deliver({p: self.sessions[p].links(q, ids)})
        for p, q in ((OEM, INSURER), (INSURER, OEM)):
            self.sessions[p].align(q)
            self.sessions[p].hold(q, x if p == OEM else None)
            if isinstance(self.sessions[p], AuditedSession):
                self.sessions[p].commit(q, factors[p][:, None])
        self.deliver({p: s.matrix(0) for p, s in self.sessions.items()})

    def ask(self, query: PlannedQuery, factors: Mapping[str, Floats]) -> Floats:
        """Take a query through its steps."""
        by_peer = {OEM: {INSURER: factors[OEM]}, INSURER: {OEM: factors[INSURER]}}
        if self.backend != "ckks":
            self.deliver({TRUSTEE: self.dealer.deal(query)})
        if query.kind == "WEIGHTED":
            self.deliver({p: s.open(query, by_peer[p], 1.0) for p, s in self.sessions.items()})
        elif self.backend == "ckks":
            self.deliver({INSURER: self.sessions[INSURER].open(query, by_peer[INSURER], 1.0)})
            self.deliver({OEM: self.sessions[OEM].open(query, {}, 1.0)})
        takes = query.kind == "DOT" and self.backend != "ckks"
        self.deliver({OEM: self.sessions[OEM].share(query)})
        self.deliver({INSURER: self.sessions[INSURER].share(query, by_peer[INSURER] if takes else None, 1.0)})
        return open_sum(query, {p: s.close(query) for p, s in self.sessions.items()})


def planned(kind: Kind, number: int) -> PlannedQuery:
    """Return a query over all columns."""
    oem, insurer = Side("oem", (OEM,)), Side("insurer", (INSURER,))
    return PlannedQuery(
        id=f"joint/{kind}/{number}", kind=kind, cohort="joint", module="oem", purpose="model", sweep=1, group=0,
        columns=(0, COLUMNS), shape=(COLUMNS, 1), clip=1.0, sigma=1.0, mu2=1.0, matrix=oem,
        vectors=(insurer,) if kind == "DOT" else (insurer, oem),
    )  # fmt: skip


def measure(backend: str, rows: int) -> dict[str, Any]:
    """Return the figures of one backend."""
    rng = np.random.default_rng(1)
    x = np.rint(rng.random((rows, COLUMNS)) * 2.0**MATRIX_BITS) / 2.0**MATRIX_BITS
    factors = {p: np.floor(rng.random(rows) * 2.0**FACTOR_BITS) / 2.0**FACTOR_BITS for p in (OEM, INSURER)}
    pair = Pair(backend, rows)
    started = time.process_time()
    pair.prepare(x, factors)
    out: dict[str, Any] = {
        "setupSeconds": round(time.process_time() - started, 3),
        "setupMegabytes": round(pair.bytes / 1e6, 2),
    }
    kinds: tuple[Kind, ...] = ("DOT", "WEIGHTED")
    for kind in kinds:
        plain = x.T @ (factors[INSURER] * (factors[OEM] if kind == "WEIGHTED" else 1.0))
        seconds, error, before = [], 0.0, pair.bytes
        for number in range(ROUNDS):
            started = time.process_time()
            found = pair.ask(planned(kind, number), factors)
            seconds.append(time.process_time() - started)
            error = max(error, float(np.abs(found - plain).max()))
        out[kind] = {
            "seconds": round(float(np.median(seconds)), 3),
            "megabytes": round((pair.bytes - before) / ROUNDS / 1e6, 2),
            "largestError": float(f"{error:.2g}"),
        }
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, default=Path("bench/results/backends.json"), help="where the results go")
    parser.add_argument("--rows", type=int, default=40_000)
    given = parser.parse_args(arguments)
    results = {name: measure(name, given.rows) for name in ("trustee", "trustee, audited", "ckks")}
    results["rows"], results["columns"] = given.rows, COLUMNS  # type: ignore[assignment]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
