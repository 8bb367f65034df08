"""Append under load, be killed without warning, start again; then check everything that was promised.

    python kill_harness.py DATABASE_URL KILLS SEED      prints a JSON line of figures; exit code 1 names what broke

Each life is a forked child: four threads append, every seventh append also signs a checkpoint, and each acknowledgement goes
through a pipe before the next act. SIGKILL comes after a random time, in the middle of whatever it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import Random

from convoy_audit.checkpoint import open_checkpoint
from convoy_audit.entry import encode
from convoy_audit.events import RunFailed
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.log import LogService, tables

ORIGIN = "example.com/log"
SIGNER = Signer.from_seed(ORIGIN, SignatureType.ED25519, bytes(31) + b"\1")
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]
THREADS = 4


def live(url: str, life: int, pipe: int) -> None:
    """Append until the end comes."""
    log = LogService(session_factory(open_engine(url)), ORIGIN, [SIGNER], deadline_s=20)

    def work(thread: int) -> None:
        for number in range(10**6):
            raw = encode(
                RunFailed(
                    at=datetime.now(UTC),
                    run=f"run-{life}-{thread}-{number}",
                    contract="sha256:" + "0" * 64,
                    reasons=("NODE_LOST",),
                )
            )
            index = log.append(raw)
            os.write(pipe, b"a %d %s\n" % (index, hashlib.sha256(b"\0" + raw).hexdigest().encode()))
            if number % 7 == thread:
                os.write(pipe, b"c %s\n" % log.checkpoint().encode().hex().encode())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


def one_life(url: str, life: int, after_s: float) -> list[str]:
    """Fork, wait for the first acknowledgement, kill a little later; return the whole lines that came through."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            live(url, life, writing)
        except BaseException as error:  # noqa: BLE001 - a child has nobody else to tell
            os.write(writing, f"error {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os.close(writing)
    first = os.read(reading, 65536)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    parts = [first]
    while part := os.read(reading, 65536):
        parts.append(part)
    os.close(reading)
    os.waitpid(child, 0)
    return b"".join(parts).decode().split("\n")[:-1]  # a line that was cut off was not acknowledged


def check(url: str, acknowledged: dict[int, str], signed: set[bytes]) -> tuple[int, float]:
    """Start the log, which derives its whole tree again, and compare; return its size and the seconds a start took."""
    engine = open_engine(url)
    began = time.perf_counter()
    log = LogService(session_factory(engine), ORIGIN, [SIGNER])
    took = time.perf_counter() - began
    for index, leaf in acknowledged.items():
        if index >= log.size() or log._tree.leaf(index).hex() != leaf:
            raise SystemExit(f"acknowledged entry {index} is lost or another one")
    for note in signed:
        checkpoint, _ = open_checkpoint(note, [SIGNER.verifier])
        if checkpoint.size > log.size() or log._tree.root(checkpoint.size) != checkpoint.root:
            raise SystemExit(f"fork: the log does not extend its checkpoint of {checkpoint.size}")
    kept = {note.split("\n\n")[0] for note in log.checkpoints()}
    if not {note.decode().split("\n\n")[0] for note in signed} <= kept:
        raise SystemExit("a checkpoint that was handed out is not stored")
    log.close()
    engine.dispose()
    return log.size(), took


def main() -> None:
    """Live and die."""
    url, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    engine = open_engine(url)
    Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
    engine.dispose()
    random = Random(seed)
    acknowledged: dict[int, str] = {}
    signed: set[bytes] = set()
    began = time.perf_counter()
    for life in range(kills):
        for line in one_life(url, life, random.uniform(0, 0.08)):
            what, *rest = line.split(" ")
            if what == "a":
                index, leaf = int(rest[0]), rest[1]
                if acknowledged.setdefault(index, leaf) != leaf:
                    raise SystemExit(f"index {index} was acknowledged twice")
            elif what == "c":
                signed.add(bytes.fromhex(rest[0]))
            else:
                raise SystemExit(f"life {life}: {line}")
        if life % 25 == 24:
            check(url, acknowledged, signed)
    size, start_s = check(url, acknowledged, signed)
    figures = {
        "kills": kills,
        "acknowledged": len(acknowledged),
        "entries": size,
        "checkpoints": len(signed),
        "last_start_s": round(start_s, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
