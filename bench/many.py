"""Fifty nodes on one machine in one run: does it work, what does a node cost?

``python bench/many.py --json bench/results/many.json --nodes 50`` generates a portfolio (120,000 persons), deals it to so many insurers,
founds them with an auditor - own keys, rows, consents, ledger, witness - under one contract that all have signed, and trains

    embedded   every node in one process: what the protocol itself costs a node
    deployed   a real SuperLink, and a real SuperNode with its worker for each (``--deployed N``, default 8: two processes a node)

Reported for each: start-up, seconds per exchange, the memory of a node (share of the process; resident size of both its processes,
and the proportional size, PSS, that counts shared pages once), messages, bytes relayed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import federated
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from portfolio import read_portfolio

from convoy_coordinator.federation.flower.deployment import NodeLaunch, deployed, node_process
from convoy_coordinator.federation.flower.link_home import LinkHome
from convoy_demo.runtimes import CLIENT_APP, SERVER_APP
from convoy_node.setup import read_card

PERSONS = 120_000
DESCRIPTION = """
name: {nodes} insurers
path: rows.parquet
claims: claims
exposure: years
split: {{column: learn, learn: [true]}}
insurers: {{count: {nodes}, seed: 1}}
towers:
  insurer: {{cap: "1", features: [{{name: age, knots: [18, 30, 60, 90]}}, {{name: km, knots: [0, 10, 40], scale: log1p}}]}}
settings:
  {{claimCap: 1, priorRate: "0.1", priorScale: "0.2", smoothness: "0.8", sweeps: 4, labelShareMilli: 600, deltaNano: 1000,
   cohortFloor: 1000}}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--deployed", type=int, default=8, help="how many as real processes; 0 leaves it out")
    given = parser.parse_args(arguments)
    results: dict[str, Any] = {"machine": {"cores": os.cpu_count()}, "persons": PERSONS}
    with tempfile.TemporaryDirectory() as folder:
        results["embedded"] = embedded(Path(folder), given.nodes)
    print(json.dumps(results["embedded"], indent=2), flush=True)
    if given.deployed:
        with tempfile.TemporaryDirectory() as folder:
            results["deployed"] = as_processes(Path(folder), given.deployed)
        print(json.dumps(results["deployed"], indent=2))
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def embedded(folder: Path, nodes: int) -> dict[str, Any]:
    """Train with every node in this process."""
    begun = time.monotonic()
    portfolio = write_portfolio(folder, nodes)
    with federated.federation(portfolio, portfolio.specification, folder) as federation:
        founded = time.monotonic() - begun
        gc.collect()
        before = resident_mib(os.getpid())
        federation.train()
        grown = peak_mib(os.getpid()) - before
        run = federation.api.get("/v1/runs")["runs"][0]
    return {
        "nodes": nodes,
        "foundingSeconds": round(founded, 1),
        "foundingSecondsPerNode": round(founded / nodes, 2),
        "memoryMiBPerNode": round(grown / (nodes + 1), 1),
        **figures(run, nodes),
    }


def as_processes(folder: Path, nodes: int) -> dict[str, Any]:
    """Train with every node as real processes under a real SuperLink."""
    portfolio = write_portfolio(folder, nodes)
    with federated.federation(portfolio, portfolio.specification, folder) as federation:
        homes = {federated.party_of(short): folder / "nodes" / short for short in federation.parties}
        launches = [
            NodeLaunch(party, home, home / "keys" / "supernode.pem", read_card(home).supernode_key.encode(), CLIENT_APP)
            for party, home in homes.items()
        ]
        token = (folder / "coordinator" / "keys" / "internal.token").resolve()
        settings = {"coordinator-url": federation.api.url, "token-file": str(token)}
        with deployed(LinkHome(folder / "link"), launches, SERVER_APP, settings=settings) as deployment:
            started = deployment.seconds["all"]
            uid = federation.queue()
            deployment.control.start_run(deployment.app_hash, run=uid)
            run = federation.ended(uid)
            pids = {party: deployment.supervisor.processes[node_process(party)].pid for party in homes}
            sessions = {party: members(pid) for party, pid in pids.items()}
            resident = [sum(map(resident_mib, session)) for session in sessions.values()]
            shared = [sum(map(proportional_mib, session)) for session in sessions.values()]
    return {
        "nodes": nodes,
        "startSeconds": round(started, 1),
        "startSecondsPerNode": round(started / len(homes), 2),
        "memoryMiBPerNode": round(sum(resident) / len(resident), 1),
        "proportionalMiBPerNode": round(sum(shared) / len(shared), 1),
        **figures(run, nodes),
    }


def figures(run: dict[str, Any], nodes: int) -> dict[str, Any]:
    """Return what a run cost.

    Raises:
        SystemExit: it did not finish.
    """
    if run["state"] != "finished":
        raise SystemExit(
            f"the run with {nodes} nodes was {run['state']}: {run['reason']} {run['party']} {run['cause']}"
        )
    facts = run["progress"]
    exchanges = sum(facts["exchanges"].values())
    seconds = sum(facts["secondsByAction"].values())
    return {
        "runSeconds": facts["seconds"],
        "exchanges": exchanges,
        "secondsPerExchange": round(seconds / exchanges, 3),
        "secondsPerMessage": round(seconds / facts["messages"], 4),
        "messages": facts["messages"],
        "sealedMegabytesRelayed": round(facts["blobBytes"] / 1e6, 2),
    }


def write_portfolio(folder: Path, nodes: int) -> Any:
    """Generate the rows and their description."""
    rng = np.random.default_rng(7)
    age, km = rng.uniform(18, 90, PERSONS), rng.gamma(2, 6, PERSONS)
    years = rng.uniform(0.2, 1, PERSONS)
    claims = rng.poisson(years * 0.1 * np.exp(0.03 * (km - 12) - 0.01 * (age - 45)))
    table = {"age": age, "km": km, "claims": claims, "years": years, "learn": rng.random(PERSONS) < 0.9}
    pq.write_table(pa.table(table), folder / "rows.parquet")
    (folder / "it.yaml").write_text(DESCRIPTION.format(nodes=nodes), encoding="utf-8")
    return read_portfolio(folder / "it.yaml", folder, 4.0)


def members(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def resident_mib(pid: int) -> float:
    """Return the resident size of a process."""
    return _kib(Path(f"/proc/{pid}/status"), "VmRSS") / 1024


def peak_mib(pid: int) -> float:
    """Return the largest resident size that a process has had."""
    return _kib(Path(f"/proc/{pid}/status"), "VmHWM") / 1024


def proportional_mib(pid: int) -> float:
    """Return the proportional size of a process: pages that n processes share count 1/n."""
    return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1024


def _kib(file: Path, name: str) -> int:
    lines = file.read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


if __name__ == "__main__":
    sys.exit(main())
