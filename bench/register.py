"""Measure the consent register at a million persons beside a plain table, in the same run on the same machine.

    bench/register.py [--persons 1000000] [--withdrawals 400] [--json bench/results/register.json]

Ours: the node's register with history, pseudonyms, commitments and watermark, through ``ConsentOffice``: what a person, an app
and a run call. ``withdrawal_by_app`` is the same over the node's local HTTP API, with the duty to delete that it raises. The other
side is what one writes in an afternoon: one SQLite table (WAL, synchronous=FULL, no history), a withdrawal is an UPDATE, an epoch
root hashes every row's JSON into a tree held as lists, a cohort is a scan judged in Python. It signs no receipt, proves nothing and
forgets what stood before; it shows what the promises cost. Each side runs in a process of its own, which makes its peak memory
comparable. Times of a busy machine vary by a factor of three; compare the ratios.

Targets (issue 3): withdrawal p99 <= 50 ms, epoch root <= 10 s, cohort selection <= 5 s, <= 1 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import queue
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from convoy_contracts.instants import instant, timestamp
from convoy_node.consent_table import OPTIONAL, REQUIRED, TableReader
from convoy_node.register import BATCH_ROWS

CONTRACT, NOTICE, PURPOSE = "urn:convoy:contract:bench", "bench@1", "convoy:RiskModelTraining"
PARTIES = tuple(f"did:web:{name}.example" for name in ("oem", "insurer-a", "insurer-b", "insurer-c"))
NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
TARGETS = {"withdrawal_p99_ms": 50.0, "epoch_root_s": 10.0, "cohort_s": 5.0, "peak_mib": 1024.0}
Columns = Mapping[str, list[Any]]
Figures = dict[str, Any]


def batches(persons: int) -> Iterator[Columns]:
    """Yield a consent table in batches: nine in ten adults, half of them linked, terms of a thousand different days."""
    rng = random.Random(7)
    for start in range(0, persons, BATCH_ROWS):
        size = min(BATCH_ROWS, persons - start)
        given = [timestamp(NOW - timedelta(days=1 + rng.randrange(1000), seconds=n % 60)) for n in range(size)]
        linked = [rng.random() < 0.5 for _ in range(size)]
        columns: dict[str, list[Any]] = {name: [None] * size for name in (*REQUIRED, *OPTIONAL)}
        columns |= {
            "local_id": [f"P{start + n:08d}" for n in range(size)],
            "contract": [CONTRACT] * size,
            "given": list(given),
            "until": [timestamp(NOW + timedelta(days=1 + rng.randrange(1000))) for _ in range(size)],
            "notice": [NOTICE] * size,
            "purpose": [PURPOSE] * size,
            "recipients": [list(PARTIES)] * size,
            "separate": [True] * size,
            "age": [None if rng.random() < 0.02 else rng.randrange(12, 90) for _ in range(size)],
            "link_id": [rng.randbytes(16) if is_linked else None for is_linked in linked],
            "counterpart": [PARTIES[0] if is_linked else None for is_linked in linked],
        }
        yield columns


def chosen(persons: int, count: int) -> list[str]:
    """Return who withdraws."""
    return [f"P{n:08d}" for n in random.Random(11).sample(range(persons), count)]


CPU: dict[str, float] = {}
"""Seconds of processor time by step: what a step costs whatever else the machine does."""


def timed(call: Any, step: str = "") -> tuple[float, Any]:
    """Return seconds and result of a call; note its processor time under a name."""
    started, used = time.perf_counter(), time.process_time()
    result = call()
    if step:
        CPU[step] = round(time.process_time() - used, 2)
    return time.perf_counter() - started, result


def spread(seconds: list[float]) -> Figures:
    """Return p50, p99 and maximum in milliseconds."""
    ranked = sorted(seconds)
    at = {"p50": ranked[len(ranked) // 2], "p99": ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]}
    return {f"{name}_ms": round(value * 1e3, 2) for name, value in (at | {"max": ranked[-1]}).items()}


def peak_mib() -> float:
    """Return this process's peak resident memory."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def ours(persons: int, withdrawals: int, folder: Path) -> Figures:
    """Measure the node's register through its office."""
    from convoy_node.consent.office import ConsentOffice
    from convoy_node.setup import create_home

    home = folder / "home"
    create_home(
        home, party=PARTIES[1], role="insurer", region="CN-SH", log_keys=[new_log_key()], data_source="rows.csv",
        asset="urn:convoy:asset:bench:1", asset_fields={}, asset_year_cap_micro=6_000_000, now=NOW,
    )  # fmt: skip
    clock = [NOW]
    with ConsentOffice.open(home, lambda: clock[0]) as office:
        start_mib = peak_mib()
        reader = TableReader((*REQUIRED, *OPTIONAL), party=office.party)
        load_s, _ = timed(lambda: office.register.import_batches(reader, batches(persons), now=NOW), "import")
        loaded_mib = peak_mib()
        first_s, first = timed(lambda: office.epoch(CONTRACT))
        seconds = []
        for person in chosen(persons, withdrawals):
            clock[0] += timedelta(seconds=1)
            took, receipt = timed(lambda person=person: office.withdraw(person, CONTRACT, channel="app"))
            seconds.append(took)
            assert receipt["kind"] == "withdrawal"
        clock[0] += timedelta(seconds=1)
        root_s, epoch = timed(lambda: office.epoch(CONTRACT), "epoch_root")
        assert first is not None and epoch is not None and epoch.number == first.number + 1 and epoch.size == persons  # noqa: PT018
        ask = (CONTRACT, PURPOSE, [PARTIES[0]], [NOTICE], clock[0])
        cohort_s, cohort = timed(lambda: office.register.cohort(*ask, sensitive=False), "cohort")
        grouped_s, _ = timed(lambda: office.register.subjects(CONTRACT, clock[0]))
        proof_s, proof = timed(lambda: office.prove(chosen(persons, withdrawals)[0], CONTRACT))
        assert proof["found"]["state"]["state"] == "withdrawn"
    return {
        "withdrawal_by_app": spread(by_app(home, persons, withdrawals, clock)),
        "import_s": round(load_s, 2),
        "withdrawal": spread(seconds),
        "first_epoch_s": round(first_s, 2),
        "epoch_root_s": round(root_s, 2),
        "cohort_s": round(cohort_s, 2),
        "decision_records_s": round(grouped_s, 2),
        "proof_s": round(proof_s, 2),
        "cohort": cohort.size,
        "cpu_s": CPU,
        "memory_mib": {"program": start_mib, "after_import": loaded_mib, "peak": peak_mib()},
        "disk_mib": round(sum(path.stat().st_size for path in home.glob("*.db*")) / 2**20, 1),
    }


def by_app(home: Path, persons: int, withdrawals: int, clock: list[datetime]) -> list[float]:
    """Return the seconds of withdrawals through the local HTTP API, each with its duty to delete; other persons than before."""
    import urllib.request

    from convoy_node.api import TOKEN_FILE, create_app, serve

    ready: queue.Queue[int] = queue.Queue()
    app = create_app(home, clock=lambda: clock[0])
    threading.Thread(target=serve, args=(app, 0, ready.put), daemon=True).start()
    url = f"http://127.0.0.1:{ready.get(timeout=60)}/v1/consents/withdraw"
    headers = {"Authorization": f"Bearer {(home / TOKEN_FILE).read_text()}", "Content-Type": "application/json"}
    seconds = []
    gone = set(chosen(persons, withdrawals))
    for person in [one for one in chosen(persons, 2 * withdrawals) if one not in gone][:withdrawals]:
        clock[0] += timedelta(seconds=1)
        body = json.dumps({"person": person, "contract": CONTRACT}).encode()
        request = urllib.request.Request(url, body, headers)
        took, answer = timed(lambda request=request: json.loads(urllib.request.urlopen(request, timeout=60).read()))
        seconds.append(took)
        assert answer["kind"] == "withdrawal"
    return seconds


def plain(persons: int, withdrawals: int, folder: Path) -> Figures:
    """Measure a plain table."""
    names = (*REQUIRED, *OPTIONAL)
    db = sqlite3.connect(folder / "plain.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"CREATE TABLE consent ({', '.join(names)}, PRIMARY KEY (contract, local_id))")

    def load() -> None:
        db.execute("BEGIN")
        for batch in batches(persons):
            cells = {**batch, "recipients": [json.dumps(told) for told in batch["recipients"]]}
            rows = zip(*(cells[name] for name in names), strict=True)
            db.executemany(f"INSERT INTO consent VALUES ({', '.join('?' * len(names))})", rows)
        db.execute("COMMIT")

    def root() -> bytes:
        rows = db.execute("SELECT * FROM consent ORDER BY contract, local_id").fetchall()
        level = [hashlib.sha256(json.dumps([str(cell) for cell in row]).encode()).digest() for row in rows]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=False)
            odd = level[-1:] if len(level) % 2 else []
            level = [hashlib.sha256(left + right).digest() for left, right in pairs] + odd
        return level[0]

    def cohort(now: datetime) -> list[str]:
        at = instant(timestamp(now)) or 0
        found = []
        for row in db.execute("SELECT * FROM consent WHERE contract = ?", (CONTRACT,)).fetchall():
            told = dict(zip(names, row, strict=True))
            counts = (
                told["notice"] == NOTICE and told["purpose"] == PURPOSE and PARTIES[0] in json.loads(told["recipients"])
                and (instant(told["given"]) or at + 1) <= at < (instant(told["until"]) or 0)
                and told["withdrawn"] is None and (told["age"] or 0) >= 14
            )  # fmt: skip
            if counts:
                found.append(told["local_id"])
        return found

    start_mib = peak_mib()
    load_s, _ = timed(load, "import")
    loaded_mib, seconds, now = peak_mib(), [], NOW
    for person in chosen(persons, withdrawals):
        now += timedelta(seconds=1)
        values = (timestamp(now), CONTRACT, person)
        took, _ = timed(
            lambda values=values: db.execute(
                "UPDATE consent SET withdrawn = ? WHERE contract = ? AND local_id = ?", values
            )
        )
        seconds.append(took)
    root_s, _ = timed(root, "epoch_root")
    cohort_s, found = timed(lambda: cohort(now + timedelta(seconds=1)), "cohort")
    return {
        "import_s": round(load_s, 2),
        "withdrawal": spread(seconds),
        "epoch_root_s": round(root_s, 2),
        "cohort_s": round(cohort_s, 2),
        "cohort": len(found),
        "cpu_s": CPU,
        "memory_mib": {"program": start_mib, "after_import": loaded_mib, "peak": peak_mib()},
        "disk_mib": round(sum(path.stat().st_size for path in folder.glob("plain.db*")) / 2**20, 1),
    }


def new_log_key() -> str:
    """Return a log key; the home needs one to believe."""
    from convoy_audit.testing import MemoryLog

    return MemoryLog("bench.example/log").vkeys[0]


def measured(side: str, persons: int, withdrawals: int) -> Figures:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--persons", str(persons), "--withdrawals", str(withdrawals)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure both sides; print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=1_000_000)
    parser.add_argument("--withdrawals", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure = {"ours": ours, "plain": plain}[options.side]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.persons, options.withdrawals, Path(folder))))
        return
    sides = {side: measured(side, options.persons, options.withdrawals) for side in ("ours", "plain")}
    reached = {
        "withdrawal_p99_ms": sides["ours"]["withdrawal"]["p99_ms"],
        "epoch_root_s": max(sides["ours"]["first_epoch_s"], sides["ours"]["epoch_root_s"]),
        "cohort_s": sides["ours"]["cohort_s"],
        "peak_mib": sides["ours"]["memory_mib"]["peak"],
    }
    assert sides["ours"]["cohort"] == sides["plain"]["cohort"]
    facts = {
        "persons": options.persons,
        "withdrawals": options.withdrawals,
        "ours": sides["ours"],
        "plain_table": sides["plain"],
        "targets": {
            name: {"target": target, "reached": reached[name], "met": reached[name] <= target}
            for name, target in TARGETS.items()
        },
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name, row in facts["targets"].items():
        print(f"{name:<20} {row['reached']:>10}  target {row['target']:g}  {'met' if row['met'] else 'NOT MET'}")
    print(f"{'withdrawal_by_app':<20} ours {sides['ours']['withdrawal_by_app']}")
    for name in ("import_s", "withdrawal", "epoch_root_s", "cohort_s", "cpu_s", "memory_mib", "disk_mib"):
        print(f"{name:<20} ours {sides['ours'][name]}   plain table {sides['plain'][name]}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
