"""Check docker-compose.yml, and run what it says without an engine.

    python deploy/compose_check.py [--no-run | --demo] [--file docker-compose.yml]

First the file: the Compose Specification's schema and our rules (``compose_rules``). Then the topology (``compose_run``): make
a home on PostgreSQL, start coordinator, SuperLink and ServerApp worker, invite an insurer and an auditor, join with their
tickets, approve, start both nodes; wait for every health check; see that both witnesses have cosigned the log, that the
SuperNode is connected, that ``doctor`` finds nothing, that control and runtime APIs are not at the published port; stop all.
Exit code 0 where all is well, 1 with every fault on standard output otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import compose_rules
from compose_file import ComposeFault, filled, read
from compose_run import Topology, new_password

ROOT: Final = Path(__file__).resolve().parents[1]
DEMO_S: Final = 900.0
DEFAULTS: Final = {"CONVOY_NAME": "localhost"}
PARTNERS: Final = (
    ("Compose Insurer", "insurer", "node", "ticket"),
    ("Compose Auditor", "auditor", "auditor", "auditor_ticket"),
)


def main() -> int:
    """Check, and say what was found."""
    line = argparse.ArgumentParser(description="Check docker-compose.yml, and run what it says as local processes.")
    line.add_argument("--file", type=Path, default=ROOT / "docker-compose.yml")
    line.add_argument("--no-run", action="store_true", help="only the file")
    line.add_argument("--demo", action="store_true", help="also the profile demo, a minute or two")
    given = line.parse_args()
    try:
        compose = filled(read(given.file), {**DEFAULTS, **os.environ})
        faults = compose_rules.findings(compose, given.file.resolve().parent)
        for fault in faults:
            print(f"FAULT  {fault}")
        if faults:
            return 1
        print(f"ok     {given.file.name}: {len(compose['services'])} services, schema and rules")
        if not given.no_run:
            with tempfile.TemporaryDirectory(prefix="convoy-compose-") as scratch:
                run(compose, given.file.resolve().parent, Path(scratch))
                if given.demo:
                    demo(compose, given.file.resolve().parent, Path(scratch) / "demo")
    except ComposeFault as fault:
        print(f"FAULT  {fault}")
        return 1
    return 0


def run(compose: dict[str, Any], root: Path, scratch: Path) -> None:
    """Run the topology once.

    Raises:
        ComposeFault: something was not as it must be.
    """
    topology = Topology(compose, root, scratch)
    began = time.monotonic()
    password = new_password()
    _write(topology.secret("database_password"), password)
    # As docs/deployment.md has it: the host is the service's name, the port the container's.
    url = topology.translated("coordinator", "postgresql://convoy:PASSWORD@postgres:5432/convoy")
    _write(topology.secret("database_url"), url.replace("PASSWORD", password))
    try:
        told("postgres is healthy", topology.up("postgres"))
        topology.once("coordinator-init")
        for service in ("coordinator", "superlink", "server-app"):
            told(f"{service} is healthy", topology.up(service))
        for name, role, service, ticket in PARTNERS:
            administrator = ["convoy-coordinator", "invite", name, "--role", role, "--home", "/state", "--json"]
            invited = json.loads(topology.once("coordinator", command=administrator))
            _write(topology.secret(ticket), invited["text"])
            asked = json.loads(topology.once(f"{service}-join", "--json"))
            approve = ["convoy-coordinator", "approve", asked["fingerprint"], "--home", "/state", "--json"]
            topology.once("coordinator", command=approve)
            told(f"{service} has joined as {invited['party']} and is healthy", topology.up(service))
        _take_part(topology)
        _closed(topology)
    finally:
        codes = topology.down()
    bad = {service: code for service, code in codes.items() if code not in (0, -15)}
    if bad:
        raise ComposeFault(f"did not end by themselves when told to: {bad}")
    told("everything has stopped when told to; the whole run", time.monotonic() - began)


def demo(compose: dict[str, Any], root: Path, scratch: Path) -> None:
    """Run the profile ``demo`` to its end.

    Raises:
        ComposeFault: it did not end well, or left no summary.
    """
    topology, began = Topology(compose, root, scratch), time.monotonic()
    topology.once("demo", within_s=DEMO_S)
    summary = json.loads((topology.place("demo", "/state/demo") / "summary.json").read_text(encoding="utf-8"))
    if not summary["audit"]["verified"]:
        raise ComposeFault("the demo's log was not verified")
    told("the demo has trained both models, and its log is verified", time.monotonic() - began)


def _take_part(topology: Topology) -> None:
    listing = ["convoy-coordinator", "parties", "--home", "/state", "--json"]

    def witnessed() -> bool:
        return all(row["witness"]["size"] for row in json.loads(topology.once("coordinator", command=listing)))

    told("both witnesses have cosigned the log", _until(witnessed, "a witness has not cosigned"))
    log = topology.place("node", "/state/node") / "log" / "supernode.log"

    def connected() -> bool:
        return log.exists() and "connected as Flower node" in log.read_text(encoding="utf-8", errors="replace")

    told("the insurer's SuperNode is connected", _until(connected, "the SuperNode is not connected"))
    for _, _, service, _ in PARTNERS:
        topology.once(service, command=["convoy-node", "doctor", "--home", "/state/node", "--json"])
    told("doctor finds nothing at either node")


def _closed(topology: Topology) -> None:
    ca = topology.place("superlink", "/link") / "tls" / "ca.pem"
    context = ssl.create_default_context(cafile=str(ca))
    for path in ("control/start-run", "control/register-node", "runtime/acquire-task"):
        request = urllib.request.Request(f"https://localhost:{topology.ports['8000']}/v1/{path}", b"", method="POST")
        try:
            urllib.request.urlopen(request, timeout=10, context=context)  # noqa: S310 - https, and our own
        except urllib.error.HTTPError as error:
            if error.code == 404:
                continue
        raise ComposeFault(f"the published port of the SuperLink answers /v1/{path}")
    told("control and runtime APIs are not at the published port")


def told(what: str, seconds: float | None = None) -> None:
    """Say that something is well."""
    print(f"ok     {what}" + (f"  ({seconds:.1f} s)" if seconds is not None else ""), flush=True)


def _until(true: Callable[[], bool], otherwise: str, seconds: float = 120.0) -> float:
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise ComposeFault(f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.3)
    return time.monotonic() - began


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
