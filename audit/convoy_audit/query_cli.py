"""``convoy-audit query | report use | sample``: questions to a log that was verified just before."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from convoy_audit.query import Found, Use
    from convoy_audit.sources import Log

_WORDS: Final = {
    "en": {
        "wrong": "This log does not verify; nothing is answered from it. Faults:",
        "found": "{count} of {size} entries.",
        "seed": "Sample of {count} from {size} entries, seed {seed}. Repeat it with --seed {seed}.",
        "head": (
            "contract",
            "quarter",
            "party",
            "requesters",
            "purposes",
            "assets",
            "runs",
            "allow",
            "deny",
            "released",
            "epsilon",
        ),
        "limit": "Use is what the log declares: it shows decisions and ledgers, not what a node did outside of it. Epsilon composes the "
        "runs of one quarter (Gaussian mechanisms, rounded up, per person); quarters do not add up.",
        "policy": "Signatures were not verified: give --policy with the policy that you trust.",
        "next": "Next: convoy-audit show LOG ENTRY prints one entry with its proof.",
    },
    "zh": {
        "wrong": "该日志核验未通过，不据此回答。问题：",
        "found": "{size} 条中的 {count} 条。",
        "seed": "从 {size} 条中抽取 {count} 条，种子 {seed}。可用 --seed {seed} 重现。",
        "head": ("合约", "季度", "参与方", "申请方", "目的", "资产", "训练", "允许", "拒绝", "发布", "ε"),
        "limit": "使用情况以日志所载为准：日志记录决定与账本，不记录节点在日志之外的行为。"
        "ε 为同一季度内各次训练的合成值（高斯机制，每人，向上取整）；各季度不可相加。",
        "policy": "未核验签名：请用 --policy 指定您信任的策略。",
        "next": "下一步：convoy-audit show 日志 条目号，可查看单条及其证明。",
    },
}


def add_queries(commands: Any) -> None:
    """Add the commands to the parser of ``convoy-audit``."""
    what = "find entries by contract, party, run, model, time or reason"
    query = _command(commands, "query", _query, what)
    query.add_argument("--contract", metavar="UID|DIGEST", help="entries of one contract")
    query.add_argument("--party", metavar="ID", help="entries that name this party")
    query.add_argument("--run", metavar="RUN", help="entries of one run")
    query.add_argument("--model", metavar="DIGEST|RUN", help="releases, recalls and loads of one model")
    query.add_argument("--since", metavar="INSTANT", type=_instant, help="from this date or instant (ISO 8601, UTC)")
    query.add_argument("--until", metavar="INSTANT", type=_instant, help="before this date or instant")
    query.add_argument("--reason", metavar="CODE", help="denials, refusals and recalls with this reason")
    query.add_argument("--kind", metavar="TYPE", help="event type, or its beginning, such as node:run:")
    report = commands.add_parser("report", help="summaries of a log", description="Summaries of a log.")
    reports = report.add_subparsers(required=True, metavar="REPORT")
    use = _command(reports, "use", _use, "who used which data under which contract, by quarter")
    use.add_argument("--quarter", metavar="2026-Q4", type=_quarter, help="one quarter only")
    use.add_argument("--contract", metavar="UID|DIGEST", help="one contract only")
    sample = _command(commands, "sample", _sample, "draw entries at random for a reviewer; the seed is printed")
    sample.add_argument("-n", "--count", type=int, default=10, metavar="N", help="how many (10)")
    sample.add_argument("--seed", metavar="SEED", help="repeat an earlier sample")


def _command(commands: Any, name: str, act: Any, what: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=f"{what}.".capitalize())
    command.add_argument("path", metavar="LOG", type=Path, help="evidence pack, tiles, SQLite file or pg_dump")
    command.add_argument("--policy", type=Path, metavar="FILE", help="the policy that you trust (tlog-policy)")
    command.add_argument("--json", action="store_true", help="print data instead of text")
    command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")
    command.set_defaults(act=act)
    return command


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date or instant such as 2026-10-01") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _quarter(text: str) -> str:
    if re.fullmatch(r"[0-9]{4}-Q[1-4]", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no quarter such as 2026-Q4")
    return text


def _verified(given: argparse.Namespace) -> Log | None:
    """Open the log if it verifies; else say what is wrong."""
    from convoy_audit.fsck import check_log
    from convoy_audit.policy import Policy
    from convoy_audit.sources import open_log

    policy = None if given.policy is None else Policy.parse(given.policy.read_bytes())
    findings = check_log(given.path, policy)
    if findings.faults:
        if given.json:
            _print_json(findings.as_json())
        else:
            print(_WORDS[given.lang]["wrong"], file=sys.stderr)
            print("\n".join(f"  {fault}" for fault in findings.faults), file=sys.stderr)
        return None
    if policy is None and not given.json:
        print(_WORDS[given.lang]["policy"], file=sys.stderr)
    return open_log(given.path)


def _query(given: argparse.Namespace) -> int:
    from convoy_audit.query import Filter

    log = _verified(given)
    if log is None:
        return 1
    wanted = Filter(
        contract=given.contract,
        party=given.party,
        run=given.run,
        model=given.model,
        since=given.since,
        until=given.until,
        reason=given.reason,
        kind=given.kind,
    )
    size = sum(1 for _ in log.entries())
    found = list(wanted.select(log.entries()))
    _say(given, found, size)
    if not given.json:
        print(_text(given.lang, "found").format(count=len(found), size=size))
        print(_text(given.lang, "next"))
    return 0


def _sample(given: argparse.Namespace) -> int:
    from convoy_audit.query import Filter, sample

    log = _verified(given)
    if log is None:
        return 1
    size = sum(1 for _ in log.entries())
    seed = given.seed or secrets.token_hex(8)
    drawn = set(sample(size, min(given.count, size), seed))
    found = [entry for entry in Filter().select(log.entries()) if entry.index in drawn]
    if not given.json:
        print(_text(given.lang, "seed").format(count=len(found), size=size, seed=seed))
    _say(given, found, size, seed)
    return 0


def _use(given: argparse.Namespace) -> int:
    from convoy_audit.query import use_by_quarter

    log = _verified(given)
    if log is None:
        return 1
    rows = [
        row
        for row in use_by_quarter(log.entries())
        if (given.quarter is None or row.quarter == given.quarter)
        and (given.contract is None or given.contract in (row.uid, row.contract))
    ]
    if given.json:
        _print_json([row.as_json() for row in rows])
        return 0
    _table([_WORDS[given.lang]["head"], *map(_cells, rows)])
    print(_text(given.lang, "limit"))
    return 0


def _cells(row: Use) -> tuple[str, ...]:
    return (
        row.uid or row.contract[:15] + "…",
        row.quarter,
        row.party,
        ", ".join(sorted(row.requesters)),
        ", ".join(sorted(row.purposes)),
        ", ".join(sorted(row.assets)),
        str(len(row.runs)),
        str(row.allowed),
        str(row.denied),
        str(len(row.released)),
        ", ".join(f"{asset} {-(-micro // 1000) / 1000:.3f}" for asset, micro in sorted(row.spent_micro.items())),
    )


def _table(rows: list[Any]) -> None:
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _say(given: argparse.Namespace, found: Iterable[Found], size: int, seed: str | None = None) -> None:
    from convoy_audit.describe import sentence
    from convoy_audit.events import to_json
    from convoy_audit.statement import Statement

    if given.json:
        entries = [
            {
                "index": f.index,
                "party": f.content.party if isinstance(f.content, Statement) else None,
                "event": to_json(f.event),
                "sentence": sentence(f.content, given.lang),
            }
            for f in found
        ]
        _print_json({"size": size, **({"seed": seed} if seed else {}), "entries": entries})
        return
    for f in found:
        print(f"{f.index}: {sentence(f.content, given.lang)}")


def _text(language: str, name: str) -> str:
    return str(_WORDS[language][name])


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
