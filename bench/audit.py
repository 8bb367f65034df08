"""Measure the audit log beside its peers, in the same minute on the same machine.

    bench/audit.py [--full] [--entries 100000] [--seconds 5] [--rounds 60] [--json bench/results/audit.json]

Peers: a locked hash-chain table (the usual design: one transaction an entry that locks the head row and inserts a row chained to
it), and pymerkle (``pip install ./audit[bench]``; GPL, so nothing of ours imports it but this file). All sides write the same
entries. SQLite runs with WAL and synchronous=FULL, PostgreSQL (where its binaries are installed) with fsync on. An append counts when
its caller knows that it is durable. "offered" is open-loop: entries come at random instants at a mean rate of 2,000/s, whatever the
log does; latency is from the planned instant. The witnesses listen on real sockets. ``--full`` takes 1,000,000 entries for tree,
offline audit and restart, and needs ten minutes. ``targets`` names each bar of the specification with what was measured. Figures of a
busy machine vary by a factor of three; compare the ratios.
LENGTH: over 500 lines, because all sides of a comparison run from one file.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import platform
import random
import shutil
import socket
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

import uvicorn
from sqlalchemy import Engine, text

from convoy_audit.archive import write_pack
from convoy_audit.checkpoint import Checkpoint
from convoy_audit.entry import encode, parse_entry
from convoy_audit.events import LedgerStated, QueryOpened
from convoy_audit.evidence import Evidence, verify_evidence
from convoy_audit.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion
from convoy_audit.note import Signer, sign_note
from convoy_audit.pack import Parts
from convoy_audit.policy import make_policy
from convoy_audit.rehearsal import RUN, Rehearsal
from convoy_audit.testing import HYBRID_LOG, HYBRID_WITNESS
from convoy_audit.witness import Witness
from convoy_audit.witness_store import FileWitnessStore
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory, writing
from convoy_coordinator.log import LogService, tables
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.outside import OutsideWitness
from convoy_coordinator.log.publisher import Publisher
from convoy_coordinator.log.sequencer import Sequencer
from convoy_node.witness_service import WitnessService

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
    gc.collect()
    gc.freeze()  # as ``convoy-coordinator serve`` does
    try:
        figures: Figures = {
            "ours": closed_loop(log.append, seconds),
            "ours_one_caller": closed_loop(log.append, seconds / 2, threads=1),
            "locked_chain": closed_loop(locked_chain(engine), seconds),
            "offered": [open_loop(log._sequencer, rate, seconds * 2) for rate in (500.0, 2000.0, 8000.0)],
        }
    finally:
        log.close()
    peer = figures["locked_chain"]["entries_per_s"]
    figures["ratio_to_locked_chain"] = {
        "of 16 callers that wait": round(figures["ours"]["entries_per_s"] / peer, 1),
        "of capacity": round(max(run["sustained_per_s"] for run in figures["offered"]) / peer, 1),
    }
    return figures


def pymerkle_figures(entries: list[bytes], picks: list[int]) -> Figures | str:
    """Measure the same with pymerkle, where it is installed."""
    try:
        from pymerkle import InmemoryTree, verify_consistency, verify_inclusion
    except ImportError:
        return "not measured: pip install ./audit[bench]"
    tree = InmemoryTree(algorithm="sha256")
    began = time.process_time()
    for entry in entries:
        tree.append_entry(entry)
    took = time.process_time() - began
    size, root = len(entries), tree.get_root()
    figures: Figures = {"entries": size, "leaf_and_append_per_s": round(size / took)}

    def rate(name: str, act: Callable[[int], object]) -> list[Any]:
        start = time.process_time()
        found = [act(pick) for pick in picks]
        figures[name] = round(len(picks) / (time.process_time() - start))
        return found

    proofs = rate("inclusion_proofs_per_s", lambda i: tree.prove_inclusion(i, size))
    for pick, proof in zip(picks, proofs, strict=True):
        verify_inclusion(tree.get_leaf(pick), root, proof)
    steps = rate("consistency_proofs_per_s", lambda i: tree.prove_consistency(i, size))
    for pick, step in zip(picks, steps, strict=True):
        verify_consistency(tree.get_root(pick), root, step)
    return figures


def tree_figures(entries: list[bytes]) -> Figures:
    """Measure hashing, proving and verifying, and pymerkle beside it; by processor time, which others on the machine disturb less."""
    began = time.process_time()
    tree = Tree(map(leaf_hash, entries))
    took = time.process_time() - began
    size, root = tree.size, tree.root()
    picks = random.Random(2).choices(range(1, size), k=5000)
    figures: Figures = {"entries": size, "leaf_and_append_per_s": round(size / took)}

    def rate(name: str, act: Callable[[int], object]) -> list[Any]:
        start = time.process_time()
        found = [act(pick) for pick in picks]
        figures[name] = round(len(picks) / (time.process_time() - start))
        return found

    proofs = dict(zip(picks, rate("inclusion_proofs_per_s", tree.inclusion_proof), strict=True))
    rate("inclusion_verifications_per_s", lambda i: verify_inclusion(tree.leaf(i), i, size, proofs[i], root))
    roots = {pick: tree.root(pick) for pick in picks}
    steps = dict(zip(picks, rate("consistency_proofs_per_s", tree.consistency_proof), strict=True))
    rate("consistency_verifications_per_s", lambda i: verify_consistency(i, size, steps[i], roots[i], root))
    peer = pymerkle_figures(entries, picks[:1000])
    figures["pymerkle"] = peer
    if isinstance(peer, dict):
        names = ("leaf_and_append_per_s", "inclusion_proofs_per_s", "consistency_proofs_per_s")
        figures["ratios_to_pymerkle"] = {name: round(figures[name] / peer[name], 1) for name in names}
    return figures


@contextlib.contextmanager
def witnesses_on_sockets(log: LogService, vkeys: dict[str, list[str]], folder: Path) -> Iterator[dict[str, Witness]]:
    """Serve four hybrid witnesses, each with its own folder and address; yield them."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Witness] = {}
        for party in ("auditor", "charging", "insurer", "oem"):
            signers = [Signer.generate(party, kind) for kind in HYBRID_WITNESS]
            witness = Witness(signers, log.verifiers, FileWitnessStore.create(folder / party))
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            config = uvicorn.Config(WitnessService(witness, time.time), log_level="error", lifespan="off", ws="none")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            found[f"http://127.0.0.1:{listener.getsockname()[1]}"] = witness
            vkeys[party] = [signer.vkey for signer in signers]
        yield found


def witnessed(rounds: int, load_per_s: int = 200) -> Figures:
    """Measure, under load, from an append to a checkpoint that a quorum of four hybrid witnesses has cosigned over HTTP."""
    with sqlite_engine() as engine, tempfile.TemporaryDirectory(prefix="convoy-bench-w-") as name:
        vkeys: dict[str, list[str]] = {}
        log = LogService(session_factory(engine), ORIGIN, _signers(), witnesses=lambda: vkeys, deadline_s=30)
        stop = threading.Event()

        def load() -> None:
            number = 1 << 40
            while not stop.wait(1 / load_per_s):
                log._sequencer.submit([make_entry(number)])
                number += 1

        latencies, checkpoints, verifying = [], [], []
        with witnesses_on_sockets(log, vkeys, Path(name)) as listening:
            pushed = [OutsideWitness(w.verifiers[0].name, url) for url, w in listening.items()]
            publisher = Publisher(log, pushed)
            loader = threading.Thread(target=load)
            loader.start()
            for number in range(rounds):
                began = time.perf_counter()
                index = log.append(make_entry(number))
                signed = time.perf_counter()
                if publisher.once() is not Level.WITNESSED:
                    raise SystemExit("no quorum")
                latencies.append(time.perf_counter() - began)
                checkpoints.append(time.perf_counter() - signed)
                evidence: Evidence = log.evidence(index)
                policy = log.policy()
                own = next(iter(listening.values())).verifiers
                began = time.perf_counter()
                verify_evidence(evidence, policy, require=own)
                verifying.append(time.perf_counter() - began)
            stop.set()
            loader.join()
            publisher.stop()
        size_bytes = len(evidence.tlog_proof.text)
        log.close()
    return {
        "rounds": rounds,
        "load_per_s": load_per_s,
        "append_to_witnessed": spread(latencies),
        "checkpoint_to_witnessed": spread(checkpoints),
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
        began, used = time.perf_counter(), time.process_time()
        LogService(session_factory(engine), ORIGIN, signers).close()
        restart_s, restart_cpu_s = time.perf_counter() - began, time.process_time() - used
        path = Path(folder) / "pack"
        write_pack(path, Parts(policy.text, note.encode(), entries, datetime.now(UTC)))
        verified = verified_alone(path, entries)
    return {
        "entries": len(entries),
        "restart_s": round(restart_s, 2),
        "restart_processor_s": round(restart_cpu_s, 2),
        "restart_per_million_s": round(restart_s * 1e6 / len(entries), 2),
        **verified,
    }


def statements(count: int) -> list[bytes]:
    """Return a log of parties' statements: four parties that state their ledgers in turn."""
    rehearsal = Rehearsal()
    for number in range(count):
        member = rehearsal.members[number % len(rehearsal.members)]
        event = LedgerStated(
            at=rehearsal.tick(),
            party=member.party,
            run=RUN,
            contract=rehearsal.contract_digest,
            step="spent",
            epsilon_micro={"asset-1": 1},
            total_micro={"asset-1": number},
        )
        rehearsal.state(member, event)
    return rehearsal.log.entries


def signed_pack(entries: list[bytes], path: Path) -> Path:
    """Write a pack of entries under a checkpoint that log and four witnesses have signed."""
    signers = _signers()
    witnesses = {p: Signer.generate(p, HYBRID_WITNESS[0]) for p in ("a", "b", "c", "d")}
    policy = make_policy([s.vkey for s in signers], {p: [s.vkey] for p, s in witnesses.items()})
    tree = Tree(map(leaf_hash, entries))
    note = sign_note(Checkpoint(ORIGIN, tree.size, tree.root()).text, [*signers, *witnesses.values()], 1)
    return write_pack(path, Parts(policy.text, note, entries, datetime.now(UTC)))


def offline_statements(count: int) -> Figures:
    """Measure the offline verification of a pack of signed statements: one Ed25519 verification an entry is its floor."""
    entries = statements(count)
    with tempfile.TemporaryDirectory(prefix="convoy-bench-s-") as folder:
        path = signed_pack(entries, Path(folder) / "pack")
        return {"entries": len(entries), **verified_alone(path, entries)}


def verified_alone(path: Path, entries: list[bytes]) -> Figures:
    """Verify a pack in a process of its own; scaled to a million entries, the start of the process counts once."""
    with tempfile.TemporaryDirectory(prefix="convoy-bench-0-") as folder:
        start_s, _ = _timed_alone(signed_pack(entries[:256], Path(folder) / "pack"))
    took_s, used = _timed_alone(path)
    return {
        "verify_pack_s": round(took_s, 2),
        "verify_256_entries_s": round(start_s, 2),
        "verify_pack_per_million_s": round(start_s + max(0.0, took_s - start_s) * 1e6 / len(entries), 2),
        **used,
    }


def _timed_alone(path: Path) -> tuple[float, Figures]:
    began = time.perf_counter()
    child = subprocess.run([sys.executable, "-c", ALONE, str(path)], capture_output=True, check=True)
    return time.perf_counter() - began, json.loads(child.stdout)


ALONE = """
import json, resource, sys, time
from pathlib import Path
from convoy_audit.archive import verify_pack
from convoy_audit.skim_pool import cores
jobs = cores()
verdict = verify_pack(Path(sys.argv[1]), jobs=jobs)
if not verdict.is_verified:
    raise SystemExit(str(verdict.faults[:3]))
# Not ru_maxrss: Linux keeps the parent's across fork and exec.
lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "verify_pack_jobs": jobs,
    "verify_pack_peak_mb": round((peak_kb + jobs * children.ru_maxrss) / 1024),
    "verify_pack_processor_s": round(time.process_time() + children.ru_utime + children.ru_stime, 2),
}))
"""
"""What ``convoy-audit verify`` does, with processor time and peak memory of all its processes. The memory is an upper bound: what
forked processes share is counted for each of them."""


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the tree and of the offline audit")
    parser.add_argument("--statements", type=int, default=40_000, help="signed statements of the other offline audit")
    parser.add_argument("--full", action="store_true", help="1,000,000 entries")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each append measurement")
    parser.add_argument("--rounds", type=int, default=60, help="witnessed checkpoints")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    given = parser.parse_args()
    entries = [make_entry(number) for number in range(1_000_000 if given.full else given.entries)]
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
        "offline_statements": offline_statements(given.statements),
    }
    with sqlite_engine() as engine:
        figures["sqlite"] = durable_appends(engine, given.seconds)
    with postgres_engine() as server:
        figures["postgresql"] = (
            durable_appends(server, given.seconds) if server is not None else "not measured: no binaries"
        )
    figures["command_line"] = command_line()
    figures["targets"] = targets(figures)
    text_of = json.dumps(figures, indent=2)
    print(text_of)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text_of + "\n")


def command_line() -> Figures:
    """Measure ``convoy-audit --help``, the best of five."""
    command = [str(Path(sys.executable).with_name("convoy-audit")), "--help"]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        took.append(time.perf_counter() - began)
    return {"help_s": round(min(took), 3)}


def targets(figures: Figures) -> Figures:
    """Return each bar with what was measured; true, false, or why it was not measured."""

    def met(name: str, value: float, bar: float, *, most: bool) -> None:
        found[name] = {"measured": value, "bar": bar, "met": value <= bar if most else value >= bar}

    found: Figures = {}
    for database, p99_ms in (("sqlite", 25), ("postgresql", 60)):
        side = figures[database]
        if not isinstance(side, dict):
            found[database] = side
            continue
        offered = side["offered"][1]
        met(f"{database}: entries/s at 2,000/s offered", offered["sustained_per_s"], 1950, most=False)
        met(f"{database}: p99 ms at 2,000/s offered", offered["p99_ms"], p99_ms, most=True)
        if database == "postgresql":
            for how, ratio in side["ratio_to_locked_chain"].items():
                met(f"{database}: times the locked chain, {how}", ratio, 4, most=False)
    ratios = figures["tree"].get("ratios_to_pymerkle")
    if ratios is None:
        found["tree"] = figures["tree"]["pymerkle"]
    else:
        met("tree: times pymerkle, appending", ratios["leaf_and_append_per_s"], 5, most=False)
        met("tree: times pymerkle, inclusion proofs", ratios["inclusion_proofs_per_s"], 5, most=False)
        met("tree: times pymerkle, consistency proofs", ratios["consistency_proofs_per_s"], 5, most=False)
    offline_ = figures["offline"]
    is_full = offline_["entries"] >= 1_000_000
    what = "1e6 entries" if is_full else f"1e6 entries, scaled from {offline_['entries']}"
    met(f"offline audit of {what}, s", offline_["verify_pack_per_million_s"], 10, most=True)
    if is_full:
        met("offline audit, MB", offline_["verify_pack_peak_mb"], 500, most=True)
    met(f"restart at {what}, s", offline_["restart_per_million_s"], 5, most=True)
    met("checkpoint to witnessed, p99 ms", figures["witnessed"]["checkpoint_to_witnessed"]["p99_ms"], 2000, most=True)
    met("convoy-audit --help, s", figures["command_line"]["help_s"], 0.5, most=True)
    return found


def _signers() -> list[Signer]:
    return [Signer.from_seed(ORIGIN, kind, bytes(31) + bytes([kind])) for kind in HYBRID_LOG]


if __name__ == "__main__":
    main()
