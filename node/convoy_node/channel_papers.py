"""Contracts and releases over the partner channel: what the coordinator holds for this party, and this party's signature.

    offered(home) -> (Offered, ...)          contracts that name this party, with their texts
    text_of(home, digest) -> text            one of them; the digest is computed here
    send_signature(home, digest) -> (party, ...)   give the kept signature; returns who has not signed yet
    released(home) -> (Released, ...)        releases that name this party as a recipient
    fetch(home, run, target) -> manifest digest    a release into a new folder

What arrives is believed as far as its digest goes and no further: a release is verified (signature, contract, recipient) by
``convoy-node release show`` and by whatever loads it. Every call may be repeated. ``fetch`` writes beside its target and renames
at the end: if the process dies before, a hidden folder lies about that the next call replaces.
LIMIT: the texts of all contracts of a party come in one message of at most 4 MiB.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError
from convoy_contracts.wire import partner_pb2
from convoy_node.channel import Line, refusal
from convoy_node.channel_keys import open_line
from convoy_node.errors import HomeRefused, NodeError, of_file
from convoy_node.settings import Settings

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "signature.json"
MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 2 << 30
FETCH_S: Final = 3600.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,79}")


@dataclass(frozen=True, slots=True)
class Offered:
    """A contract at the coordinator; ``unsigned`` are the parties whose signature is missing."""

    digest: str
    text: str
    state: str
    unsigned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """A release at the coordinator; ``files`` are (name, digest, size in bytes)."""

    run: str
    manifest_digest: str
    log_index: int
    files: tuple[tuple[str, str, int], ...]


def offered(home: Path) -> tuple[Offered, ...]:
    """Return the contracts that name this party.

    Raises:
        NodeError: refused or unreachable.
    """
    with _line(home) as line:
        found = line.ask(line.partner.Contracts, partner_pb2.ContractsRequest()).contracts
    return tuple(Offered(one.digest, one.text, one.state, tuple(one.unsigned)) for one in found)


def text_of(home: Path, digest: str) -> str:
    """Return the text of a contract whose digest this is, computed here.

    Raises:
        NodeError: CONTRACT_UNKNOWN, CONTRACT_DIGEST_MISMATCH, refused or unreachable.
    """
    text = next((one.text for one in offered(home) if one.digest == digest), None)
    if text is None:
        raise NodeError(
            "the coordinator holds no such contract that names this party.",
            code="CONTRACT_UNKNOWN",
            fix="convoy-node contract list shows them.",
            fix_zh="convoy-node contract list 会列出。",
        )
    try:
        is_it = Contract.parse(text).digest == digest
    except ContractsError:
        is_it = False
    if not is_it:
        raise NodeError(
            "the text that the coordinator sent is not the contract of this digest.",
            code="CONTRACT_DIGEST_MISMATCH",
            fix="Sign nothing; call the coordinator's administrator.",
        )
    return text


def send_signature(home: Path, digest: str) -> tuple[str, ...]:
    """Give the signature that ``convoy-node sign`` has kept; again changes nothing.

    Raises:
        NodeError: CONTRACT_UNKNOWN where nothing was signed here; refused or unreachable.
    """
    path = home / "contracts" / digest.removeprefix("sha256:") / SIGNATURE
    try:
        entry = json.dumps(json.loads(path.read_text(encoding="utf-8"))).encode()
    except (OSError, ValueError) as error:
        raise NodeError(
            "this node has not signed a contract of this digest.",
            code="CONTRACT_UNKNOWN",
            fix="convoy-node contract get DIGEST --to FILE, read it, then convoy-node sign FILE.",
            fix_zh="请运行 convoy-node contract get DIGEST --to FILE，阅读后运行 convoy-node sign FILE。",
        ) from error
    with _line(home) as line:
        reply = line.ask(line.partner.Sign, partner_pb2.SignRequest(digest=digest, entry=entry))
    return tuple(reply.unsigned)


def released(home: Path) -> tuple[Released, ...]:
    """Return the releases that name this party as a recipient.

    Raises:
        NodeError: refused or unreachable.
    """
    with _line(home) as line:
        found = line.ask(line.partner.Releases, partner_pb2.ReleasesRequest()).releases
    return tuple(
        Released(
            one.run,
            one.manifest_digest,
            int(one.log_index),
            tuple((file.name, file.digest, int(file.size_bytes)) for file in one.files),
        )
        for one in found
    )


def fetch(home: Path, run: str, target: Path) -> str:
    """Fetch a release into a folder that does not exist yet; return its manifest's digest.

    Raises:
        NodeError: FILE_EXISTS, RELEASE_UNKNOWN, BUNDLE_ALTERED (a file is not what the release lists), refused or
            unreachable; nothing is at ``target`` then.
    """
    if target.exists():
        raise HomeRefused(f"{target.name} is there already.", code="FILE_EXISTS")
    one = next((release for release in released(home) if release.run == run and _RUN.fullmatch(run)), None)
    if one is None:
        raise NodeError(
            "the coordinator has no release of this run that names this party.",
            code="RELEASE_UNKNOWN",
            fix="convoy-node release list shows them.",
            fix_zh="convoy-node release list 会列出。",
        )
    names = [name for name, _, _ in one.files]
    if len(names) > MAX_FILES or MANIFEST not in names or not all(_NAME.fullmatch(name) for name in names):
        raise _altered("its list of files")
    beside = target.with_name(f".{target.name}.part")
    if beside.exists():
        shutil.rmtree(beside)
    try:
        beside.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise of_file(error, is_written=True) from error
    try:
        with _line(home) as line:
            for name, digest, size in one.files:
                wanted = one.manifest_digest if name == MANIFEST else digest
                if _written(beside / name, line, run, size) != wanted:
                    raise _altered(name)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return one.manifest_digest


def _written(path: Path, line: Line, run: str, size: int) -> str:
    """Write one file as it arrives, on disk when this returns; return its digest."""
    hashed, seen = hashlib.sha256(), 0
    with path.open("xb") as file:
        for content in _chunks(line, run, path.name):
            seen += len(content)
            if seen > min(size, MAX_FILE_BYTES):
                raise _altered(path.name)
            hashed.update(content)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return f"sha256:{hashed.hexdigest()}"


def _chunks(line: Line, run: str, name: str) -> Iterator[bytes]:
    request = partner_pb2.ReleaseFileRequest(run=run, name=name)
    try:
        for chunk in line.partner.ReleaseFile(request, timeout=FETCH_S):
            yield chunk.content
    except grpc.RpcError as error:
        raise refusal(error, "") from None


def _altered(what: str) -> NodeError:
    return NodeError(
        f"{what[:128]} is not what the release lists.",
        code="BUNDLE_ALTERED",
        fix="Nothing was kept. Fetch it again; if this stays, call the auditor.",
    )


def _line(home: Path) -> Any:
    return open_line(home, Settings.load(home).party)
