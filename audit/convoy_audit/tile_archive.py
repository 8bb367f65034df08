"""Move sealed bundles of entries to an archive: one zip that proves what it holds.

    write_archive(log, end, origin, target: Path) -> str        its SHA-256, for ``events.TilesArchived``
    check_archive(path: Path, root: bytes | None = None) -> Archived(origin, end, root)

An archive holds entries 0 to ``end`` (whole bundles of 256) as tlog-tiles entry bundles, ``archive.json``
and SHA256SUMS. Its root is derived from the entries; any later checkpoint of the log shows by a consistency
proof that it grew from this very tree (``root`` is then what that proof started from). The hashes stay in
the log's tiles for ever, so no proof is lost. The same entries give the same bytes.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from convoy_audit.archive import read_files
from convoy_audit.canonical import canonical_bytes, is_version, parse_canonical
from convoy_audit.errors import EvidenceError, FormatError, ProofError
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.tiles import WIDTH, decode_bundle, encode_bundle, entries_path

ABOUT: Final = "archive.json"
SUMS: Final = "SHA256SUMS"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Archived:
    """An archive that was checked."""

    origin: str
    end: int
    root: bytes


def write_archive(entries: Iterator[bytes], end: int, origin: str, target: Path) -> str:
    """Write an archive of the first ``end`` entries.

    Raises:
        FormatError: not whole bundles, or too few entries.
        EvidenceError: there is something at ``target`` already.
    """
    if end <= 0 or end % WIDTH:
        raise FormatError("an archive holds whole bundles of 256 entries, at least one")
    if target.exists():
        raise EvidenceError(f"{target.name} exists already; an archive is never overwritten")
    tree, sums = Tree(), []
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.new")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, content: bytes) -> None:
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)

        for index in range(end // WIDTH):
            bundle = list(islice(entries, WIDTH))
            if len(bundle) < WIDTH:
                raise FormatError(f"{tree.size + len(bundle)} entries, not {end}")
            for raw in bundle:
                tree.append(leaf_hash(raw))
            put(entries_path(index), encode_bundle(bundle))
        put(ABOUT, canonical_bytes({"v": 1, "origin": origin, "end": end, "root": tree.root().hex()}))
        archive.writestr(zipfile.ZipInfo(SUMS, _EPOCH), "".join(sorted(sums)), zipfile.ZIP_DEFLATED)
    partial.rename(target)
    with target.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def check_archive(path: Path, root: bytes | None = None) -> Archived:
    """Derive an archive's root again.

    Args:
        path: the archive.
        root: what the log's tree of this size has, from a verified consistency proof.

    Raises:
        FormatError: no archive, or one with unknown files.
        ProofError: the entries do not give the root.
        EvidenceError: the sums do not fit.
    """
    files = read_files(path)
    if ABOUT not in files or SUMS not in files:
        raise FormatError(f"{path.name!r} is no archive of entries")
    about = parse_canonical(files[ABOUT])
    origin, end, stated = about.get("origin"), about.get("end"), about.get("root")
    if (
        set(about) != {"v", "origin", "end", "root"}
        or not is_version(about["v"], 1)
        or type(end) is not int
        or end % WIDTH
    ):
        raise FormatError(f"{ABOUT}: other members or another version")
    names = [entries_path(index) for index in range(end // WIDTH)]
    if set(files) != {*names, ABOUT, SUMS}:
        raise FormatError("an archive with a file missing or unknown")
    tree, sums = Tree(), []
    for name in (*names, ABOUT):
        content = files[name]
        sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        if name != ABOUT:
            for raw in decode_bundle(content, WIDTH):
                tree.append(leaf_hash(raw))
    if files[SUMS] != "".join(sorted(sums)).encode():
        raise EvidenceError("SHA256SUMS does not fit the files")
    if tree.root().hex() != stated or (root is not None and tree.root() != root):
        raise ProofError("the archived entries do not give the root of the log")
    return Archived(str(origin), end, tree.root())
