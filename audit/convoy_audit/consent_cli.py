"""``convoy-audit consent``: check a person's consent proof and receipt, without a node and without a network.

    convoy-audit consent PROOF --card CARD [--receipt RECEIPT] [--pack PACK]

PROOF is what ``convoy-node consent prove`` or the node's HTTP API wrote, CARD the party's public card, RECEIPT what the person
was given at the withdrawal. With PACK, an evidence pack, the epoch's statement must stand in the log as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

_WORDS: Final = {
    "en": {
        "holds": "VERIFIED",
        "state": "In epoch {epoch} of {contract} at {party} ({at}) the consent stands as: {state}.",
        "nothing": "In epoch {epoch} of {contract} at {party} ({at}) nothing is registered about this person.",
        "receipt": "The withdrawal that the receipt promised is in this epoch: every run authorised after {at} is without the person.",
        "logged": "The epoch's statement is entry {entry} of the log in the pack.",
        "unlogged": "Not checked: that the statement stands in the log. Give --pack with an evidence pack.",
    },
    "zh": {
        "holds": "核验通过",
        "state": "在 {party} 的 {contract} 第 {epoch} 期（{at}），该同意的状态为：{state}。",
        "nothing": "在 {party} 的 {contract} 第 {epoch} 期（{at}），没有关于此人的登记。",
        "receipt": "回执所承诺的撤回已在本期内：{at} 之后授权的所有训练均不包含此人。",
        "logged": "该期的声明是证据包日志的第 {entry} 条。",
        "unlogged": "未核验：该声明是否在日志中。请用 --pack 指定证据包。",
    },
}


def add_consent(commands: Any) -> None:
    """Add the command to the parser of ``convoy-audit``."""
    what = "check a person's consent proof and receipt offline"
    command: argparse.ArgumentParser = commands.add_parser("consent", help=what, description=what)
    command.add_argument("path", metavar="PROOF", type=Path, help="the proof, JSON")
    command.add_argument("--card", type=Path, metavar="FILE", required=True, help="the party's public card.json")
    command.add_argument("--receipt", type=Path, metavar="FILE", help="the withdrawal receipt, JSON")
    command.add_argument("--pack", type=Path, metavar="PACK", help="evidence pack in which the statement must stand")
    command.add_argument("--json", action="store_true", help="print data instead of text")
    command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")
    command.set_defaults(act=_check)


def _check(given: argparse.Namespace) -> int:
    from convoy_audit.canonical import parse_json, unb64u
    from convoy_audit.consent import check_withdrawn, verify_proof, verify_receipt
    from convoy_audit.errors import ConsentProofError

    try:
        card = parse_json(given.card.read_bytes())
        key = unb64u(str(card.get("identityKey") if isinstance(card, dict) else None))
        proven = verify_proof(parse_json(given.path.read_bytes()), key)
        receipt = None
        if given.receipt is not None:
            receipt = verify_receipt(parse_json(given.receipt.read_bytes()), key)
            check_withdrawn(proven, receipt)
        entry = None if given.pack is None else _entry_of(given.pack, proven.statement)
    except ConsentProofError as error:
        return _wrong(given, error.code, error.cause, error.fix_zh if given.lang == "zh" else error.fix)
    words = _WORDS[given.lang]
    facts: dict[str, Any] = {
        "verified": True,
        "party": proven.party,
        "contract": proven.contract,
        "epoch": proven.epoch,
        "at": proven.at.isoformat(),
        "state": None if proven.state is None else dict(proven.state),
        "receipt": receipt is not None,
        "entry": entry,
    }
    if given.json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    shown = {**facts, "state": proven.state["state"] if proven.state else ""}
    lines = [words["holds"], words["nothing" if proven.state is None else "state"].format(**shown)]
    if receipt is not None:
        lines.append(words["receipt"].format(at=receipt.get("at")))
    lines.append(words["unlogged"] if entry is None else words["logged"].format(entry=entry))
    print("\n".join(lines))
    return 0


def _entry_of(pack: Path, statement: str) -> int:
    """Return where the statement stands in a pack that holds."""
    from convoy_audit.archive import read_files, verify_pack
    from convoy_audit.canonical import digest
    from convoy_audit.checkpoint import peek
    from convoy_audit.errors import ConsentProofError
    from convoy_audit.tiles import decode_bundle, entries_path, entries_spans

    verdict = verify_pack(pack, None)
    if not verdict.is_verified:
        raise ConsentProofError("the evidence pack does not hold; run convoy-audit verify")
    files = read_files(pack)
    entries: list[bytes] = []
    for span in entries_spans(peek(files["checkpoint"]).size):
        entries += decode_bundle(files[entries_path(span.index, span.width)], span.width)
    found = next((number for number, raw in enumerate(entries) if digest(raw) == statement), None)
    if found is None:
        raise ConsentProofError("the log of the pack does not hold the epoch's statement")
    return found


def _wrong(given: argparse.Namespace, code: str, cause: str, fix: str) -> int:
    if given.json:
        print(json.dumps({"verified": False, "code": code, "cause": cause, "fix": fix}, ensure_ascii=False, indent=2))
    else:
        print(f"{'核验未通过' if given.lang == 'zh' else 'NOT VERIFIED'}: {code}: {cause}\n{fix}")
    return 1
