"""A file that only who has the passphrase can read or change: scrypt, then ChaCha20-Poly1305 over chunks.

    SealedWriter(file, passphrase).write(bytes) ... .close()      SealedReader(file, passphrase).read(size)

Layout: ``convoy-sealed/1\n``, one line of JSON with the scrypt parameters and the salt, then chunks of 1 MiB + 16 bytes. Nonce:
the chunk's number (11 bytes) and 1 for the last chunk (the STREAM construction; Hoang, Reyhanitabar, Rogaway & Vizar 2015), so
that cut, reordered or repeated chunks do not open; the head is bound to every chunk. The key is used for one file: the salt is
random. The passphrase is what protects the node's private keys: ``read_passphrase`` wants one of 20 characters or more.
The layout never changes under this name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from convoy_node.errors import NodeError
from convoy_node.secret_file import read_secret

MAGIC: Final = b"convoy-sealed/1\n"
CHUNK: Final = 1 << 20
TAG_BYTES: Final = 16
LEAST_CHARACTERS: Final = 20
_COST: Final = {"n": 1 << 16, "r": 8, "p": 1}
_MOST: Final = {"n": 1 << 20, "r": 32, "p": 16}
_MAX_HEAD: Final = 1024


class BackupRefused(NodeError):
    """A backup that cannot be made, opened or put back; the folder is as it was."""

    code = "BACKUP_REFUSED"
    fix = "Read the cause; the folder is as it was."
    fix_zh = "请阅读原因说明；文件夹未被改动。"


def read_passphrase(path: Path) -> bytes:
    """Return the passphrase in a file that only its owner may read.

    Raises:
        KeyRefused: missing, or open to others.
        BackupRefused: too short.
    """
    passphrase = read_secret(path).strip()
    if len(passphrase) < LEAST_CHARACTERS:
        raise BackupRefused(
            f"the passphrase has fewer than {LEAST_CHARACTERS} characters.",
            code="PASSPHRASE_WEAK",
            fix="Make one with: openssl rand -base64 32",
        )
    return passphrase


class SealedWriter:
    """Seals what is written to it; nothing is readable before ``close``."""

    def __init__(self, file: IO[bytes], passphrase: bytes) -> None:
        salt = os.urandom(16)
        head = json.dumps({"kdf": "scrypt", **_COST, "salt": salt.hex()}).encode() + b"\n"
        self._file, self._head, self._number, self._waiting = file, MAGIC + head, 0, bytearray()
        self._key = ChaCha20Poly1305(Scrypt(salt=salt, length=32, **_COST).derive(passphrase))
        file.write(self._head)

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._waiting += data
        while len(self._waiting) > CHUNK:
            self._seal(bytes(self._waiting[:CHUNK]), is_last=False)
            del self._waiting[:CHUNK]
        return len(data)

    def close(self) -> None:
        """Seal the last chunk; the file itself stays open."""
        self._seal(bytes(self._waiting), is_last=True)

    def _seal(self, plain: bytes, *, is_last: bool) -> None:
        self._file.write(self._key.encrypt(_nonce(self._number, is_last), plain, self._head))
        self._number += 1


class SealedReader:
    """Opens a sealed file from its beginning.

    Raises:
        BackupRefused: not such a file, another passphrase, or changed bytes; so does ``read``.
    """

    def __init__(self, file: IO[bytes], passphrase: bytes) -> None:
        magic = file.read(len(MAGIC))
        line = file.readline(_MAX_HEAD)
        if magic != MAGIC or not line.endswith(b"\n"):
            raise BackupRefused("this is no backup of a node.", code="BACKUP_DAMAGED", fix="Name another file.")
        self._file, self._head, self._number, self._ready = file, magic + line, 0, bytearray()
        try:
            told = json.loads(line)
            cost = {name: int(told[name]) for name in _COST}
            salt = bytes.fromhex(told["salt"])
            if any(not 1 <= cost[name] <= _MOST[name] for name in cost):
                raise ValueError("cost")
            key = Scrypt(salt=salt, length=32, **cost).derive(passphrase)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupRefused("the backup's head is damaged.", code="BACKUP_DAMAGED") from error
        self._key = ChaCha20Poly1305(key)
        self._next = file.read(CHUNK + TAG_BYTES)

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes; empty at the end."""
        while self._next and (size < 0 or len(self._ready) < size):
            sealed, self._next = self._next, self._file.read(CHUNK + TAG_BYTES)
            try:
                self._ready += self._key.decrypt(_nonce(self._number, not self._next), sealed, self._head)
            except InvalidTag as error:
                cause = (
                    "the backup was changed or cut." if self._number else "the passphrase does not open this backup."
                )
                code = "BACKUP_DAMAGED" if self._number else "PASSPHRASE_WRONG"
                raise BackupRefused(cause, code=code, fix="Name its own passphrase file, or another copy.") from error
            self._number += 1
        taken = bytes(self._ready if size < 0 else self._ready[:size])
        del self._ready[: len(taken)]
        return taken


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])
