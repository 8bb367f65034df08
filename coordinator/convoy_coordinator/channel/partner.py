"""The service for enrolled nodes: every call is the party of its certificate, and nobody else.

Nothing of a call's content says who calls. Work is done by the same services as on HTTP, so both refuse the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from convoy_audit.checkpoint import peek
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import (
    AuthorityAnnounced,
    ContractActivated,
    ContractChanged,
    ContractOffered,
    ContractSigned,
    PartyDeparted,
    PartyEnrolled,
    PartyRevoked,
    PartyRotated,
    ReleasePublished,
    ReleaseRecalled,
    WitnessFollowed,
)
from convoy_contracts.instants import timestamp
from convoy_contracts.wire import partner_pb2, partner_pb2_grpc
from convoy_coordinator.channel.calls import Calls
from convoy_coordinator.channel.enrolling import Endpoints, common_protocol
from convoy_coordinator.channel.streams import MAX_PER_PARTY, Streams, pause
from convoy_coordinator.contracts.routes import SignatureEntry
from convoy_coordinator.contracts.service import ContractService, ContractView
from convoy_coordinator.enrolment.access import AccessService, Caller
from convoy_coordinator.enrolment.authorities import Succession
from convoy_coordinator.errors import Problem
from convoy_coordinator.intake import Intake
from convoy_coordinator.journal import Clock
from convoy_coordinator.log import LogService
from convoy_coordinator.releases.service import ReleaseService

MAX_STATEMENTS: Final = 100
CHUNK_BYTES: Final = 256 * 1024
BATCH: Final = 500
HEARTBEAT_S: Final = 1.0
TOLD: Final = (
    PartyEnrolled, PartyRotated, PartyRevoked, PartyDeparted, WitnessFollowed, ContractOffered, ContractSigned,
    ContractActivated, ContractChanged, ReleasePublished, ReleaseRecalled, AuthorityAnnounced,
)  # fmt: skip
"""The events that a stream carries: what changes whom and what a node may believe."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the channel serves."""

    access: AccessService
    succession: Succession
    intake: Intake
    log: LogService
    contracts: ContractService
    releases: ReleaseService
    clock: Clock
    software: str


class PartnerServicer(partner_pb2_grpc.PartnerServicer):
    """``convoy.partner.v1.Partner``."""

    def __init__(self, calls: Calls, services: Services, streams: Streams, endpoints: Endpoints) -> None:
        self._calls = calls
        self._services = services
        self._streams = streams
        self._endpoints = endpoints

    async def Hello(self, request: Any, context: Any) -> Any:
        """Agree on a version; refuse a node that claims another role."""

        def hello(caller: Caller) -> Any:
            party = caller.party
            if request.role != party.role:
                raise Problem(
                    "ROLE_NOT_ENROLLED",
                    f"{party.id} is {party.role}, the node says {request.role[:40]!r}",
                    party=party.id,
                )
            return partner_pb2.HelloReply(
                protocol=common_protocol(request.protocols),
                party=party.id,
                role=party.role,
                time=timestamp(self._services.clock()),
                certificate_not_after=timestamp(caller.certificate.not_after),
                endpoints=self._endpoints(),
                last_statement=self._services.intake.heads.last(party.id),
                software=self._services.software,
                authority=self._services.succession.evidence(),
            )

        return await self._serve(request, context, "Hello", hello)

    async def State(self, request: Any, context: Any) -> Any:
        """Bring statements to the log."""

        def state(caller: Caller) -> Any:
            if not 0 < len(request.statements) <= MAX_STATEMENTS:
                raise Problem(
                    "MESSAGE_TOO_LARGE", f"{len(request.statements)} statements; 1 to {MAX_STATEMENTS} at a time"
                )
            indexes = self._services.intake.take(list(request.statements), caller.party.id)
            return partner_pb2.StateReply(indexes=indexes)

        return await self._serve(request, context, "State", state)

    async def Checkpoint(self, request: Any, context: Any) -> Any:
        """Return the latest checkpoint, and the proof that it extends what the witness knows."""

        def checkpoint(_: Caller) -> Any:
            log = self._services.log
            signed = log.checkpoint()
            note = log.newest() or signed  # with the cosignatures it has; it may be a later one by now
            size = peek(note.encode()).size
            try:
                proof = log.consistency(request.known_size, size)
            except AuditError as error:
                raise Problem("LOG_REFUSED", error.cause) from None
            return partner_pb2.CheckpointReply(note=note, old_size=request.known_size, proof=proof)

        return await self._serve(request, context, "Checkpoint", checkpoint)

    async def Cosign(self, request: Any, context: Any) -> Any:
        """Keep a witness's cosignatures."""

        def cosign(_: Caller) -> Any:
            try:
                done = self._services.log.add_cosignatures(request.note)
            except AuditError as error:
                raise Problem("LOG_REFUSED", error.cause, party=error.party) from None
            return partner_pb2.CosignReply(
                size=done.size, cosigned=len(done.parties), needed=done.needed, quorum=done.has_quorum
            )

        return await self._serve(request, context, "Cosign", cosign)

    async def Contracts(self, request: Any, context: Any) -> Any:
        """List the contracts that name the caller."""

        def contracts(caller: Caller) -> Any:
            found = [view for view in self._services.contracts.all() if caller.party.id in view.agreed.parties]
            return partner_pb2.ContractsReply(contracts=[_contract(view) for view in found])

        return await self._serve(request, context, "Contracts", contracts)

    async def Sign(self, request: Any, context: Any) -> Any:
        """Take the caller's signature on a contract."""

        def sign(caller: Caller) -> Any:
            try:
                entry = SignatureEntry.model_validate_json(request.entry).model_dump()
            except ValueError:
                raise Problem("INPUT_INVALID", "the entry is no signature", party=caller.party.id) from None
            if entry["party"] != caller.party.id:
                raise Problem("STATEMENT_NOT_YOURS", "a signature of another party", party=caller.party.id)
            view = self._services.contracts.sign(request.digest, entry)
            return partner_pb2.SignReply(digest=view.contract.digest, unsigned=list(view.standing.unsigned))

        return await self._serve(request, context, "Sign", sign)

    async def Releases(self, request: Any, context: Any) -> Any:
        """List the releases that name the caller as a recipient."""

        def releases(caller: Caller) -> Any:
            reply = partner_pb2.ReleasesReply()
            for release in self._services.releases.all():
                if not self._may_have(caller, release.run):
                    continue
                one = reply.releases.add(
                    run=release.run, manifest_digest=release.manifest_digest, log_index=release.log_index
                )
                for name, facts in release.files.items():
                    one.files.add(name=name, digest=facts["digest"], size_bytes=facts["size"])
            return reply

        return await self._serve(request, context, "Releases", releases)

    async def ReleaseFile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Send a file of a release in pieces; a recipient that is shut out meanwhile gets no further one."""

        async def opened() -> Any:
            caller = await self._calls.caller(context)

            def find() -> Any:
                if not self._may_have(caller, request.run):
                    raise Problem("NOT_A_RECIPIENT", f"run {request.run[:80]}", party=caller.party.id)
                return self._services.releases.for_download(request.run, request.name).open("rb")

            return await self._calls.run(find)

        file = await self._calls.refusing(context, "ReleaseFile", opened)
        try:
            while content := await self._calls.run(file.read, CHUNK_BYTES):
                await self._calls.refusing(context, "ReleaseFile", lambda: self._calls.caller(context))
                yield partner_pb2.Chunk(content=content)
        finally:
            file.close()

    async def Events(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Tell what happens from an index of the log on, until the caller goes or is shut out."""
        caller = await self._calls.refusing(context, "Events", lambda: self._calls.caller(context))
        if self._streams.count(caller.party.id) >= MAX_PER_PARTY:
            problem = Problem("MESSAGE_TOO_LARGE", f"more than {MAX_PER_PARTY} open streams", party=caller.party.id)
            await self._calls.refuse(context, "Events", problem)
        position, told = int(request.after), -1
        with self._streams.place(caller.party.id) as place:
            while True:
                # Whoever was shut out meanwhile is refused here, at the latest after TICK_S.
                await self._calls.refusing(context, "Events", lambda: self._calls.caller(context))
                size = self._services.log.size()
                while position < size:
                    end = min(position + BATCH, size)
                    start = position
                    found = await self._calls.run(self._services.log.entries, start, end)
                    position = end
                    for offset, raw in enumerate(found):
                        if isinstance(parse_entry(raw), TOLD):
                            yield self._event(partner_pb2.PartnerEvent.LOG_ENTRY, size, start + offset, raw)
                if size != told:
                    told = size
                    yield self._event(partner_pb2.PartnerEvent.CHECKPOINT, size)
                else:
                    yield self._event(partner_pb2.PartnerEvent.HEARTBEAT, size)
                await pause(place)

    async def Renew(self, request: Any, context: Any) -> Any:
        """Make a certificate for a new TLS key."""

        def renew(caller: Caller) -> Any:
            return partner_pb2.RenewReply(certificate=self._services.access.renew(caller, request.csr).pem)

        return await self._serve(request, context, "Renew", renew)

    async def Rotate(self, request: Any, context: Any) -> Any:
        """Follow the caller to a new identity key, to new keys of its witness, or to a new key of its SuperNode."""

        def rotate(caller: Caller) -> Any:
            if request.supernode_key:
                key, proof = request.supernode_key, request.supernode_proof
                index = self._services.access.rotate_supernode(caller, key, proof, request.identity_proof)
                return partner_pb2.RotateReply(index=index)
            index, until = self._services.access.rotate(caller, request.statement)
            return partner_pb2.RotateReply(index=index, old_not_after=until)

        return await self._serve(request, context, "Rotate", rotate)

    async def Leave(self, request: Any, context: Any) -> Any:
        """Let the caller go; one that has gone hears so again."""

        def leave(caller: Caller) -> Any:
            index, standing = self._services.access.leave(caller, list(request.statements))
            return partner_pb2.LeaveReply(index=index, time=timestamp(standing.since or self._services.clock()))

        return await self._serve(request, context, "Leave", leave, may_have_left=True)

    async def _serve(self, request: Any, context: Any, method: str, work: Any, *, may_have_left: bool = False) -> Any:
        async def authenticated() -> Any:
            caller = await self._calls.caller(context, may_have_left=may_have_left)
            return await self._calls.run(work, caller)

        return await self._calls.answer(request, context, method, authenticated)

    def _may_have(self, caller: Caller, run: str) -> bool:
        manifest = self._services.releases.file(run, "manifest.json").read_bytes()
        return caller.party.id in json.loads(manifest).get("recipients", ())

    def _event(self, kind: Any, size: int, index: int = 0, entry: bytes = b"") -> Any:
        return partner_pb2.PartnerEvent(
            kind=kind, size=size, index=index, entry=entry, time=timestamp(self._services.clock())
        )


def _contract(view: ContractView) -> Any:
    return partner_pb2.ContractText(
        digest=view.contract.digest,
        text=view.contract.text,
        state=view.standing.state.value,
        unsigned=list(view.standing.unsigned),
    )
