"""The applications that are "installed" at the nodes and the coordinator of the deployment test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from convoy_models.messages import Payload

SECRET = "premium of driver 4711"
PARTIES = tuple(f"did:web:{name}.example" for name in ("oem", "insurer-a", "insurer-b"))


def client_app(home: Path) -> ClientApp:
    """Build the application of one node."""
    from convoy_node.flower.records import from_record, to_record

    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        asked = from_record(message.content)
        data = {"home": home.name, **asked.data}
        return Message(to_record(Payload(data, {}, asked.arrays)), reply_to=message)

    @app.query("close")
    def fail(message: Message, context: Context) -> Message:
        raise ValueError(SECRET)

    @app.query("share")
    def slow(message: Message, context: Context) -> Message:
        time.sleep(from_record(message.content).data["seconds"])
        return Message(to_record(Payload()), reply_to=message)

    return app


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the scene that the run is named after and write down what was seen."""
    seen = SCENES[str(context.run_config["run"])](grid, Path(str(context.run_config["results"])))
    file = Path(str(context.run_config["results"])) / f"{context.run_config['run']}.json"
    file.write_text(json.dumps(seen))


def question(node: int, action: str, payload: Payload | None = None) -> Message:
    from convoy_coordinator.federation.flower.records import to_record

    return Message(to_record(payload or Payload()), node, f"query.{action}", ttl=120)


def said(replies: list[Message]) -> dict[int, str]:
    """Return, by node, "ok" or the reason of the error."""
    return {reply.metadata.src_node_id: str(reply.error.reason) if reply.has_error() else "ok" for reply in replies}


def by_party(grid: Grid, answers: dict[int, str]) -> dict[str, str]:
    from convoy_coordinator.federation.flower.gated_grid import grid_nodes

    return {party: answers.get(node, "silent") for party, node in grid_nodes(grid).items()}


def exchange(grid: Grid, results: Path) -> dict[str, Any]:
    """Ask every node, a few times, and keep the times and the content hashes."""
    from convoy_coordinator.federation.flower.gated_grid import GatedGrid, Passage, grid_nodes
    from convoy_coordinator.federation.flower.records import from_record

    passages: list[Passage] = []
    gated = GatedGrid(grid, observer=passages.append)
    nodes, seconds, homes = grid_nodes(gated), [], {}
    vector = np.arange(1_000, dtype=np.uint64)
    for number in range(8):
        asked = Payload({"number": number}, {}, {"q": vector})
        started = time.perf_counter()
        replies = gated.send_and_receive([question(node, "hello", asked) for node in nodes.values()], timeout=30)
        seconds.append(time.perf_counter() - started)
        for reply in replies:
            answer = from_record(reply.content)
            homes[reply.metadata.src_node_id] = answer.data["home"]
            if answer.data["number"] != number or answer.arrays["q"].sum() != vector.sum():
                raise ValueError("an answer is not that of its question")
    return {
        "homes": {party: homes.get(node) for party, node in nodes.items()},
        "seconds": seconds,
        "delivered": [p.message_id for p in passages if p.direction == "deliver"],
        "replied": [p.message_id for p in passages if p.direction == "reply"],
    }


def failure(grid: Grid, results: Path) -> dict[str, str]:
    """Ask for what makes the application raise."""
    nodes = list(grid.get_node_ids())
    return by_party(grid, said(grid.send_and_receive([question(n, "close") for n in nodes], timeout=30)))


def forbidden(grid: Grid, results: Path) -> dict[str, str]:
    """Send a message of a type that no partner accepts."""
    nodes = list(grid.get_node_ids())
    messages = [Message(RecordDict(), node, "train", ttl=120) for node in nodes]
    return by_party(grid, said(grid.send_and_receive(messages, timeout=30)))


def withdrawn(grid: Grid, results: Path) -> dict[str, list[str]]:
    """Ask all nodes before and after one of them was withdrawn."""
    from convoy_coordinator.federation.flower.gated_grid import grid_nodes

    nodes = grid_nodes(grid)
    rounds = []
    for name in ("before", "after"):
        replies = grid.send_and_receive([question(n, "hello") for n in nodes.values()], timeout=30)
        answers = said(replies)
        rounds.append(sorted(party for party, n in nodes.items() if answers.get(n) == "ok"))
        (results / f"withdrawn-{name}").touch()
        while not (results / "withdrawn-go").exists():
            time.sleep(0.05)
    return {"before": rounds[0], "after": rounds[1], "listed": sorted(grid_nodes(grid))}


def endless(grid: Grid, results: Path) -> dict[str, str]:
    """Ask for something that takes longer than the run may live."""
    (node, *_) = grid.get_node_ids()
    (results / "endless-begun").touch()
    grid.send_and_receive([question(node, "share", Payload({"seconds": 3}))], timeout=60)
    return {}


SCENES: dict[str, Callable[[Grid, Path], Any]] = {
    "exchange": exchange,
    "failure": failure,
    "forbidden": forbidden,
    "withdrawn": withdrawn,
    "endless": endless,
    "again": exchange,
}
