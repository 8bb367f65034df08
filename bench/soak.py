"""A coordinator through a thousand runs: does its memory stay flat, does a run stay as quick as the first?

``python bench/soak.py --json bench/results/soak.json --runs 1000`` serves a coordinator in a process of its own and takes runs through
it as the ServerApp does, over HTTP, with real keys: asked for, claimed, authorised in the log and cosigned by all three witnesses,
twenty progress reports, released, finished. Memory is the resident size of the process, after each tenth of the runs; *growth* is from
the end of the first fifth (everything warm) to the end, per run. Ends with exit code 1 where it grew by more than ``--limit-mib``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import Federation, SetClock, bundle_files, contract_text
from convoy_demo.ports import free_port
from convoy_demo.runtimes import coordinator_process

REPORTS = 20


class RealClock(SetClock):
    """The coordinator's own time."""

    def __call__(self) -> datetime:
        """Return now."""
        return datetime.now(UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--limit-mib", type=float, default=24.0, help="growth that is still called flat")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        results = soak(Path(folder) / "coordinator", given.runs)
    print(json.dumps(results, indent=2))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if results["growthMiB"] <= given.limit_mib else 1


def soak(home: Path, runs: int) -> dict[str, Any]:
    """Take runs through a coordinator; return memory and times."""
    create_home(home, name="Soak", origin="convoy.example/soak", port=free_port())
    with coordinator_process(home) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_ready(client)
        pid = int(json.loads((home / "serving.json").read_text(encoding="utf-8"))["pid"])
        federation = Federation(client, home, RealClock(datetime.now(UTC)))
        digest = agree(federation)
        memory, seconds = [resident_mib(pid)], []
        for done in range(1, runs + 1):
            begun = time.monotonic()
            one_run(federation, digest)
            seconds.append(time.monotonic() - begun)
            if done % max(1, runs // 10) == 0:
                memory.append(resident_mib(pid))
        entries = federation.log_size()
    fifth = max(1, runs // 5)
    growth = memory[-1] - memory[2]
    return {
        "runs": runs,
        "logEntries": entries,
        "memoryMiB": [round(size, 1) for size in memory],
        "growthMiB": round(growth, 1),
        "growthBytesPerRun": round(growth * 2**20 / max(1, runs - fifth)),
        "medianSecondsFirstFifth": round(statistics.median(seconds[:fifth]), 4),
        "medianSecondsLastFifth": round(statistics.median(seconds[-fifth:]), 4),
        "ratioLastToFirst": round(statistics.median(seconds[-fifth:]) / statistics.median(seconds[:fifth]), 2),
        "machine": {"cores": os.cpu_count()},
    }


def agree(federation: Federation) -> str:
    """Bring a contract into force that runs from yesterday for a year."""
    federation.enrol()
    now = datetime.now(UTC)
    text = contract_text(
        (federation.oem, federation.insurer),
        offerUntil=f"{now + timedelta(days=7):%Y-%m-%dT%H:%M:%SZ}",
        term={
            "notBefore": f"{now - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
            "notAfter": f"{now + timedelta(days=360):%Y-%m-%dT%H:%M:%SZ}",
        },
    )
    digest = federation.offer(text)
    federation.sign(digest, federation.oem, federation.insurer)
    return digest


def one_run(federation: Federation, digest: str) -> None:
    """Ask for a run and take it to its end."""
    asked = federation.ask(digest)
    asked.raise_for_status()
    uid = asked.json()["uid"]
    claimed = federation.claim()
    if claimed is None or claimed["uid"] != uid:
        raise SystemExit(f"asked for {uid}, the queue handed out {claimed and claimed['uid']}")
    federation.authorise(uid)
    federation.move(uid, "running").raise_for_status()
    for done in range(REPORTS):
        report = {"step": "query", "done": done, "total": REPORTS}
        federation.post(f"/internal/runs/{uid}/progress", report, **federation.internal).raise_for_status()
    files = bundle_files(claimed, model_safetensors=bytes(4096), card_md=b"# soak\n")
    federation.post("/internal/releases", {"run": uid, "files": files}, **federation.internal).raise_for_status()
    federation.move(uid, "finished").raise_for_status()


def wait_ready(client: httpx.Client) -> None:
    """Wait until the coordinator answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit("the coordinator was not ready within a minute")


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


if __name__ == "__main__":
    sys.exit(main())
