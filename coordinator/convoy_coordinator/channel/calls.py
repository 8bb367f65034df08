"""What every call of the channel goes through: who calls, a deadline, a size, and a kind refusal.

``guarded`` wraps one method: authenticate, run the work in a thread (services block on the database), and turn every
error into google.rpc.Status with the problem's code, party, cause and fix in zh and en. Whatever was not foreseen is
``INTERNAL`` with a trace id; its diagnostic goes to the process's log and never to the caller.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import grpc

from convoy_contracts.problems import GRPC
from convoy_contracts.wire.statuses import DETAILS, pack
from convoy_coordinator.enrolment.access import AccessService, Caller
from convoy_coordinator.enrolment.refusals import Refusals
from convoy_coordinator.errors import Problem
from convoy_coordinator.problems import CATALOGUE

MAX_DEADLINE_S: Final = 60.0
MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
MAX_CAUSE: Final = 500
T = TypeVar("T")
_log = logging.getLogger(__name__)

_CODES: Final = {status: grpc.StatusCode[name] for status, name in GRPC.items()}
LOGGED: Final = frozenset(
    {
        *("TICKET_UNKNOWN", "TICKET_EXPIRED", "TICKET_USED", "ROLE_NOT_INVITED", "PROOF_REFUSED", "REQUEST_DENIED"),
        *("CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "PARTY_REVOKED", "ROLE_NOT_ENROLLED"),
        *("STATEMENT_NOT_YOURS", "STATEMENT_FORKED", "ROTATION_REFUSED", "MESSAGE_TOO_LARGE", "DEADLINE_MISSING"),
        *("NOT_A_RECIPIENT", "CSR_REFUSED", "KEY_REJECTED"),
    }
)
"""The refusals that stand in the audit log: somebody did what a partner's node does not do."""


class Calls:
    """The wrapping of calls.

    Args:
        access: who a certificate lets in.
        refusals: where refusals are written down.
        workers: how many services run at once.
    """

    def __init__(self, access: AccessService, refusals: Refusals, workers: int = 16) -> None:
        self._access = access
        self._refusals = refusals
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="channel")

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a service in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def caller(self, context: Any, *, may_have_left: bool = False) -> Caller:
        """Return whom the certificate of a call lets in.

        Raises:
            Problem: as ``AccessService.caller``.
        """
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        return await self.run(lambda: self._access.caller(pem, may_have_left=may_have_left))

    async def answer(self, request: Any, context: Any, method: str, work: Callable[[], Awaitable[T]]) -> T:
        """Answer one unary call."""
        return await self.refusing(context, method, lambda: self._limited(request, context, work))

    async def refusing(self, context: Any, method: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work; a refusal ends the call with its details."""
        try:
            return await work()
        except Problem as problem:
            await self.refuse(context, method, problem)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the edge: nothing of an unforeseen error may reach the caller
            trace_id = secrets.token_hex(8)
            _log.error("trace %s: %s failed", trace_id, method, exc_info=error)
            await self.refuse(context, method, Problem("INTERNAL", f"an unforeseen error; trace {trace_id}"))
        raise AssertionError  # abort has raised

    async def refuse(self, context: Any, method: str, problem: Problem) -> None:
        """End a call with a problem, and write down the refusals that matter."""
        kind = CATALOGUE[problem.code]
        if problem.code in LOGGED:
            await self.run(self._refusals.note, problem.code, problem.party, method)
        status = _CODES[kind.status]
        facts = {
            "party": problem.party or "",
            "cause": problem.cause[:MAX_CAUSE],
            "title_en": kind.title["en"],
            "title_zh": kind.title["zh"],
            "meaning_en": kind.meaning["en"],
            "meaning_zh": kind.meaning["zh"],
            "fix_en": problem.fix or kind.fix["en"],
            "fix_zh": kind.fix["zh"],
        }
        details = pack(
            problem.code,
            status.value[0],
            problem.cause[:MAX_CAUSE],
            facts,
            [(fault.pointer, fault.cause[:MAX_CAUSE]) for fault in problem.faults],
        )
        await context.abort(status, f"{problem.code}: {problem.cause[:MAX_CAUSE]}", ((DETAILS, details),))

    async def _limited(self, request: Any, context: Any, work: Callable[[], Awaitable[T]]) -> T:
        left = context.time_remaining()
        if left is None or left > MAX_DEADLINE_S + 5:
            raise Problem("DEADLINE_MISSING", "the call has no deadline, or one more than 60 s away")
        if request.ByteSize() > MAX_REQUEST_BYTES:
            raise Problem("MESSAGE_TOO_LARGE", f"{request.ByteSize()} bytes; the limit is {MAX_REQUEST_BYTES}")
        return await work()
