"""Witnesses that listen: the log pushes its checkpoints to their URLs (c2sp.org/tlog-witness).

    read_witnesses(path) -> tuple[OutsideWitness, ...]      witnesses.toml in the home folder
    OutsideWitness(party, url, vkeys): .push(log, note) -> str   .remembered(origin) -> bytes | None
    ask_before_start(log, witnesses)                        the log does not start behind any of them

``witnesses.toml`` holds, for each, ``[[witness]]`` with ``party``, ``url`` and, unless the party is enrolled with a witness
key, ``keys``; ``counts = false`` keeps its cosignatures without counting it for the quorum. Nodes behind NAT are not listed:
they fetch the checkpoint and post their cosignatures themselves (``convoy-node witness follow``).
"""

from __future__ import annotations

import hashlib
import threading
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from convoy_audit.canonical import decimal
from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError, FormatError
from convoy_audit.note import Verifier, split_note
from convoy_audit.policy import quorum_of
from convoy_audit.witness import make_request
from convoy_coordinator.errors import SetupError
from convoy_coordinator.log.service import LogService

WITNESSES_FILE: Final = "witnesses.toml"
TIMEOUT_S: Final = 5.0
MAX_ANSWER: Final = 1024 * 1024
_FIX: Final = "Correct witnesses.toml: [[witness]] with party, url, and keys unless the party is enrolled."


class WitnessSilent(Exception):
    """A witness did not answer, or with something else than the protocol has; try again later."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A witness did not cosign: its status, and the size it has where it said so."""

    status: int
    size: int | None = None


@dataclass(slots=True)
class OutsideWitness:
    """One witness with a URL; safe for one push at a time."""

    party: str
    url: str
    vkeys: tuple[str, ...] = ()
    counts: bool = True
    timeout_s: float = TIMEOUT_S
    client: httpx.Client | None = None
    _size: int | None = field(default=None, repr=False)
    _busy: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def push(self, log: LogService, note: bytes) -> str | Refused:
        """Offer a checkpoint; return the signature lines, not verified yet, or the refusal.

        Raises:
            WitnessSilent: no usable answer.
        """
        with self._busy:
            size = peek(note).size
            old = min(self._size if self._size is not None else log.witness_size(self.party), size)
            for _ in range(3):
                proof = log.consistency(old, size) if 0 < old < size else []
                response = self._send("POST", "add-checkpoint", make_request(old, proof, note))
                if response.status_code == 200:
                    self._size = size
                    return response.text
                if response.status_code != 409:
                    return Refused(response.status_code)
                has = _size_of(response)
                if has > size:
                    return Refused(409, has)
                if has == old:
                    return Refused(409, has)
                old = has
            return Refused(409, old)

    def remembered(self, origin: str) -> bytes | None:
        """Return the last checkpoint that the witness has cosigned for a log, None if there is none.

        Raises:
            WitnessSilent: no usable answer.
        """
        response = self._send("GET", f"{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint")
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise WitnessSilent(f"{self.party} answered {response.status_code}")
        try:
            split_note(response.content)
        except FormatError as error:
            raise WitnessSilent(f"{self.party} serves no checkpoint: {error.cause}") from None
        return response.content

    def close(self) -> None:
        """Close its connections."""
        if self.client is not None:
            self.client.close()

    def _send(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        if self.client is None:
            self.client = httpx.Client(timeout=self.timeout_s)
        try:
            response = self.client.request(method, f"{self.url.rstrip('/')}/{path}", content=content)
        except httpx.HTTPError as error:
            raise WitnessSilent(f"{self.party} cannot be reached ({type(error).__name__})") from None
        if len(response.content) > MAX_ANSWER:
            raise WitnessSilent(f"{self.party} answered too much")
        return response


def read_witnesses(path: Path) -> tuple[OutsideWitness, ...]:
    """Read the list of witnesses that listen; no file means none.

    Raises:
        SetupError: WITNESSES_INVALID, with every fault.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("witness", [])
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError("WITNESSES_INVALID", f"{path.name} cannot be read: {type(error).__name__}", fix=_FIX) from None
    faults: list[str] = []
    found = [_witness(number, row, faults) for number, row in enumerate(rows)]
    if len({witness.party for witness in found}) != len(found):
        faults.append("a party stands twice")
    if faults:
        raise SetupError("WITNESSES_INVALID", "; ".join(faults), fix=_FIX)
    return tuple(found)


def _witness(number: int, row: Any, faults: list[str]) -> OutsideWitness:
    row = row if isinstance(row, dict) else {}
    party, url, keys, counts = (row.get(name) for name in ("party", "url", "keys", "counts"))
    if not isinstance(party, str) or not party or set(row) - {"party", "url", "keys", "counts"}:
        faults.append(f"witness {number}: a party is missing, or an unknown member")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        faults.append(f"witness {number}: url must begin with http:// or https://")
    for key in keys or ():
        try:
            if not Verifier.parse(str(key)).kind.is_cosignature:
                faults.append(f"witness {number}: a key that is not of a cosignature type")
        except AuditError as error:
            faults.append(f"witness {number}: {error.cause}")
    return OutsideWitness(str(party), str(url), tuple(map(str, keys or ())), counts is not False)


def ask_before_start(log: LogService, witnesses: Sequence[OutsideWitness]) -> None:
    """Refuse to start behind what any witness has seen.

    Raises:
        SetupError: LOG_BEHIND_WITNESS, naming the party; WITNESSES_SILENT if fewer of those listed answer than would make
            a quorum of them: nobody can then tell a restored backup from the last state.
    """
    if not witnesses:
        return
    silent: list[str] = []
    with ThreadPoolExecutor(len(witnesses)) as pool:
        asked = [(witness, pool.submit(witness.remembered, log.origin)) for witness in witnesses]
    for witness, answer in asked:
        try:
            note = answer.result()
        except WitnessSilent as error:
            silent.append(str(error))
            continue
        if note is None:
            continue
        try:
            log.refuse_behind([note])
        except SetupError as error:
            raise SetupError(error.code, error.cause, party=witness.party, fix=error.fix) from None
        except AuditError as error:  # another log's signature under our origin proves nothing about us
            silent.append(f"{witness.party} serves a checkpoint that this log has not signed: {error.cause}")
    needed = quorum_of(len(witnesses))
    if len(witnesses) - len(silent) < needed:
        raise SetupError(
            "WITNESSES_SILENT",
            f"{len(witnesses) - len(silent)} of {len(witnesses)} witnesses answered, {needed} are needed to start: "
            + "; ".join(silent),
            fix="Bring the witnesses up, or correct their addresses in witnesses.toml; the log does not start unseen.",
        )


def _size_of(response: httpx.Response) -> int:
    try:
        return decimal(response.text.removesuffix("\n"), "the size")
    except (FormatError, UnicodeDecodeError):
        raise WitnessSilent("a 409 without a size") from None
