"""What a run needs of the coordinator: the log, the contract, the release. Spoken over HTTP, in both runtimes.

The ServerApp runs in a process of its own (deployed) or in a thread (embedded) and never touches the database: the log
has one sequencer, and it lives behind these calls.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx

from convoy_coordinator.federation.errors import CoordinatorSaid

Json = dict[str, Any]
RESTART_S: Final = 30.0
"""How long a call waits for a coordinator that does not answer."""
RETRY_S: Final = 0.5
REPEATABLE: Final = ("/progress", "/state", "/cosignatures", "/checkpoint")
"""POST calls that change nothing when they are carried out twice."""


class CoordinatorPort:
    """The coordinator's internal API.

    Args:
        client: an HTTP client whose base address is the coordinator and that sends the internal bearer token.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def next_run(self) -> Json | None:
        """Claim the next queued run, or return None."""
        answer = self._call("GET", "/internal/runs/next")
        return answer or None

    def contract_standing(self, digest: str) -> Json:
        """Return the contract's text, signatures, events and state as they are now."""
        return self._call("GET", f"/v1/contracts/{digest}")

    def append(self, entries: Sequence[bytes]) -> list[int]:
        """Append entries to the log; returns their indexes once they are durable."""
        body = {"entries": [b64encode(entry).decode() for entry in entries]}
        return list(self._call("POST", "/internal/log/append", body)["indexes"])

    def has_ground(self, run: str) -> bool:
        """Return whether a quorum of witnesses has cosigned all that a run rests on: contract, events, keys."""
        return bool(self._call("GET", f"/internal/log/ground?run={run}")["level"] == "witnessed")

    def checkpoint(self) -> str:
        """Return a signed checkpoint over every durable entry."""
        return str(self._call("POST", "/internal/log/checkpoint")["checkpoint"])

    def checkpoint_of(self, size: int, reader: str = "") -> str:
        """Return the checkpoint of a size with the cosignatures it has so far; those of ``reader``, a party, come first."""
        return str(
            self._call("GET", f"/v1/log/checkpoint?size={size}&reader={quote(reader, safe='')}", text=True)["text"]
        )

    def cosignatures(self, note: str) -> Json:
        """Store cosignatures of the latest checkpoint; the answer says whether the quorum is met."""
        return self._call("POST", "/internal/log/cosignatures", {"note": note})

    def witness_size(self, party: str) -> int:
        """Return the size of the last checkpoint that a party is known to have cosigned (0: none)."""
        return int(self._call("GET", f"/internal/log/witness?party={party}")["size"])

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the entries [start, end)."""
        answer = self._call("GET", f"/v1/log/entries?start={start}&end={end}")
        return [b64decode(entry) for entry in answer["entries"]]

    def inclusion(self, index: int, size: int) -> list[str]:
        """Return the inclusion proof (base64 hashes) of an entry in the tree of ``size``."""
        return list(self._call("GET", f"/v1/log/proof/inclusion?index={index}&size={size}")["proof"])

    def consistency(self, old: int, new: int) -> list[str]:
        """Return the consistency proof (base64 hashes) between two sizes."""
        return list(self._call("GET", f"/v1/log/proof/consistency?old={old}&new={new}")["proof"])

    def progress(self, run: str, facts: Mapping[str, Any]) -> None:
        """Report how far a run is."""
        self._call("POST", f"/internal/runs/{run}/progress", dict(facts))

    def state(self, run: str, state: str, **why: Any) -> None:
        """Move a run to a new state, with party, code, cause and fix where it stopped."""
        self._call("POST", f"/internal/runs/{run}/state", {"state": state, **why})

    def release(self, body: Mapping[str, Any]) -> Json:
        """Hand over a model; the coordinator logs its manifest, signs it and stores the bundle."""
        return self._call("POST", "/internal/releases", dict(body))

    def _call(self, method: str, path: str, body: Json | None = None, text: bool = False) -> Json:
        try:
            response = self._ask(method, path, body)
        except httpx.HTTPError as error:
            raise CoordinatorSaid(
                f"the coordinator did not answer {method} {path.split('?')[0]} ({type(error).__name__})",
                code="COORDINATOR_UNREACHABLE",
                fix="Check that convoy-coordinator serve is up; no round starts without its log.",
            ) from error
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        if response.is_error:
            problem = response.json() if "json" in response.headers.get("content-type", "") else {}
            raise CoordinatorSaid(
                str(
                    problem.get("cause")
                    or problem.get("detail")
                    or f"HTTP {response.status_code} at {path.split('?')[0]}"
                ),
                party=str(problem.get("party") or "coordinator"),
                code=str(problem.get("code") or CoordinatorSaid.code),
                fix=str(problem.get("fix") or ""),
            )
        return {"text": response.text} if text else dict(response.json())

    def _ask(self, method: str, path: str, body: Json | None) -> httpx.Response:
        """Send a request; wait for a coordinator that is being restarted, as long as repeating the request does no harm."""
        deadline = time.monotonic() + RESTART_S
        while True:
            try:
                return self._client.request(method, path, json=body)
            except httpx.ConnectError:  # it was never sent
                if time.monotonic() > deadline:
                    raise
            except httpx.TransportError:  # it may have been carried out
                if method != "GET" and not path.endswith(REPEATABLE):
                    raise
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_S)
