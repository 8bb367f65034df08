"""Evidence of chosen entries: each with a proof of its own, for somebody who is not to see the rest.

    write_selection(path, log, indices, asked, made_at) -> Path      a zip file

    selection.json                      what was asked, over how many entries, which indices fit
    policy  checkpoint                  whom to believe (compare with the one you pinned), and what was cosigned
    entries/<index>.json                the exact bytes of each entry
    proofs/<index>.tlog-proof           its inclusion under the cosigned checkpoint (c2sp.org/tlog-proof)
    README.txt  SHA256SUMS              how to check it without us, zh and en

What it shows: these entries are in the log, unchanged. What it cannot show: that no other entry fits the question; only the
whole log can, and ``GET /v1/evidence.zip`` without filters is that.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from convoy_audit.canonical import canonical_bytes
from convoy_audit.checkpoint import peek
from convoy_audit.pack import SUMS, sums_of
from convoy_audit.selection import ABOUT, entry_file, proof_file
from convoy_coordinator.errors import Problem
from convoy_coordinator.log import LogService
from convoy_coordinator.log.levels import Level

MAX_ENTRIES: Final = 5000
_FIXED: Final = (1980, 1, 1, 0, 0, 0)


def write_selection(
    path: Path, log: LogService, indices: Sequence[int], asked: Mapping[str, object], made_at: datetime
) -> Path:
    """Write the evidence of some entries.

    Args:
        path: the zip file to make.
        log: the log.
        indices: which entries; those that no quorum has cosigned yet are left out and named.
        asked: the filters or the seed, as they were given.
        made_at: the present instant.

    Raises:
        Problem: NOT_FOUND before the first checkpoint; INPUT_INVALID for more entries than one pack takes.
    """
    note = log.latest()
    if note is None:
        raise Problem("NOT_FOUND", "the log has no checkpoint yet")
    if len(indices) > MAX_ENTRIES:
        raise Problem(
            "INPUT_INVALID", f"{len(indices)} entries fit; one selection takes {MAX_ENTRIES}, so ask for less"
        )
    checkpoint = peek(note.encode())
    covered = [index for index in indices if index < checkpoint.size]
    facts = {
        "v": 1,
        "origin": log.origin,
        "size": checkpoint.size,
        "madeAt": made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "asked": {name: str(value) for name, value in sorted(asked.items()) if value is not None},
        "indices": covered,
        "notYetCheckpointed": [index for index in indices if index >= checkpoint.size],
        "witnessed": log.levels.size(Level.WITNESSED) >= checkpoint.size,
    }
    files: dict[str, bytes] = {
        ABOUT: canonical_bytes(json.loads(json.dumps(facts))),
        "policy": log.policy().text,
        "checkpoint": note.encode(),
        "README.txt": _README.encode(),
    }
    for index in covered:
        evidence = log.evidence(index)
        files[entry_file(index)] = evidence.entry
        files[proof_file(index)] = evidence.tlog_proof.text
    files[SUMS] = sums_of(files)
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _FIXED), files[name], zipfile.ZIP_DEFLATED)
    return path


_README: Final = """Evidence of chosen log entries (Convoy)

Each proofs/N.tlog-proof shows that entries/N.json, byte for byte, is entry N of the log whose checkpoint the
quorum of witnesses has cosigned. Check with the policy that YOU pinned, not with the one in this file:

    convoy-audit verify THIS.zip --policy MY-POLICY.txt

It shows that these entries are in the log. It cannot show that no other entry fits the question; the pack of
the whole log can.

所选日志条目的证据
proofs/N.tlog-proof 证明 entries/N.json 逐字节为日志第 N 条，且其检查点已由法定数量的见证方签名。请使用您自己固定的策略核验，
而非本包内的策略。本包证明这些条目存在于日志中；不能证明没有其他符合条件的条目，为此请使用完整证据包。
"""
