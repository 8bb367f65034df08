"""Kill every process of a deployed federation in the middle of a run, and time how long until all is well again.

``python bench/recovery.py --json bench/results/recovery.json --table docs/reliability.md`` founds a small federation (a carmaker, three
insurers, a charging operator, an auditor; 6,000 drivers) and runs it as real processes on the loopback: the coordinator with its
channel, the SuperLink, a ServerApp worker, a SuperNode with its worker for each party. Every process is
kept by what a service manager does (``restart: always``, one second). Then, for each process and each moment of a run, SIGKILL to
its whole session, and two times from that instant:

    ended     until the run has ended, and how: finished, or failed with party, cause and fix
    serving   until a fresh run is authorised by every party: the federation works again

After each episode a fresh run must finish, every ledger must hold nothing reserved, no party may have spent less than its finished
and interrupted runs cost, and the log must verify. Any of these missing ends the benchmark with an error, not with a number.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from convoy_coordinator.federation.flower.deployment import NodeLaunch, node_arguments
from convoy_coordinator.federation.flower.link_home import LinkHome
from convoy_coordinator.federation.flower.pki import write_certificates
from convoy_demo import agreements, founding, runtimes
from convoy_demo.api import Api
from convoy_demo.places import MEMBERS, Places
from convoy_demo.ports import free_ports
from convoy_demo.run import ALGORITHMS, ENDED, REQUESTERS
from convoy_demo.scenario import Scenario
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_node.ledger_view import LedgerView
from convoy_node.setup import read_card

RUNS = 80
"""How many runs the contract's budget allows: partners would never sign that."""
RESTART_S = 1.0
LIMIT_S = 180.0
VICTIMS = ("coordinator", "superlink", "server-app", "oem", "insurer-b", "auditor")
MOMENTS = ("authorised", "half", "last")
NAMES = {
    "coordinator": "coordinator",
    "superlink": "SuperLink",
    "server-app": "ServerApp worker",
    "oem": "carmaker's node",
    "insurer-b": "an insurer's node",
    "auditor": "trustee's node",
}
WHEN = {
    "authorised": "authorised, before the first query",
    "half": "half of the queries done",
    "last": "before release",
}


class NotAccounted(Exception):
    """An episode left something undone; the message says what."""


class Keeper:
    """What a service manager does: start processes, and start again each that ended, after a second."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        logs.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def add(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a process and keep it."""
        with self._lock:
            self._commands[name] = (list(map(str, command)), {**os.environ, **(environment or {})})
            self._start(name)

    def kill(self, name: str) -> None:
        """SIGKILL a process with everything that it started."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            os.killpg(self._running[name].pid, signal.SIGKILL)

    def close(self) -> None:
        """End all of them."""
        self._over.set()
        self._thread.join()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str) -> None:
        command, environment = self._commands[name]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )

    def _keep(self) -> None:
        while not self._over.wait(0.05):
            for name, process in list(self._running.items()):
                if process.poll() is not None and not self._over.wait(RESTART_S):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    with self._lock:
                        self._start(name)


@dataclasses.dataclass
class Kept:
    """A federation of kept processes."""

    places: Places
    keeper: Keeper
    api: Api
    digest: str
    price: float = 1.0
    """What one finished run costs a person, in mu squared; measured by the first one."""

    def queue(self) -> str:
        """Ask for a risk run."""
        kind = agreements.RISK
        order = {
            "contractDigest": self.digest,
            "algorithm": ALGORITHMS[kind],
            "requester": REQUESTERS[kind],
            "purpose": agreements.PURPOSES[kind],
        }
        return str(self._patiently(lambda: self.api.post("/v1/runs", order))["uid"])

    def run(self, uid: str) -> dict[str, Any]:
        """Return a run as the coordinator knows it, once it answers."""
        return dict(self._patiently(lambda: self.api.get(f"/v1/runs/{uid}")))

    def until(self, uid: str, is_there: Any) -> dict[str, Any]:
        """Watch a run until it is where it should be, or has ended."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            run = self.run(uid)
            if is_there(run) or run["state"] in ENDED:
                return run
            if time.monotonic() > deadline:
                raise NotAccounted(f"run {uid} did not get there within {LIMIT_S:.0f} s: {run}")
            time.sleep(0.02)

    def _patiently(self, ask: Any) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                return ask()
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--table", type=Path, help="Markdown page whose table is written anew")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=MOMENTS)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    with tempfile.TemporaryDirectory() as folder, kept_federation(Path(folder)) as federation:
        finish(federation, started(federation)[0])  # everything warm, everybody known to work
        federation.price = spent(federation)["insurer-a"][1]
        episodes = []
        for victim in given.victims:
            for moment in given.moments:
                episodes.append(episode(federation, victim, moment))
                print(json.dumps(episodes[-1], ensure_ascii=False), flush=True)
        verify(federation)
    worst = max(max(e["endedSeconds"], e["servingSeconds"]) for e in episodes)
    results = {"episodes": episodes, "worstSeconds": worst, "machine": {"cores": os.cpu_count()}}
    given.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.table:
        write_table(given.table, episodes)
    print(f"{len(episodes)} kills, all accounted for; the slowest recovery took {worst:.1f} s")
    return 0


def episode(federation: Kept, victim: str, moment: str) -> dict[str, Any]:
    """Kill one process at one moment of a run; return the times.

    Raises:
        NotAccounted: something was left undone.
    """
    before = spent(federation)
    uid = federation.queue()
    at = federation.until(uid, lambda run: _has_come(run, moment))
    if at["state"] in ENDED:
        raise NotAccounted(f"the run was {at['state']} ({at['reason']}) before the {victim} could be killed")
    killed = time.monotonic()
    federation.keeper.kill(victim)
    ended = federation.until(uid, lambda _: False)
    ended_s = time.monotonic() - killed
    if ended["state"] != "finished" and not all(ended[part] for part in ("reason", "party", "cause", "fix")):
        raise NotAccounted(f"the run ended without a reason: {ended}")
    fresh, tries = started(federation)
    serving_s = time.monotonic() - killed
    finish(federation, fresh)
    after = spent(federation)
    for party, (used, settled) in after.items():
        if used != settled:
            raise NotAccounted(f"{party} still holds a reservation: {used} used, {settled} spent")
        if settled < before[party][1]:
            raise NotAccounted(f"the ledger of {party} went back: {before[party][1]} to {settled}")
    return {
        "victim": victim,
        "moment": moment,
        "outcome": ended["state"],
        "reason": ended["reason"],
        "namedParty": ended["party"],
        "endedSeconds": round(ended_s, 1),
        "servingSeconds": round(serving_s, 1),
        "attempts": tries,
        "runsCharged": {
            party: round((after[party][1] - before[party][1]) / federation.price, 2) for party in sorted(after)
        },
    }


def started(federation: Kept) -> tuple[str, int]:
    """Have a run start; ask again, as an operator does, where one is refused because a node is still away.

    Raises:
        NotAccounted: no run starts any more.
    """
    begun, tries = time.monotonic(), 0
    while True:
        tries += 1
        uid = federation.queue()
        run = federation.until(uid, lambda run: run["state"] in ("authorised", "running"))
        if run["state"] in ("authorised", "running", "finished"):
            return uid, tries
        if time.monotonic() - begun > LIMIT_S:
            raise NotAccounted(f"no run could start any more: {run}")
        time.sleep(1.0)


def finish(federation: Kept, uid: str) -> None:
    """Wait until a run has finished.

    Raises:
        NotAccounted: it ended otherwise.
    """
    run = federation.until(uid, lambda _: False)
    if run["state"] != "finished":
        raise NotAccounted(f"a run without any fault was {run['state']}: {run['reason']} {run['cause']}")


def spent(federation: Kept) -> dict[str, tuple[float, float]]:
    """Return (reserved or spent, spent) of every party of the risk contract, in mu squared."""
    found = {}
    for member in MEMBERS:
        if member.role in ("oem", "insurer"):
            with LedgerView(federation.places.node(member.short) / "ledger.db") as ledger:
                found[member.short] = (ledger.mu2(member.asset), ledger.spent_mu2(member.asset))
    return found


def verify(federation: Kept) -> None:
    """Have the offline verifier judge the log after all that.

    Raises:
        NotAccounted: it found something.
    """
    federation.api.download("/v1/evidence.zip", federation.places.evidence)
    program = Path(sys.executable).parent / "convoy-audit"
    done = subprocess.run([program, "verify", federation.places.evidence], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotAccounted(f"the log does not verify: {done.stdout[-2000:]} {done.stderr[-500:]}")


@contextlib.contextmanager
def kept_federation(
    folder: Path, link_host: str = "127.0.0.1", prefixes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Iterator[Kept]:
    """Found a federation in a folder and keep its processes until the block ends.

    Args:
        folder: empty.
        link_host: address of the SuperLink's public listener.
        prefixes: a command before that of a party's node, by short name: it runs the node elsewhere.
    """
    scenario = scenario_of(RUNS)
    places = Places(folder, "kept")
    home = LinkHome(places.link)
    write_certificates(home, (link_host, "localhost", "127.0.0.1"))
    ports = free_ports(5)
    founding.found_coordinator(
        places, ports[0], channel_port=ports[1], enrolment_port=ports[2], link_home=str(places.link.resolve())
    )
    keeper = Keeper(folder / "log")
    try:
        me = Path(sys.executable).parent
        keeper.add("coordinator", [me / "convoy-coordinator", "serve", "--home", places.coordinator])
        url = f"http://127.0.0.1:{ports[0]}"
        with contextlib.closing(Api(url, places.coordinator / "keys")) as api:
            api.wait_ready(60)
            founding.found(places, scenario, api, lambda _: None)
            contracts = {row["uid"]: row["digest"] for row in api.get("/v1/contracts")["contracts"]}
            python = [sys.executable, "-m"]
            keeper.add(
                "superlink",
                [
                    *(*python, "convoy_coordinator.federation.flower.superlink", "--home", home.path),
                    *("--internal-port", str(ports[3]), "--public-host", link_host, "--public-port", str(ports[4])),
                ],
            )
            _wait(home.ready_file.exists)
            settings = runtimes.server_settings(places, url)
            keeper.add(
                "server-app",
                [
                    *(*python, "convoy_coordinator.federation.flower.server_worker", "--home", home.path),
                    *("--app", runtimes.SERVER_APP),
                    *(f"--setting={name}={value}" for name, value in settings.items()),
                ],
            )
            for member in MEMBERS:
                node = [*python, "convoy_node.flower.supernode", *_node(places, home, member.short)]
                keeper.add(member.short, [*prefixes.get(member.short, ()), *node])
            yield Kept(places, keeper, api, contracts[agreements.UIDS[agreements.RISK]])
    finally:
        keeper.close()


def scenario_of(runs: int) -> Scenario:
    """Return a small world whose budget allows many runs."""
    price = risk_specification().epsilonMicro
    return Scenario(
        drivers=6_000,
        seed=5,
        risk=risk_specification().model_copy(update={"cohortFloor": 1_000}),
        offers=recommend_specification().model_copy(update={"cohortFloor": 100}),
        min_subjects=50,
        cap_micro=runs * price,
        year_cap_micro=runs * price,
        max_runs=10 * runs,
    )


def _node(places: Places, home: LinkHome, short: str) -> list[str | Path]:
    node = places.node(short)
    launch = NodeLaunch(
        party=next(member.id for member in MEMBERS if member.short == short),
        home=node,
        key_file=node / "keys" / "supernode.pem",
        public_key=read_card(node).supernode_key.encode(),
        client_app=runtimes.CLIENT_APP,
    )
    return [a for a in node_arguments(launch, home, home.read_ready().public) if a != "--stop-with-stdin"]


def _wait(is_there: Any) -> None:
    deadline = time.monotonic() + 60
    while not is_there():
        if time.monotonic() > deadline:
            raise NotAccounted("the federation did not come up within a minute")
        time.sleep(0.05)


def _has_come(run: Mapping[str, Any], moment: str) -> bool:
    done, total = run["progress"].get("done", 0), run["progress"].get("total", 0)
    if moment == "authorised":
        return bool(run["state"] in ("authorised", "running"))
    if moment == "half":
        return bool(total and done * 2 >= total)
    return bool(total and done >= total - 1)


def write_table(page: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Put the table of recovery times between the page's two marks."""
    rows = ["| killed | when | the run | named | ended after | next run starts after |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {NAMES[e['victim']]} | {WHEN[e['moment']]} | {e['outcome']}{' (`' + e['reason'] + '`)' if e['reason'] else ''} "
        f"| {e['namedParty'] or ''} | {e['endedSeconds']:.1f} s | {e['servingSeconds']:.1f} s |"
        for e in episodes
    ]
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- recovery: begin -->")
    _, _, after = rest.partition("<!-- recovery: end -->")
    table = "\n".join(rows)
    page.write_text(f"{before}<!-- recovery: begin -->\n{table}\n<!-- recovery: end -->{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
