"""What the coordinator asks of its own SuperLink: register nodes, start, watch and stop runs.

Speaks Flower's control API on the loopback, with the token of the link's folder; the ``flwr``
command line is not needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from convoy_coordinator.federation.flower.app_bundle import APP_ID
from convoy_coordinator.federation.flower.errors import LinkRefused, LinkUnreachable
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome

_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """A registered node; ``status`` is ``registered``, ``online`` or ``offline``."""

    node_id: int
    party: str
    status: str


@dataclass(frozen=True, slots=True)
class RunStanding:
    """Where a Flower run stands.

    ``status`` is pending, starting, running or finished; ``outcome`` is empty until it is finished,
    then completed, failed or stopped. ``bytes_sent`` and ``bytes_received`` are the SuperLink's own
    counts towards and from its nodes.
    """

    run_id: int
    status: str
    outcome: str
    details: str
    bytes_sent: int
    bytes_received: int


class LinkControl:
    """The control API of one SuperLink.

    Args:
        address: ``host:port`` of the internal listener.
        ca_certificate: PEM of the CA that signed the link's certificate.
        token: of the link's folder.
    """

    def __init__(self, address: str, ca_certificate: bytes, token: str) -> None:
        self._client = ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=ca_certificate,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI"), _Bearer(token)],
        )

    @classmethod
    def of(cls, home: LinkHome) -> Self:
        """Connect to the running SuperLink of a folder."""
        return cls(home.read_ready().internal, home.ca_file.read_bytes(), home.control_token())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def register(self, party: str, public_key: bytes) -> int:
        """Let a node's key in under the party's name; return its number. Repeating changes nothing.

        Args:
            public_key: PEM of a NIST curve key.

        Raises:
            LinkRefused: the key is unusable, or belongs to another party already.
        """
        request = RegisterNodeRequest(public_key=public_key, name=party)
        try:
            return int(_call(self._client.RegisterNode, request).node_id)
        except LinkRefused as refusal:
            if refusal.code != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE.name:
                raise
            nodes = _call(self._client.ListNodes, ListNodesRequest()).nodes_info
            mine = [node for node in nodes if node.public_key == public_key and node.name == party]
            if not mine:
                raise
            return int(mine[0].node_id)

    def unregister(self, node_id: int) -> None:
        """Withdraw a node's key; its SuperNode gets 401 at its next request and ends."""
        _call(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def nodes(self) -> dict[str, NodeStanding]:
        """Return the registered nodes by party; those that were unregistered are left out."""
        found = _call(self._client.ListNodes, ListNodesRequest()).nodes_info
        return {
            node.name: NodeStanding(int(node.node_id), node.name, node.status)
            for node in found
            if node.status != NodeStatus.UNREGISTERED
        }

    def registered(self) -> list[tuple[int, str, bytes]]:
        """Return (node's number, party, public key in PEM) of every key that is registered."""
        found = _call(self._client.ListNodes, ListNodesRequest()).nodes_info
        return [
            (int(node.node_id), node.name, bytes(node.public_key))
            for node in found
            if node.status != NodeStatus.UNREGISTERED
        ]

    def start_run(self, app_hash: str, *, federation: str = DEFAULT_FEDERATION, run: str = "") -> int:
        """Start a run with the stored bundle of this hash and return Flower's number of it.

        Args:
            run: Convoy's own id of the run; the ServerApp finds it as
                ``context.run_config["run"]``. Nodes see it too.

        Raises:
            LinkRefused: there is no such bundle or federation.
        """
        request = StartRunRequest(
            fab=Fab(hash_str=app_hash),
            app_spec=APP_ID,
            federation=federation,
            override_config=user_config_to_proto({"run": run}),
        )
        return int(_call(self._client.StartRun, request).run_id)

    def stop_run(self, run_id: int) -> None:
        """Stop a run: its messages are dropped and its ServerApp loses its right to send."""
        _call(self._client.StopRun, StopRunRequest(run_id=run_id))

    def run(self, run_id: int) -> RunStanding:
        """Return where a run stands."""
        run = _call(self._client.ListRuns, ListRunsRequest(run_id=run_id)).run_dict[run_id]
        status = run.status
        return RunStanding(run_id, status.status, status.sub_status, status.details, run.bytes_sent, run.bytes_recv)

    def wait_online(self, parties: set[str], timeout_s: float) -> dict[str, NodeStanding]:
        """Wait until the nodes of all the parties are online.

        Raises:
            LinkUnreachable: some were not in time; the message names them.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            nodes = self.nodes()
            online = {party for party, node in nodes.items() if node.status == "online"}
            if parties <= online:
                return nodes
            if time.monotonic() > deadline:
                late = ", ".join(sorted(parties - online))
                raise LinkUnreachable(
                    f"not online after {timeout_s:.0f} s: {late}",
                    party=min(parties - online),
                    fix="Read the log of the node: address, CA and key are named there.",
                )
            time.sleep(_POLL_S)


class _Bearer:
    """Adds the token to each control request."""

    def __init__(self, token: str) -> None:
        self._value = f"Bearer {token}"

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        context.request.headers["authorization"] = self._value
        return call_next(context)


def _call(method: Callable[[Any], Any], request: Any) -> Any:
    try:
        return method(request)
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        raise LinkRefused(
            said.message if said else f"HTTP {error.response.status_code}",
            code=ApiErrorCode(said.code).name if said else LinkRefused.code,
            fix="See the SuperLink's log; the code is Flower's.",
        ) from error
    except httpx.TransportError as error:
        raise LinkUnreachable(
            f"the SuperLink does not answer ({type(error).__name__})",
            fix="Check that it runs and that this machine trusts its CA.",
        ) from error
