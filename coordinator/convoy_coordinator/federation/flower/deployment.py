"""A whole federation on one machine: a SuperLink, a ServerApp worker, a SuperNode per party.

Real processes with TLS and node authentication on the loopback, for the demo, tests and
measurements. In production the same three programs run under each organisation's own service
manager.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from convoy_coordinator.federation.flower.control import LinkControl
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome
from convoy_coordinator.federation.flower.pki import write_loopback_certificates
from convoy_coordinator.federation.flower.processes import Supervisor

READY_S: Final = 120.0
_SUPERLINK = "convoy_coordinator.federation.flower.superlink"
_WORKER = "convoy_coordinator.federation.flower.server_worker"
_SUPERNODE = "convoy_node.flower.supernode"


@dataclass(frozen=True, slots=True)
class NodeLaunch:
    """One party's node.

    ``key_file``: private EC key (PEM, 0600) in the party's own folder. ``public_key``: its public
    PEM, as the party registered it with the coordinator. ``client_app``: the application installed
    at the party, ``module:factory``.
    """

    party: str
    home: Path
    key_file: Path
    public_key: bytes
    client_app: str
    message_types: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running federation; ``seconds`` says how long each part took to be ready."""

    home: LinkHome
    supervisor: Supervisor
    control: LinkControl
    app_hash: str
    seconds: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def deployed(
    home: LinkHome,
    nodes: Sequence[NodeLaunch],
    server_app: str,
    *,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    in_memory: bool = True,
) -> Iterator[Deployment]:
    """Start a federation, yield it once every node is online, and stop all of it at the end.

    Args:
        home: the link's folder; certificates are made if there are none.
        server_app: the installed ServerApp, ``module:attribute``.
        settings: for the ServerApp, as ``context.run_config``; paths and addresses, never secrets.
        environment: added to the environment of the ServerApp worker.
        in_memory: keep Flower's state in memory, faster and enough for one run of this function.

    Raises:
        ProcessEnded: a process ended by itself or was not ready in time.
        LinkUnreachable: a node did not come online; the message names it.
    """
    if not home.key_file.exists():
        write_loopback_certificates(home)
    parties = {node.party for node in nodes}
    home.write_membership({DEFAULT_FEDERATION: parties})
    home.ready_file.unlink(missing_ok=True)
    started = time.monotonic()
    with Supervisor(home.path / "log") as supervisor:
        database = "memory" if in_memory else "sqlite"
        supervisor.start(
            "superlink",
            _SUPERLINK,
            ["--home", home.path, "--database", database, "--stop-with-stdin"],
        )
        link_s = supervisor.wait("superlink", home.ready_file.exists, READY_S)
        ready = home.read_ready()
        with LinkControl.of(home) as control:
            for node in nodes:
                control.register(node.party, node.public_key)
            worker = supervisor.start(
                "server-app",
                _WORKER,
                [
                    *("--home", home.path, "--app", server_app, "--stop-with-stdin"),
                    *(f"--setting={name}={value}" for name, value in (settings or {}).items()),
                ],
                environment,
            )
            for node in nodes:
                supervisor.start(node_process(node.party), _SUPERNODE, node_arguments(node, home, ready.public))
            supervisor.wait("server-app", lambda: "ready" in worker.last_words(), READY_S)
            for node in nodes:
                supervisor.wait(
                    node_process(node.party),
                    partial(_is_online, control, node.party),
                    READY_S,
                )
            seconds = {"superlink": link_s, "all": time.monotonic() - started}
            yield Deployment(home, supervisor, control, ready.app_hash, seconds)


def _is_online(control: LinkControl, party: str) -> bool:
    return control.nodes()[party].status == "online"


def node_process(party: str) -> str:
    """Return the supervisor's name of a party's node: fit for a file name."""
    return "node-" + "".join(letter if letter.isalnum() else "-" for letter in party)


def node_arguments(node: NodeLaunch, home: LinkHome, link: str) -> list[str | Path]:
    """Return the arguments of a party's SuperNode.

    The approved bundle is that of this release, as the party's own installation computes it.
    """
    return [
        *("--home", node.home, "--link", link, "--ca", home.ca_file, "--key", node.key_file),
        *("--client-app", node.client_app, "--app-hash", home.read_ready().app_hash),
        *(part for kind in node.message_types for part in ("--message-type", kind)),
        "--stop-with-stdin",
    ]
