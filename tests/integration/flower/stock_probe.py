"""The ServerApp of the test with a stock SuperNode: one question to the one node."""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask, and write down the answer."""
    (node,) = [node for node in grid.get_node_ids() if node != 1]
    (reply,) = grid.send_and_receive([Message(RecordDict(), node, "query.hello", ttl=120)], timeout=120)
    seen = {"error": str(reply.error.reason)} if reply.has_error() else {"said": reply.content["said"]["by"]}
    file = Path(str(context.run_config["results"])) / f"{context.run_config['run']}.json"
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(seen))
    beside.rename(file)
