"""Ask each of N nodes for an echo, some times over; write the seconds of each exchange to a file."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server = ServerApp()
client = ClientApp()


@client.query("echo")
def echo(message: Message, _context: Context) -> Message:
    """Answer with what came."""
    return Message(message.content, reply_to=message)


def installed(_home: Path) -> ClientApp:
    """Return the client application, as a node's factory."""
    return client


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Wait for every node, then exchange and time it."""
    settings = context.run_config
    nodes: list[int] = []
    while len(nodes) < int(settings["nodes"]):
        time.sleep(0.2)
        nodes = list(grid.get_node_ids())
    words, seconds = np.arange(int(settings["words"]), dtype=np.int64), []
    for _ in range(int(settings["exchanges"])):
        content = RecordDict({"arrays": ArrayRecord({"words": Array(words)})})
        questions = [Message(content, node, "query.echo") for node in nodes]
        begun = time.monotonic()
        replies = list(grid.send_and_receive(questions, timeout=120))
        seconds.append(time.monotonic() - begun)
        if len(replies) != len(nodes) or any(reply.has_error() for reply in replies):
            raise RuntimeError("an exchange was not answered by every node")
    out = Path(str(settings["out"]))
    beside = out.with_suffix(".part")
    beside.write_text(json.dumps(seconds), encoding="utf-8")
    beside.replace(out)
