"""The Flower ClientApp: one function per action, nothing else. The partner's installed code; code in a bundle is never run.

The only module of this package outside ``flower/`` that imports flwr.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from convoy_contracts.operations.logs import about
from convoy_contracts.operations.traces import span
from convoy_models.errors import ModelsError
from convoy_models.messages import Payload
from convoy_node.flower.records import from_record, to_record
from convoy_node.runtime import NodeRuntime

log = logging.getLogger(__name__)


def make_client_app(runtime: NodeRuntime) -> ClientApp:
    """Return a ClientApp that answers ``query.<action>`` by the runtime."""
    app = ClientApp()
    for action in runtime.actions:
        app.query(action)(_answer(runtime, action))
    return app


def create(home: Path) -> ClientApp:
    """Open a node's folder and return its ClientApp; what the warm worker of a SuperNode calls."""
    return make_client_app(NodeRuntime(home))


def _answer(runtime: NodeRuntime, action: str) -> Callable[[Message, Context], Message]:
    def answer(message: Message, _context: Context) -> Message:
        with about(action=action, message=message.metadata.message_id):
            try:
                reply = _handled(runtime, action, from_record(message.content))
            except ModelsError as error:
                reply = runtime.refuse(action, error)
            log.info("answered")
        return Message(to_record(reply), reply_to=message)

    return answer


def _handled(runtime: NodeRuntime, action: str, asked: Payload) -> Payload:
    run = asked.data.get("run")
    with about(run=run), span(f"node {action}", run=run if isinstance(run, str) else "", party=runtime.party) as seen:
        reply = runtime.handle(action, asked)
        if reply.refused is not None:
            seen.note(code=str(reply.refused.get("code", "")))
    return reply
