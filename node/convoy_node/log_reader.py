"""Read the coordinator's log over HTTP, as anybody may, and bring it cosignatures.

    LogReader(url): .newest() .latest() .consistency(old, new) .receipts(party, after) .bundle/.tile  .cosign(note)

Believes nothing: what it returns are bytes that the witness, or the receipts' check, verifies. Raises ``LogUnreachable`` for
everything that is no answer.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

import httpx

from convoy_audit.canonical import unb64
from convoy_audit.errors import AuditError
from convoy_node.errors import NodeError

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 8 * 1024 * 1024


class LogUnreachable(NodeError):
    """The log, or a peer, gave no usable answer; nothing was concluded from it."""

    code = "LOG_UNREACHABLE"
    fix = "Check the address and that convoy-coordinator serve is up; the node works on nothing without the log."
    fix_zh = "请检查地址以及 convoy-coordinator serve 是否运行；没有日志，节点不会执行任何任务。"


class LogReader:
    """One log behind one address.

    Args:
        url: of the coordinator, such as https://coordinator.example:8080.
        client: another HTTP client, for tests.
    """

    def __init__(self, url: str, client: httpx.Client | None = None) -> None:
        self._client = client or httpx.Client(timeout=TIMEOUT_S)
        self._url = url.rstrip("/")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._client.close()

    def newest(self) -> bytes:
        """Return the last checkpoint that the log has signed."""
        return self._get("/v1/log/checkpoint", which="newest").content

    def latest(self) -> bytes:
        """Return the last checkpoint that has the quorum."""
        return self._get("/v1/log/checkpoint").content

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the tree of ``new`` extends that of ``old``."""
        if not 0 < old < new:
            return []
        return _hashes(self._json("/v1/log/proof/consistency", old=old, new=new))

    def receipts(self, party: str, after: int) -> list[dict[str, Any]]:
        """Return receipts of a party's statements above a number; none where the log has no quorum yet."""
        response = self._send("GET", "/v1/log/receipts", params={"party": party, "after": after})
        if response.status_code == 409:
            return []
        rows = _object(self._good(response)).get("receipts")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def file(self, path: str) -> bytes:
        """Return a tile or entry bundle (c2sp.org/tlog-tiles)."""
        return self._get(f"/v1/log/{path}").content

    def cosign(self, note: str) -> dict[str, Any]:
        """Bring cosignatures; return how the quorum stands."""
        return _object(self._good(self._send("POST", "/v1/log/cosignatures", json={"note": note})))

    def _get(self, path: str, **query: object) -> httpx.Response:
        return self._good(self._send("GET", path, params=query))

    def _json(self, path: str, **query: object) -> dict[str, Any]:
        return _object(self._get(path, **query))

    def _send(self, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            response = self._client.request(method, self._url + path, **what)
        except httpx.HTTPError as error:
            raise LogUnreachable(f"the log cannot be reached ({type(error).__name__}).") from error
        if len(response.content) > MAX_ANSWER:
            raise LogUnreachable("the log answered too much.")
        return response

    def _good(self, response: httpx.Response) -> httpx.Response:
        if response.is_error:
            code = ""
            if "json" in response.headers.get("content-type", ""):
                code = str(_object(response).get("code", ""))[:60]
            raise LogUnreachable(f"the log answered {response.status_code} {code}".strip() + ".", code=code or None)
        return response


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError as error:
        raise LogUnreachable("the log answered no JSON.") from error
    return value if isinstance(value, dict) else {}


def _hashes(answer: dict[str, Any]) -> list[bytes]:
    proof = answer.get("proof")
    try:
        return [unb64(str(node)) for node in proof] if isinstance(proof, list) else []
    except AuditError as error:
        raise LogUnreachable("the log answered no proof.") from error
