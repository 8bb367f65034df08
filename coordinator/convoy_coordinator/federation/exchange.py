"""One exchange: a question to some nodes, their answers, and the sealed mail between them.

Guarantees: every node that was asked answered, or the exchange raises and names the node; a sealed blob is moved to its
addressee and to nobody else; nothing is retried here, because a tag must never be used twice.
Does not look into blobs: they are sealed for another node.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from convoy_coordinator.federation.errors import NodeFailed, NodeLost, NodeRefused, ProtocolBroken
from convoy_coordinator.federation.flower.records import from_record, to_record
from convoy_models.messages import Payload

REPLY_TIMEOUT_S = 300.0
"""Longer than Flower's 180 s object-push session and its 60 s heartbeat lapse (reference/flower.md §2.3)."""
TTL_S = 900.0


class Watch(Protocol):
    """Told of every exchange, for progress and for the figures of a run."""

    def exchanged(self, action: str, seconds: float, messages: int, blob_bytes: int) -> None:
        """Take note of one exchange."""


@dataclass(slots=True)
class Figures:
    """What a run moved: totals by action.

    ``seconds`` wall time, ``messages`` questions asked, ``blob_bytes`` sealed bytes relayed between nodes.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=dict)
    exchanges: dict[str, int] = field(default_factory=dict)
    blob_bytes: int = 0

    def exchanged(self, action: str, seconds: float, messages: int, blob_bytes: int) -> None:
        """Add one exchange."""
        self.seconds[action] = self.seconds.get(action, 0.0) + seconds
        self.messages[action] = self.messages.get(action, 0) + messages
        self.exchanges[action] = self.exchanges.get(action, 0) + 1
        self.blob_bytes += blob_bytes


class Exchange:
    """Ask nodes by party name and carry their sealed mail.

    Args:
        grid: Flower's grid (embedded or deployed, it makes no difference here).
        nodes: Flower node id by party id.
        group: Flower's group id for every message, here the run's uid.
        watch: told of every exchange.
    """

    def __init__(self, grid: Grid, nodes: Mapping[str, int], group: str, watch: Watch) -> None:
        self._grid = grid
        self._nodes = dict(nodes)
        self._group = group
        self._watch = watch
        self._mail: dict[str, dict[str, bytes]] = {}
        self._statements: list[bytes] = []

    @property
    def parties(self) -> tuple[str, ...]:
        """Every party whose node is connected."""
        return tuple(sorted(self._nodes))

    def ask(self, questions: Mapping[str, tuple[str, Payload]]) -> dict[str, Payload]:
        """Ask each party its own question and return the answers.

        Args:
            questions: (action, payload) by party id; waiting mail for the party is added to its payload.

        Raises:
            NodeRefused: a node refused; the first refusal by party name, the others are in the log of their nodes.
            NodeLost: a node did not answer within ``REPLY_TIMEOUT_S``.
            NodeFailed: a node's runtime answered with an error.
        """
        started = time.monotonic()
        messages, moved = [], 0
        by_node = {self._nodes[party]: party for party in questions if party in self._nodes}
        for party, (action, payload) in sorted(questions.items()):
            if party not in self._nodes:
                raise NodeLost("its node is not connected", party=party, fix="Start the node and run again.")
            mail = self._mail.pop(party, {})
            moved += sum(map(len, mail.values()))
            full = Payload(payload.data, {**payload.blobs, **mail}, payload.arrays)
            messages.append(
                Message(
                    to_record(full),
                    self._nodes[party],
                    f"query.{action}",
                    ttl=TTL_S,
                    group_id=self._group,
                )
            )
        replies = self._grid.send_and_receive(messages, timeout=REPLY_TIMEOUT_S)
        answers: dict[str, Payload] = {}
        failed: dict[str, str] = {}
        for reply in replies:
            party = by_node.get(reply.metadata.src_node_id, "")
            if not party:
                raise ProtocolBroken("an answer from a node that was not asked")
            if reply.has_error():
                failed[party] = f"Flower error {reply.error.code}"
            else:
                answers[party] = from_record(reply.content)
        actions = "+".join(sorted({action for action, _ in questions.values()}))
        self._watch.exchanged(actions, time.monotonic() - started, len(messages), moved)
        self._keep_statements(answers)
        self._raise_unless_all_answered(questions, answers, failed)
        for party, answer in answers.items():
            self._collect(party, answer)
        return answers

    def take_statements(self) -> list[bytes]:
        """Return the signed statements that came with answers and refusals since the last call, in order."""
        taken, self._statements = self._statements, []
        return taken

    def _keep_statements(self, answers: Mapping[str, Payload]) -> None:
        for party in sorted(answers):
            listed = answers[party].data.get("statements")
            for text in listed if isinstance(listed, list) else []:
                try:
                    self._statements.append(b64decode(str(text), validate=True))
                except ValueError as error:
                    raise ProtocolBroken("a statement that is no base64", party=party) from error

    def _raise_unless_all_answered(
        self,
        questions: Mapping[str, tuple[str, Payload]],
        answers: Mapping[str, Payload],
        failed: Mapping[str, str],
    ) -> None:
        for party in sorted(answers):
            refused = answers[party].data.get("refused")
            if isinstance(refused, dict):
                raise NodeRefused(
                    str(refused.get("cause", "refused")),
                    party=str(refused.get("party", party)),
                    code=str(refused.get("code", NodeRefused.code)),
                    fix=str(refused.get("fix", "")),
                    reasons=tuple(map(str, refused.get("reasons", ()))),
                )
        for party in sorted(failed):
            raise NodeFailed(
                f"its node answered with an error ({failed[party]})",
                party=party,
                fix="The diagnostic is in the node's own log; mend the cause there and run again.",
            )
        for party in sorted(set(questions) - set(answers)):
            raise NodeLost(
                f"its node did not answer within {REPLY_TIMEOUT_S:.0f} s",
                party=party,
                fix="Check that the node is up (convoy-node status) and run again.",
            )

    def _collect(self, sender: str, answer: Payload) -> None:
        for name, blob in answer.blobs.items():
            kind, _, rest = name.partition("|")
            addressee, _, tag = rest.partition("|")
            if kind != "to" or not tag or addressee not in self._nodes:
                raise ProtocolBroken(f"mail {name!r} has no addressee in this run", party=sender)
            self._mail.setdefault(addressee, {})[f"from|{sender}|{tag}"] = blob
