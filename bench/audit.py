"""Measure the audit log beside a locked hash-chain table, in the same minute on the same machine.

    bench/audit.py [--entries 100000] [--seconds 5] [--json OUT]

Both sides write the same entries durably: ours through the sequencer (group commit), the other the usual way,
one transaction per entry that locks the head row and inserts a row chained to it. SQLite runs with WAL and
synchronous=FULL, PostgreSQL (where its binaries are installed) with fsync on. An append counts when its caller
knows that it is durable. "offered" is open-loop: entries come at random instants at a given mean rate, whatever
the log does; latency is from the planned instant. Figures of a busy machine vary by a factor of three; compare the
ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from convoy_audit.archive import verify_pack, write_pack
from convoy_audit.entry import encode, parse_entry
from convoy_audit.events import QueryOpened
from convoy_audit.evidence import Evidence, verify_evidence
from convoy_audit.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion
from convoy_audit.note import Signer
from convoy_audit.pack import Parts
from convoy_audit.policy import make_policy
from convoy_audit.testing import HYBRID_LOG, HYBRID_WITNESS
from convoy_audit.witness import Witness
from convoy_audit.witness_store import FileWitnessStore
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory, writing
from convoy_coordinator.log import LogService, tables
from convoy_coordinator.log.sequencer import Sequencer

ORIGIN = "bench.example/log"
THREADS = 16
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]
Figures = dict[str, Any]


def make_entry(number: int) -> bytes:
    """Return an entry of about 300 bytes."""
    return encode(
        QueryOpened(
            at=datetime.now(UTC),
            run=f"run-20261124-{number:012x}",
            attempt=1,
            queries=("risk.joint.insurer.1", "risk.joint.oem.1"),
            result="sha256:" + hashlib.sha256(str(number).encode()).hexdigest(),
        )
    )


def spread(latencies_s: list[float]) -> Figures:
    """Return p50, p99 and the longest, in milliseconds."""
    cuts = statistics.quantiles(latencies_s, n=100, method="inclusive")
    return {
        name: round(value * 1e3, 2)
        for name, value in (("p50_ms", cuts[49]), ("p99_ms", cuts[98]), ("max_ms", max(latencies_s)))
    }


@contextlib.contextmanager
def sqlite_engine() -> Iterator[Engine]:
    """Yield a fresh SQLite database on the disk of the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="convoy-bench-") as folder:
        engine = open_engine(f"sqlite:///{folder}/log.db")
        Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
        yield engine
        engine.dispose()


@contextlib.contextmanager
def postgres_engine() -> Iterator[Engine | None]:
    """Yield a fresh PostgreSQL database, or None where its binaries are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield None
        return
    folder, binaries = Path(tempfile.mkdtemp(prefix="convoy-bench-pg-")), found[-1].parent
    before: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        before = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")

    def run(tool: str, *arguments: str) -> None:
        command = [*before, str(binaries / tool), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    run("initdb", "-A", "trust", "--no-locale", "-E", "UTF8", "-U", "bench")
    try:
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -h ''", "start")
        engine = open_engine(f"postgresql+psycopg://bench@/postgres?host={folder}")
        Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
        yield engine
        engine.dispose()
    finally:
        run("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def closed_loop(append: Callable[[bytes], object], seconds: float, threads: int = THREADS) -> Figures:
    """Let threads append as fast as each is answered."""
    latencies: list[list[float]] = [[] for _ in range(threads)]
    end = time.perf_counter() + seconds

    def work(mine: list[float], start: int) -> None:
        number = start
        while (began := time.perf_counter()) < end:
            append(make_entry(number))
            mine.append(time.perf_counter() - began)
            number += 1

    began = time.perf_counter()
    workers = [threading.Thread(target=work, args=(mine, n << 32)) for n, mine in enumerate(latencies)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    everything = [value for mine in latencies for value in mine]
    return {"threads": threads, "entries_per_s": round(len(everything) / took), **spread(everything)}


def open_loop(sequencer: Sequencer, rate: float, seconds: float) -> Figures:
    """Offer entries at random instants; latency counts from the planned instant."""
    rng = random.Random(1)
    planned: list[float] = []
    at = 0.0
    while at < seconds:
        at += rng.expovariate(rate)
        planned.append(at)
    entries = [make_entry(number) for number in range(len(planned))]
    done: list[float] = [0.0] * len(planned)
    left = threading.Semaphore(0)
    began = time.perf_counter()

    def answered(number: int) -> Callable[[object], None]:
        def note(_answer: object) -> None:
            done[number] = time.perf_counter() - began
            left.release()

        return note

    for number, when in enumerate(planned):
        wait = when - (time.perf_counter() - began)
        if wait > 0:
            time.sleep(wait)
        parse_entry(entries[number])
        sequencer.submit([entries[number]]).add_done_callback(answered(number))
    for _ in planned:
        left.acquire()
    sustained = len(planned) / max(done)
    return {
        "offered_per_s": rate,
        "sustained_per_s": round(sustained),
        **spread([d - p for d, p in zip(done, planned, strict=True)]),
    }


def locked_chain(engine: Engine) -> Callable[[bytes], None]:
    """Return the append of the usual design: lock the head row, chain, insert, commit."""
    blob = "BYTEA" if engine.dialect.name == "postgresql" else "BLOB"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE chain (seq BIGINT PRIMARY KEY, hash {blob}, body {blob})"))
        connection.execute(text(f"CREATE TABLE chain_head (id INTEGER PRIMARY KEY, seq BIGINT, hash {blob})"))
        connection.execute(text("INSERT INTO chain_head VALUES (1, 0, :h)"), {"h": bytes(32)})
    lock = " FOR UPDATE" if engine.dialect.name == "postgresql" else ""
    sessions = session_factory(engine)

    def append(body: bytes) -> None:
        with writing(sessions) as session:
            seq, head = session.execute(text(f"SELECT seq, hash FROM chain_head WHERE id = 1{lock}")).one()
            row = {"s": seq + 1, "h": hashlib.sha256(bytes(head) + body).digest(), "b": body}
            session.execute(text("INSERT INTO chain VALUES (:s, :h, :b)"), row)
            session.execute(
                text("UPDATE chain_head SET seq = :s, hash = :h WHERE id = 1"), {"s": row["s"], "h": row["h"]}
            )

    return append


def durable_appends(engine: Engine, seconds: float) -> Figures:
    """Measure ours and the locked chain on one database, one after the other."""
    log = LogService(session_factory(engine), ORIGIN, _signers(), deadline_s=30)
    try:
        figures: Figures = {
            "ours": closed_loop(log.append, seconds),
            "ours_one_caller": closed_loop(log.append, seconds / 2, threads=1),
            "locked_chain": closed_loop(locked_chain(engine), seconds),
            "offered": [open_loop(log._sequencer, rate, seconds) for rate in (500.0, 2000.0)],
        }
    finally:
        log.close()
    figures["ratio_to_locked_chain"] = round(
        figures["ours"]["entries_per_s"] / figures["locked_chain"]["entries_per_s"], 1
    )
    return figures


def tree_figures(entries: list[bytes]) -> Figures:
    """Measure hashing, proving and verifying."""
    began = time.perf_counter()
    tree = Tree(map(leaf_hash, entries))
    took = time.perf_counter() - began
    size, root = tree.size, tree.root()
    picks = random.Random(2).choices(range(1, size), k=5000)
    figures: Figures = {"entries": size, "leaf_and_append_per_s": round(size / took)}

    def rate(name: str, act: Callable[[int], object]) -> list[Any]:
        start = time.perf_counter()
        found = [act(pick) for pick in picks]
        figures[name] = round(len(picks) / (time.perf_counter() - start))
        return found

    proofs = dict(zip(picks, rate("inclusion_proofs_per_s", tree.inclusion_proof), strict=True))
    rate("inclusion_verifications_per_s", lambda i: verify_inclusion(tree.leaf(i), i, size, proofs[i], root))
    roots = {pick: tree.root(pick) for pick in picks}
    steps = dict(zip(picks, rate("consistency_proofs_per_s", tree.consistency_proof), strict=True))
    rate("consistency_verifications_per_s", lambda i: verify_consistency(i, size, steps[i], roots[i], root))
    return figures


def witnessed(rounds: int) -> Figures:
    """Measure from an append to a checkpoint that four hybrid witnesses have cosigned, all in turn."""
    with sqlite_engine() as engine, tempfile.TemporaryDirectory(prefix="convoy-bench-w-") as folder:
        vkeys: dict[str, list[str]] = {}
        log = LogService(session_factory(engine), ORIGIN, _signers(), witnesses=lambda: vkeys, deadline_s=30)
        witnesses = {}
        for party in ("auditor", "charging", "insurer", "oem"):
            signers = [Signer.generate(party, kind) for kind in HYBRID_WITNESS]
            store = FileWitnessStore.create(Path(folder) / party)
            witnesses[party] = Witness(signers, log.verifiers, store)
            vkeys[party] = [signer.vkey for signer in signers]
        latencies, verifying = [], []
        for number in range(rounds):
            began = time.perf_counter()
            index = log.append(make_entry(number))
            note = log.checkpoint()
            size = log.size()
            lines = ""
            for witness in witnesses.values():
                proof = log.consistency(witness.size(ORIGIN), size)
                lines += witness.add_checkpoint(note.encode(), witness.size(ORIGIN), proof, 1).lines
            if not log.add_cosignatures(note + lines).has_quorum:
                raise SystemExit("no quorum")
            latencies.append(time.perf_counter() - began)
            evidence: Evidence = log.evidence(index)
            policy = log.policy()
            began = time.perf_counter()
            verify_evidence(evidence, policy, require=witnesses["oem"].verifiers)
            verifying.append(time.perf_counter() - began)
        size_bytes = len(evidence.tlog_proof.text)
        log.close()
    return {
        "rounds": rounds,
        "append_to_witnessed": spread(latencies),
        "verify_evidence": spread(verifying),
        "tlog_proof_bytes": size_bytes,
    }


def offline(entries: list[bytes]) -> Figures:
    """Measure the offline verification of a pack, in a process of its own, and a restart of the log."""
    signers = _signers()
    witnesses = {p: Signer.generate(p, HYBRID_WITNESS[0]) for p in ("a", "b", "c", "d")}
    policy = make_policy([s.vkey for s in signers], {p: [s.vkey] for p, s in witnesses.items()})
    with sqlite_engine() as engine, tempfile.TemporaryDirectory(prefix="convoy-bench-p-") as folder:
        log = LogService(session_factory(engine), ORIGIN, signers, deadline_s=120)
        for start in range(0, len(entries), 10_000):
            log._sequencer.append(entries[start : start + 10_000])
        note = log.checkpoint()
        body = note.split("\n\n")[0].encode() + b"\n"
        note += "".join(signer.line(body, 1) for signer in witnesses.values())
        log.close()
        began = time.perf_counter()
        LogService(session_factory(engine), ORIGIN, signers).close()
        restart_s = time.perf_counter() - began
        path = Path(folder) / "pack"
        write_pack(path, Parts(policy.text, note.encode(), entries, datetime.now(UTC)))
        began = time.perf_counter()
        child = subprocess.run([sys.executable, __file__, "--verify", str(path)], capture_output=True, check=True)
        took = time.perf_counter() - began
    return {
        "entries": len(entries),
        "restart_s": round(restart_s, 2),
        "verify_pack_s": round(took, 2),
        "verify_pack_peak_mb": json.loads(child.stdout)["peak_mb"],
    }


def verify_only(path: Path) -> None:
    """Verify a pack and print the peak memory of this process."""
    verdict = verify_pack(path)
    if not verdict.is_verified:
        raise SystemExit(str(verdict.faults[:3]))
    print(json.dumps({"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}))


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the tree and of the offline audit")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each append measurement")
    parser.add_argument("--rounds", type=int, default=60, help="witnessed checkpoints")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    parser.add_argument("--verify", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.verify is not None:
        verify_only(given.verify)
        return
    entries = [make_entry(number) for number in range(given.entries)]
    figures: Figures = {
        "command": "bench/audit.py " + " ".join(sys.argv[1:]),
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": [round(value, 2) for value in os.getloadavg()],
        },
        "entry_bytes": len(entries[0]),
        "tree": tree_figures(entries),
        "witnessed": witnessed(given.rounds),
        "offline": offline(entries),
    }
    with sqlite_engine() as engine:
        figures["sqlite"] = durable_appends(engine, given.seconds)
    with postgres_engine() as server:
        figures["postgresql"] = (
            durable_appends(server, given.seconds) if server is not None else "not measured: no binaries"
        )
    text_of = json.dumps(figures, indent=2)
    print(text_of)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text_of + "\n")


def _signers() -> list[Signer]:
    return [Signer.from_seed(ORIGIN, kind, bytes(31) + bytes([kind])) for kind in HYBRID_LOG]


if __name__ == "__main__":
    main()
