"""Run Flower's own client loop behind the guard, with the runtime API for one warm worker.

What of flwr is replaced, by name, in ``flwr.supernode.start_client_internal`` and
``fleet_http_connection``: the connection (by ``Guard.wrap``), the heartbeat's interval, the clock's
``sleep`` (fixed sleeps of 3 s and 0.5 s), and the exit at a refused activation (it would end the
process instead of waiting for the old session to lapse). A contract test pins these names.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import uvicorn
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.supercore import heartbeat
from flwr.supercore.exit import add_exit_handler
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from convoy_contracts.operations.serving import KEEP_ALIVE_S
from convoy_node.flower import lifetime
from convoy_node.flower.connection import Guard, Patience
from convoy_node.flower.errors import ActivationRefused, NodeHomeUnusable
from convoy_node.flower.passages import PassageLog
from convoy_node.flower.policy import Policy
from convoy_node.flower.private_files import read_private, write_private
from convoy_node.flower.worker_process import WorkerProcess

_LOG = logging.getLogger(__name__)
_LOOPBACK: Final = "127.0.0.1"
_SLEEP_S: Final = 0.01
_FIRST_BACKOFF_S: Final = 0.05
_HEARTBEAT_S: Final = 15
"""A node is taken for lost after twice this time. Flower's own 30 s would mean a minute."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How one SuperNode is run.

    ``link``: host:port of the SuperLink's public listener. ``ca_file``: PEM of the CA that it must
    show. ``key_file``: the node's own EC key, mode 0600. ``client_app``: ``module:factory`` of the
    installed application.
    """

    home: Path
    link: str
    ca_file: Path
    key_file: Path
    client_app: str
    policy: Policy
    patience: Patience = field(default_factory=Patience)


def run(settings: NodeSettings) -> None:
    """Serve the SuperLink until SIGTERM or SIGINT, or until the node is unregistered.

    Raises:
        NodeHomeUnusable: a key or certificate cannot be used.
        ActivationRefused: the SuperLink refused for longer than ``patience.give_up_s``.
        WorkerEnded: the application could not be started.
    """
    key = _private_key(settings.key_file)
    certificate = _certificate(settings.ca_file)
    folder = settings.home / "flower"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = secrets.token_hex(32).encode()
    write_private(folder / "runtime.key", secret)

    state = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    address = _serve_runtime_api(create_app(state_factory=state, superexec_auth_secret=secret))
    worker = WorkerProcess(
        [
            *("--home", str(settings.home)),
            *("--client-app", settings.client_app),
            *("--runtime", address),
        ],
        on_lost=lifetime.terminate_self,
    )
    worker.start()
    add_exit_handler(worker.stop)
    guard = Guard(
        settings.policy,
        PassageLog(settings.home / "log" / "flower.jsonl"),
        settings.patience,
        on_delivered=worker.wake,
    )
    _adapt(guard)
    try:
        start_client_internal.start_client_internal(
            state_factory=state,
            server_address=settings.link,
            node_config={},
            root_certificates=certificate,
            insecure=False,
            authentication_keys=(key, key.public_key()),
            isolation=ISOLATION_MODE_PROCESS,
            runtime_api_address=address,
            superexec_auth_secret=secret,
        )
    finally:
        worker.stop()


class _Clock:
    """Flower's ``time`` module with short sleeps: what it waits for is in this process."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep, but never as long as Flower's loop would."""
        time.sleep(min(seconds, _SLEEP_S))


def _adapt(guard: Guard) -> None:
    start_client_internal.http_request_response = guard.wrap(fleet_http_connection.http_request_response)
    start_client_internal.time = _Clock()
    fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = _HEARTBEAT_S
    heartbeat.HEARTBEAT_DEFAULT_INTERVAL = _HEARTBEAT_S
    fleet_http_connection.flwr_exit = _refused
    inflatable_utils.pull_objects.__kwdefaults__["initial_backoff"] = _FIRST_BACKOFF_S


def _refused(code: int, message: str = "", **_: Any) -> NoReturn:
    raise ActivationRefused(
        f"the SuperLink does not let this node in: {' '.join(message.split())}",
        fix="Register this node's key at the coordinator. After a crash, wait: the SuperLink keeps "
        "the old session for half a minute.",
    )


def _serve_runtime_api(app: Any) -> str:
    """Serve Flower's runtime API to the worker, on a free loopback port; returns ``host:port``."""
    listener = socket.socket()
    listener.bind((_LOOPBACK, 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, timeout_keep_alive=KEEP_ALIVE_S
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="runtime-api", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(_SLEEP_S)
    return f"{_LOOPBACK}:{listener.getsockname()[1]}"


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    content = read_private(path)
    try:
        if b"BEGIN OPENSSH" in content:
            key: object = load_ssh_private_key(content, None)
        else:
            key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NodeHomeUnusable(
            f"{path} is not a private key ({type(error).__name__}).",
            fix="Use an unencrypted PEM key on a NIST curve.",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NodeHomeUnusable(f"{path} is not an elliptic-curve key.", fix="Use a key on a NIST curve (P-256, P-384).")
    return key


def _certificate(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NodeHomeUnusable(
            f"{path} cannot be read ({type(error).__name__}).",
            fix="Store the coordinator's CA certificate there.",
        ) from error
    if not os.path.getsize(path):
        raise NodeHomeUnusable(f"{path} is empty.", fix="Store the coordinator's CA there.")
    return content
