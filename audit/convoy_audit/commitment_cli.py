"""``convoy-audit commitment new | check | erase``: what must be provable later, and forgettable.

    … new KEYS < VALUE               commits to the bytes of standard input; prints the commitment that may stand in the log
    … check KEYS COMMITMENT < VALUE  do key and value open it?
    … erase KEYS COMMITMENT          forget: the key is overwritten and removed; nobody can open it any more

``KEYS`` is the folder of keys (0700), outside the log and outside its backups. A value never stands in an argument.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_commitment(commands: Any) -> None:
    """Add the commands to the parser of ``convoy-audit``."""
    what = "commit to a value that must stay forgettable, check it, or forget it"
    group = commands.add_parser("commitment", help=what, description=f"{what}.".capitalize())
    acts = group.add_subparsers(required=True, metavar="ACT")
    for name, act, told in (
        ("new", _new, "commit to the bytes of standard input"),
        ("check", _check, "check that a kept key and the bytes of standard input open a commitment"),
        ("erase", _erase, "forget: erase the key for good"),
    ):
        command = acts.add_parser(name, help=told, description=f"{told}.".capitalize())
        command.add_argument("keys", metavar="KEYS", type=Path, help="folder of keys, outside the log and its backups")
        if name != "new":
            command.add_argument("commitment", metavar="COMMITMENT", help="sha256: and 64 hex digits")
        command.add_argument("--json", action="store_true", help="print data instead of text")
        command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")
        command.set_defaults(act=act)


def _new(given: argparse.Namespace) -> int:
    from convoy_audit.retention import CommitmentKeys

    commitment = CommitmentKeys(given.keys).new(sys.stdin.buffer.read())
    _say(given, {"commitment": commitment}, commitment, commitment)
    return 0


def _check(given: argparse.Namespace) -> int:
    from convoy_audit.entry import check_commitment
    from convoy_audit.errors import EvidenceError, RetentionError
    from convoy_audit.retention import CommitmentKeys

    value = sys.stdin.buffer.read()
    try:
        check_commitment(given.commitment, CommitmentKeys(given.keys).open(given.commitment), value)
    except RetentionError as error:
        _say(
            given, {"opens": False, "cause": error.cause}, f"FORGOTTEN: {error.cause}", "已遗忘：密钥已销毁，或不在此处"
        )
        return 1
    except EvidenceError as error:
        _say(
            given,
            {"opens": False, "cause": error.cause},
            f"DOES NOT OPEN: {error.cause}",
            "不成立：密钥与取值不能打开该承诺",
        )
        return 1
    _say(given, {"opens": True}, "OPENS: this value was committed to", "成立：承诺的正是该取值")
    return 0


def _erase(given: argparse.Namespace) -> int:
    from convoy_audit.retention import CommitmentKeys

    CommitmentKeys(given.keys).erase(given.commitment)
    _say(
        given,
        {"erased": given.commitment},
        "ERASED: nobody can open this commitment any more; every proof of the log still holds.",
        "已销毁：任何人都无法再打开该承诺；日志的全部证明依然成立。",
    )
    return 0


def _say(given: argparse.Namespace, data: dict[str, Any], en: str, zh: str) -> None:
    print(json.dumps(data, ensure_ascii=False) if given.json else zh if given.lang == "zh" else en)
