"""Evidence packs on disk: a folder, or a zip file.

    write_pack(path: Path, parts: Parts) -> Path            a new folder, or a file if it ends .zip
    verify_pack(path: Path, policy: Policy | None = None, tsa_roots=(), jobs=1) -> Verdict
    read_files(path: Path) -> Mapping[str, bytes]           lazily; folder or zip

With ``cli``, ``fsck`` and ``witness_store`` the only module here that opens files. Reading is
defensive: names that leave the folder, links, files over 64 MiB and more than 1,000,000 files are
refused, and a zip may not unpack to more than 16 GiB.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from convoy_audit.errors import EvidenceError, FormatError
from convoy_audit.pack import Parts, Verdict, build, verify_files
from convoy_audit.policy import Policy
from convoy_audit.selection import is_selection, verify_selection

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_FILES: Final = 1_000_000
MAX_TOTAL_BYTES: Final = 16 * 1024**3
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError)
"""What ``zipfile`` raises for damaged or foreign content; RuntimeError has NotImplementedError, ValueError has bad UTF-8."""


def write_pack(path: Path, parts: Parts) -> Path:
    """Write an evidence pack; the same parts give the same bytes.

    Raises:
        AuditError: a part is malformed, or there is something at ``path`` already.
    """
    files = build(parts)
    if path.exists():
        raise EvidenceError(f"{path.name} exists already; a pack is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)
        return path
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def verify_pack(path: Path, policy: Policy | None = None, tsa_roots: Sequence[bytes] = (), jobs: int = 1) -> Verdict:
    """Verify an evidence pack on disk, or a selection of entries; see ``pack.verify_files`` and ``selection``.

    Args:
        path: folder or zip.
        policy: the pinned one.
        tsa_roots: as there.
        jobs: processes that read a large pack; more than one only from a program with one thread.

    Raises:
        FormatError: there is no evidence pack at ``path``.
    """
    files = read_files(path)
    if is_selection(files):
        return verify_selection(files, policy)
    if jobs < 2:
        return verify_files(files, policy, tsa_roots)
    from convoy_audit.skim_pool import bundles_of

    return verify_files(files, policy, tsa_roots, bundles_of(path, files, jobs))


def read_files(path: Path) -> Mapping[str, bytes]:
    """Return the files of a folder or zip; contents are read when they are asked for.

    Raises:
        FormatError: neither folder nor zip, or one that is not safe to read.
    """
    if path.is_dir():
        if not (path / "checkpoint").is_file():
            raise FormatError(f"the folder {path.name!r} is no evidence pack: no checkpoint in it")
        return _Folder(path)
    if path.is_file():
        return _Zip(path)
    raise FormatError(f"there is no file or folder {path.name!r}")


class _Folder(Mapping[str, bytes]):
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, Path] = {}
        for path in folder.rglob("*"):
            if path.is_symlink():
                raise FormatError(f"a link in the pack: {path.name[:80]!r}")
            if path.is_file():
                self._names[path.relative_to(folder).as_posix()] = path
            if len(self._names) > MAX_FILES:
                raise FormatError("too many files for a pack")

    def __getitem__(self, name: str) -> bytes:
        path = self._names[name]
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FormatError(f"{name[:80]} is too large")
        return path.read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Zip(Mapping[str, bytes]):
    """The files of a zip."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except _BROKEN:
            raise FormatError(f"{path.name!r} is no zip file that can be read") from None
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise FormatError("a file twice in the zip")
        if len(infos) > MAX_FILES or sum(i.file_size for i in infos) > MAX_TOTAL_BYTES:
            raise FormatError("the zip is too large for a pack")

    def __getitem__(self, name: str) -> bytes:
        info = self._infos[name]
        if info.file_size > MAX_FILE_BYTES:
            raise FormatError(f"{name[:80]} is too large")
        try:
            return self._archive.read(info)
        except _BROKEN:
            raise FormatError(f"{name[:80]} cannot be unpacked") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)
