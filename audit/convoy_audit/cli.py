"""The offline verifier: ``convoy-audit verify|show|fsck|query|report|sample|watch|consent|zk|archive|commitment``.

    convoy-audit verify PACK [--policy FILE] [--tsa-root PEM] [--jobs N]     an evidence pack, folder or zip
    convoy-audit show LOG ENTRY                                      one entry: sentence, bytes, proof
    convoy-audit fsck LOG [--policy FILE]                            a coordinator's SQLite file or pg_dump,
                                                                     a folder of tiles, or a pack
    convoy-audit query LOG [--contract --party --run --model --since --until --reason --kind]
    convoy-audit report use LOG [--quarter 2026-Q4] [--contract UID]
    convoy-audit sample LOG [-n 10] [--seed SEED]
    convoy-audit watch SOURCE --state FOLDER [--policy FILE] [--once]       the only one that uses a network,
                                                                            if SOURCE is an address
    convoy-audit zk verify PROOF [--pack PACK]      convoy-audit archive make|check
    convoy-audit commitment new|check|erase KEYS [COMMITMENT]        the value comes by standard input
    convoy-audit consent PROOF --card FILE [--receipt FILE] [--pack PACK]   a person's consent in an epoch

All take ``--json`` and ``--lang zh``. Needs no code of the coordinator. Exit codes:
    0  everything that could be checked holds
    1  something is wrong; every fault is named
    2  there was nothing to check: no such file, not a pack, wrong arguments, a missing extra

With ``archive``, ``fsck`` and ``witness_store`` the only module of this library that opens files.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from convoy_audit.archive_cli import add_archive
from convoy_audit.commitment_cli import add_commitment
from convoy_audit.consent_cli import add_consent
from convoy_audit.errors import AuditError
from convoy_audit.query_cli import add_queries
from convoy_audit.watch_cli import add_watch
from convoy_audit.zk_cli import add_zk

if TYPE_CHECKING:
    from convoy_audit.pack import Verdict
    from convoy_audit.policy import Policy

OK: Final = 0
WRONG: Final = 1
NOTHING: Final = 2
_WORDS: Final = {
    "en": {
        "verified": "VERIFIED",
        "refuted": "NOT VERIFIED",
        "checked": "Checked",
        "faults": "Wrong",
        "limits": "What this cannot know",
        "next": "Next: convoy-audit show PACK ENTRY prints one entry with its proof.",
        "entry": "entry",
        "entries": "entries",
        "leaf": "leaf",
        "proof": "inclusion proof",
        "under": "under the checkpoint of size",
        "fix": "What to do",
        "unreadable": "Name a file or folder that is there and that this user may read.",
    },
    "zh": {
        "verified": "核验通过",
        "refuted": "核验未通过",
        "checked": "已核验",
        "faults": "问题",
        "limits": "无法得知的内容",
        "next": "下一步：convoy-audit show 证据包 条目号，可查看单条及其证明。",
        "entry": "条目",
        "entries": "条",
        "leaf": "叶子",
        "proof": "包含证明",
        "under": "所属检查点大小",
        "fix": "处理方法",
        "unreadable": "请指定存在且当前用户可读的文件或文件夹。",
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.act(given)
    except AuditError as error:
        fix = error.fix_zh if given.lang == "zh" else error.fix
        return _nothing(given, error.code, error.cause, fix)
    except BrokenPipeError:  # whoever reads the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        return _nothing(
            given, "FILE_UNREADABLE", f"{error.strerror}: {error.filename}", _WORDS[given.lang]["unreadable"]
        )
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convoy-audit",
        description="Verify Convoy's audit log offline, without trusting the coordinator.",
        epilog="Exit codes: 0 everything that could be checked holds; 1 something is wrong, every fault is named "
        "(watch: an alarm); 2 nothing was checked: no such file, not a log, wrong arguments, a missing extra.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = _command(commands, "verify", _verify, "check an evidence pack", "PACK", "folder or .zip")
    verify.add_argument(
        "--tsa-root", type=Path, metavar="PEM", action="append", help="root certificate of a time-stamping authority"
    )
    verify.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="processes for a large pack; as many as there are cores if not given",
    )
    show = _command(commands, "show", _show, "print one entry", "LOG", "evidence pack, tiles, SQLite file or pg_dump")
    show.add_argument("entry", metavar="ENTRY", type=int, help="index of the entry, from 0")
    _command(commands, "fsck", _fsck, "derive a whole log again", "LOG", "SQLite file, pg_dump, tiles, or pack")
    add_queries(commands)
    add_watch(commands)
    add_consent(commands)
    add_zk(commands)
    add_archive(commands)
    add_commitment(commands)
    return parser


def _command(commands: Any, name: str, act: Any, what: str, path: str, kind: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    command.add_argument("path", metavar=path, type=Path, help=kind)
    if name != "show":
        command.add_argument("--policy", type=Path, metavar="FILE", help="the policy that you trust (tlog-policy)")
    command.add_argument("--json", action="store_true", help="print data instead of text")
    command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")
    command.set_defaults(act=act)
    return command


def _verify(given: argparse.Namespace) -> int:
    from convoy_audit.archive import verify_pack
    from convoy_audit.skim_pool import cores

    roots = [path.read_bytes() for path in given.tsa_root or ()]
    verdict = verify_pack(given.path, _policy(given), roots, given.jobs if given.jobs > 0 else cores())
    if given.json:
        _print_json(verdict.as_json())
    else:
        print(report(verdict, given.lang))
    return OK if verdict.is_verified else WRONG


def report(verdict: Verdict, language: str = "en") -> str:
    """Return the verdict as text for people."""
    words = _WORDS[language]
    lines = [
        (
            f"{words['verified'] if verdict.is_verified else words['refuted']}: {verdict.origin}, "
            f"{verdict.entries} {words['entries']}"
        ),
        "",
        f"{words['checked']}:",
        *(f"  {check.name}: {check.found}" for check in verdict.checks),
    ]
    if verdict.faults:
        lines += ["", f"{words['faults']}:", *(f"  {fault}" for fault in verdict.faults)]
    limits = (limit[1 if language == "zh" else 0] for limit in verdict.limits)
    lines += ["", f"{words['limits']}:", *(f"  {limit}" for limit in limits), "", words["next"]]
    return "\n".join(lines)


def _show(given: argparse.Namespace) -> int:
    from convoy_audit.canonical import b64
    from convoy_audit.checkpoint import peek
    from convoy_audit.describe import sentence
    from convoy_audit.entry import Entry
    from convoy_audit.errors import EvidenceError, FormatError
    from convoy_audit.merkle import Tree, leaf_hash, verify_inclusion
    from convoy_audit.sources import open_log

    log = open_log(given.path)
    checkpoint = max(map(peek, log.notes), key=lambda signed: signed.size, default=None)
    if checkpoint is None:
        raise FormatError("this log has no checkpoint yet")
    if not 0 <= given.entry < checkpoint.size:
        raise EvidenceError(f"no entry {given.entry}; there are {checkpoint.size} under the last checkpoint")
    entries = [raw for _, raw in zip(range(checkpoint.size), log.entries(), strict=False)]
    tree = Tree(map(leaf_hash, entries))
    if tree.size != checkpoint.size:
        raise EvidenceError(f"{checkpoint.size} entries were signed, there are {tree.size}")
    raw = entries[given.entry]
    proof = tree.inclusion_proof(given.entry)
    verify_inclusion(tree.leaf(given.entry), given.entry, tree.size, proof, checkpoint.root)
    entry = Entry(raw)
    if given.json:
        _print_json(
            {
                "index": given.entry,
                "entry": json.loads(raw),
                "leaf": entry.leaf.hex(),
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "proof": [b64(node) for node in proof],
            }
        )
        return OK
    words = _WORDS[given.lang]
    print(f"{words['entry']} {given.entry}: {sentence(entry.content, given.lang)}")
    print(json.dumps(json.loads(raw), indent=2, ensure_ascii=False))
    print(f"{words['leaf']}: {entry.leaf.hex()}")
    print(f"{words['proof']} ({words['under']} {checkpoint.size}):")
    print("\n".join(f"  {node.hex()}" for node in proof))
    return OK


def _fsck(given: argparse.Namespace) -> int:
    from convoy_audit.fsck import check_log

    findings = check_log(given.path, _policy(given))
    if given.json:
        _print_json(findings.as_json())
    else:
        print("\n".join(findings.lines()))
    return WRONG if findings.faults else OK


def _policy(given: argparse.Namespace) -> Policy | None:
    from convoy_audit.policy import Policy

    return None if given.policy is None else Policy.parse(given.policy.read_bytes())


def _nothing(given: argparse.Namespace, code: str, cause: str, fix: str) -> int:
    if given.json:
        _print_json({"verified": False, "error": {"code": code, "cause": cause, "fix": fix}})
    else:
        print(f"convoy-audit: {code}: {cause}", file=sys.stderr)
        if fix:
            print(f"{_WORDS[given.lang]['fix']}: {fix}", file=sys.stderr)
    return NOTHING


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
