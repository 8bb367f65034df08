"""The service for nodes that join: they have a ticket and no certificate yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from convoy_contracts.instants import timestamp
from convoy_contracts.wire import PROTOCOLS, partner_pb2, partner_pb2_grpc
from convoy_coordinator.channel.calls import Calls
from convoy_coordinator.enrolment.service import Answer, EnrolmentService
from convoy_coordinator.errors import Problem
from convoy_coordinator.journal import Clock

Endpoints = Callable[[], partner_pb2.Endpoints]


@dataclass(frozen=True, slots=True)
class About:
    """What the coordinator says of itself before it knows who asks."""

    federation: str
    log_keys: tuple[str, ...]
    software: str


class EnrolmentServicer(partner_pb2_grpc.EnrolmentServicer):
    """``convoy.partner.v1.Enrolment``."""

    def __init__(
        self, calls: Calls, enrolment: EnrolmentService, about: About, endpoints: Endpoints, clock: Clock
    ) -> None:
        self._calls = calls
        self._enrolment = enrolment
        self._about = about
        self._endpoints = endpoints
        self._clock = clock

    async def Describe(self, request: Any, context: Any) -> Any:
        """Say who is here, with the log's keys: the ticket tells whether they are the right ones."""

        async def work() -> Any:
            return partner_pb2.DescribeReply(
                federation=self._about.federation,
                protocol=common_protocol(request.protocols),
                time=timestamp(self._clock()),
                log_keys=self._about.log_keys,
                software=self._about.software,
            )

        return await self._calls.answer(request, context, "Describe", work)

    async def Enrol(self, request: Any, context: Any) -> Any:
        """Take a request, or tell how it stands."""

        async def work() -> Any:
            answer: Answer = await self._calls.run(
                self._enrolment.request, request.ticket, request.secret, request.card, request.csr, request.proof
            )
            if answer.state != "approved" or answer.certificate is None:
                return partner_pb2.EnrolReply(state=partner_pb2.EnrolReply.PENDING, fingerprint=answer.fingerprint)
            return partner_pb2.EnrolReply(
                state=partner_pb2.EnrolReply.APPROVED,
                fingerprint=answer.fingerprint,
                certificate=answer.certificate.encode(),
                endpoints=await self._calls.run(self._endpoints),
            )

        return await self._calls.answer(request, context, "Enrol", work)


def common_protocol(theirs: Any) -> int:
    """Return the newest version that both sides speak.

    Raises:
        Problem: PROTOCOL_UNSUPPORTED.
    """
    common = set(PROTOCOLS) & set(theirs)
    if not common:
        raise Problem(
            "PROTOCOL_UNSUPPORTED", f"the node speaks {sorted(theirs)[:20]}, the coordinator {list(PROTOCOLS)}"
        )
    return max(common)
