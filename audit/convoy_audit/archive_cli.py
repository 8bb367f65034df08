"""``convoy-audit archive make | check``: sealed entries in one file that proves what it holds."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add_archive(commands: Any) -> None:
    """Add the commands to the parser of ``convoy-audit``."""
    what = "archive sealed entries that are older than the floor for logs (184 days)"
    archive = commands.add_parser("archive", help=what, description=f"{what}.".capitalize())
    acts = archive.add_subparsers(required=True, metavar="ACT")
    make = acts.add_parser("make", help="write an archive", description="Write an archive; nothing is removed.")
    make.add_argument("path", metavar="LOG", type=Path, help="evidence pack, tiles, SQLite file or pg_dump")
    make.add_argument("target", metavar="TARGET", type=Path, help="the zip to write")
    make.add_argument("--log-days", type=int, default=None, metavar="N", help="keep longer than the floor")
    make.set_defaults(act=_make)
    check = acts.add_parser("check", help="derive an archive again", description="Derive an archive again.")
    check.add_argument("path", metavar="ARCHIVE", type=Path, help="the zip")
    check.add_argument("--log", type=Path, metavar="LOG", help="the log that it must be the beginning of")
    check.set_defaults(act=_check)
    for command in (make, check):
        command.add_argument("--json", action="store_true", help="print data instead of text")
        command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")


def _make(given: argparse.Namespace) -> int:
    from convoy_audit.checkpoint import peek
    from convoy_audit.entry import Entry
    from convoy_audit.errors import EvidenceError, RetentionError
    from convoy_audit.fsck import check_log
    from convoy_audit.retention import RetentionPlan, sealed_end
    from convoy_audit.sources import open_log
    from convoy_audit.tile_archive import write_archive

    plan = RetentionPlan() if given.log_days is None else RetentionPlan(log_days=given.log_days)
    findings = check_log(given.path)
    if findings.faults:
        raise EvidenceError(f"the log does not verify: {findings.faults[0]}")
    log = open_log(given.path)
    end = sealed_end((Entry(raw).event.at for raw in log.entries()), datetime.now(UTC), plan)
    if not end:
        raise RetentionError(f"no whole bundle of 256 entries is older than {plan.log_days} days")
    origin = peek(log.notes[-1]).origin if log.notes else ""
    digest = write_archive(log.entries(), end, origin, given.target)
    if given.json:
        print(json.dumps({"first": 0, "end": end, "archive": digest}))
    else:
        print(
            f"{given.target}: entries 0 to {end - 1}, {digest}\nNext: convoy-audit archive check {given.target} --log LOG"
        )
    return 0


def _check(given: argparse.Namespace) -> int:
    from itertools import islice

    from convoy_audit.errors import EvidenceError, ProofError
    from convoy_audit.merkle import leaf_hash, root
    from convoy_audit.sources import open_log
    from convoy_audit.tile_archive import check_archive

    fault = None
    try:
        found = check_archive(given.path)
        if given.log is not None:
            begin = root(map(leaf_hash, islice(open_log(given.log).entries(), found.end)))
            if begin != found.root:
                raise ProofError("the archive is not the beginning of this log")
        said = {"verified": True, "origin": found.origin, "end": found.end, "root": found.root.hex()}
    except (ProofError, EvidenceError) as error:
        fault, said = error, {"verified": False, "fault": error.cause}
    print(json.dumps(said, ensure_ascii=False) if given.json else "  ".join(f"{k}: {v}" for k, v in said.items()))
    return 1 if fault else 0
