"""Measure one LOCAL round of a real run against a bare Flower round trip, on the same processes and wires.

``python bench/local_round.py`` founds a federation in a temporary folder (coordinator, SuperLink, a SuperNode with a warm worker for
every party, TLS, node authentication), and runs a real joint training whose every sum is LOCAL (three insurers, no carmaker). Before
every batch of it the same server process asks the same three nodes for a bare echo: one message each with as many 64-bit words as the
sums have, and back. What the batch adds: the contract's standing over HTTP, ``decide(release)`` at each node over every consent, a
signed statement, a durable spend in each ledger, own sums over own rows, discrete Gaussian noise, pairwise masks, and the opening.

Prints JSON: medians in seconds and their ratio. ``bench/protocol.py`` calls it.
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
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from convoy_coordinator.federation import server_app
from convoy_coordinator.federation.flower.gated_grid import grid_nodes
from convoy_coordinator.federation.port import CoordinatorPort
from convoy_coordinator.federation.round_loop import RoundLoop

RESULTS: Final = "CONVOY_BENCH_RESULTS"
ECHOES: Final = 3
LIMIT_S: Final = 150.0
app = ServerApp()


def client_app(home: Path) -> ClientApp:
    """Return a node's own application; a ``hello`` that carries words is echoed, as a node lets no other message types in."""
    from convoy_node.client_app import make_client_app
    from convoy_node.runtime import NodeRuntime

    runtime = NodeRuntime(home)
    inner = make_client_app(runtime)
    made = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        if "w" in message.content["c"]:
            return Message(message.content, reply_to=message)
        return inner(message, context)

    for action in runtime.actions:
        made.query(action)(answer)
    return made


@app.main()  # type: ignore[untyped-decorator]
def main_of_server(grid: Grid, context: Context) -> None:
    """Carry out the next queued run and time its batches."""
    settings = context.run_config
    token = Path(str(settings["token-file"])).read_text(encoding="utf-8").strip()
    times: dict[str, list[float]] = {"bare": [], "local": []}

    class Timed(RoundLoop):
        def _batch(self, asks: Sequence[Any]) -> Any:
            queries = [self._run.plan[ask.query] for ask in asks]
            parties = {party for query in queries for party in query.participants}
            nodes = [node for party, node in grid_nodes(grid).items() if party in parties]
            words = os.urandom(8 * sum(query.size for query in queries))
            for _ in range(ECHOES):
                content = [RecordDict({"c": ConfigRecord({"w": words, "once": os.urandom(8)})}) for _ in nodes]
                messages = [Message(c, n, "query.hello", ttl=60) for c, n in zip(content, nodes, strict=True)]
                started = time.monotonic()
                replies = list(grid.send_and_receive(messages, timeout=60))
                times["bare"].append(time.monotonic() - started)
                if any(reply.has_error() for reply in replies) or len(replies) != len(nodes):
                    raise RuntimeError("an echo failed")
            started = time.monotonic()
            sums = super()._batch(asks)
            times["local"].append(time.monotonic() - started)
            return sums

    server_app.RoundLoop = Timed  # type: ignore[misc]
    with httpx.Client(
        base_url=str(settings["coordinator-url"]), headers={"Authorization": f"Bearer {token}"}, timeout=60.0
    ) as client:
        server_app.serve_next(grid, CoordinatorPort(client))
    Path(os.environ[RESULTS]).write_text(json.dumps(times), encoding="utf-8")


def measure(drivers: int, sweeps: int) -> dict[str, Any]:
    """Found, run, and return the figures."""
    from convoy_coordinator.federation.flower.deployment import NodeLaunch, deployed
    from convoy_coordinator.federation.flower.link_home import LinkHome
    from convoy_demo import agreements, founding, runtimes
    from convoy_demo.api import Api
    from convoy_demo.places import MEMBERS, Places
    from convoy_demo.ports import free_port
    from convoy_demo.scenario import Scenario
    from convoy_demo.specifications import risk_specification
    from convoy_node.setup import read_card

    whole = risk_specification()
    insurers = tuple(tower for tower in whole.towers if tower.role == "insurer")
    spec = whole.model_copy(update={"towers": insurers, "sweeps": sweeps, "cohortFloor": 1_000, "evaluation": None})
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder).resolve(), "deployed")
        founding.found_coordinator(places, free_port())
        os.environ[RESULTS] = str(Path(folder, "times.json"))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        with runtimes.coordinator_process(places.coordinator) as url:
            api = Api(url, places.coordinator / "keys")
            api.wait_ready(60)
            founding.found(places, Scenario(drivers=drivers, risk=spec, min_subjects=100), api, lambda _: None)
            launches = [
                NodeLaunch(
                    party=member.id,
                    home=places.node(member.short),
                    key_file=places.node(member.short) / "keys" / "supernode.pem",
                    public_key=read_card(places.node(member.short)).supernode_key.encode(),
                    client_app="local_round:client_app",
                )
                for member in MEMBERS
            ]
            settings = runtimes.server_settings(places, url)
            with deployed(LinkHome(places.link), launches, "local_round:app", settings=settings) as deployment:
                contracts = json.loads(places.ready.read_text(encoding="utf-8"))["contracts"]
                uid = api.post(
                    "/v1/runs",
                    {
                        "contractDigest": contracts[agreements.RISK],
                        "algorithm": "risk-towers",
                        "requester": "did:web:insurer-a.example",
                        "purpose": agreements.PURPOSES[agreements.RISK],
                    },
                )["uid"]
                deployment.control.start_run(deployment.app_hash, run=uid)
                deadline = time.monotonic() + LIMIT_S
                results = Path(os.environ[RESULTS])
                while not results.exists() and time.monotonic() < deadline:
                    time.sleep(0.2)
                run = api.get(f"/v1/runs/{uid}")
                if run["state"] != "finished":
                    for process in deployment.supervisor.processes.values():
                        print(process.log.read_text(encoding="utf-8")[-2000:], file=sys.stderr)
                    raise SystemExit(f"the run is {run['state']}: {run.get('reason')} {run.get('cause')}")
                times = json.loads(results.read_text(encoding="utf-8"))
            api.close()
    bare, local = statistics.median(times["bare"]), statistics.median(times["local"])
    return {
        "persons": drivers,
        "bareFlowerRoundTripSeconds": round(bare, 4),
        "localRoundSeconds": round(local, 4),
        "ratio": round(local / bare, 2),
        "rounds": len(times["local"]),
        "quartiles": {k: [round(q, 4) for q in np.quantile(v, (0.25, 0.75))] for k, v in times.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--drivers", type=int, default=20_000)
    parser.add_argument("--sweeps", type=int, default=5)
    given = parser.parse_args(arguments)
    print(json.dumps(measure(given.drivers, given.sweeps), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
