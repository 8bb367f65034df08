"""``convoy-audit zk verify``: check a zero-knowledge proof offline, and in which statements its commitments stand.

``zk prove`` makes one and needs ``--experimental``: the construction was not audited by anyone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

_WORDS: Final = {
    "en": {
        "cohort-at-least": "HOLDS: in every named round of {run}, the number that {party} committed to is at least {bound}.",
        "spend-at-most": "HOLDS: over the named rounds of {run}, what {party} committed to is at most {bound} micro epsilon in sum.",
        "logged": "All {count} commitment(s) stand in the log as statements of {party}.",
        "unlogged": "Not checked: that the party stated these commitments to the log. Give --pack with an evidence pack.",
    },
    "zh": {
        "cohort-at-least": "成立：在 {run} 的所列各轮中，{party} 承诺的数值均不小于 {bound}。",
        "spend-at-most": "成立：在 {run} 的所列各轮中，{party} 承诺的数值合计不超过 {bound} 微 ε。",
        "logged": "全部 {count} 项承诺均作为 {party} 的声明记入日志。",
        "unlogged": "未核验：该方是否已将这些承诺写入日志。请用 --pack 指定证据包。",
    },
}


def add_zk(commands: Any) -> None:
    """Add the commands to the parser of ``convoy-audit``."""
    what = "zero-knowledge proofs about hidden numbers (experimental, extra: zk)"
    zk = commands.add_parser("zk", help=what, description=f"{what}.".capitalize())
    acts = zk.add_subparsers(required=True, metavar="ACT")
    verify = acts.add_parser("verify", help="check a proof offline", description="Check a proof offline.")
    verify.add_argument("path", metavar="PROOF", type=Path, help="the proof, JSON")
    verify.add_argument("--pack", type=Path, metavar="PACK", help="evidence pack in which the commitments must stand")
    verify.set_defaults(act=_verify)
    prove = acts.add_parser("prove", help="make a proof", description="Make a proof. Experimental, not audited.")
    prove.add_argument(
        "path", metavar="OPENINGS", type=Path, help='JSON list of {"round","value","blinding"} (private)'
    )
    prove.add_argument("--experimental", action="store_true", required=True, help="I know that this was not audited")
    prove.add_argument("--kind", choices=("cohort-at-least", "spend-at-most"), required=True, help="what is claimed")
    prove.add_argument("--bound", type=int, required=True, metavar="N", help="smallest cohort, or cap in micro epsilon")
    prove.add_argument("--bits", type=int, default=32, metavar="N", help="size of the numbers (32)")
    prove.add_argument("--contract", required=True, metavar="DIGEST", help="the contract that it is about")
    prove.add_argument("--run", required=True, help="the run that it is about")
    prove.add_argument("--party", required=True, metavar="ID", help="whose quantity it is")
    prove.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the proof goes")
    prove.set_defaults(act=_prove)
    for command in (verify, prove):
        command.add_argument("--json", action="store_true", help="print data instead of text")
        command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")


def _verify(given: argparse.Namespace) -> int:
    from convoy_audit import zk
    from convoy_audit.canonical import b64u
    from convoy_audit.errors import ZkError

    proof = zk.ZkProof.from_bytes(given.path.read_bytes())
    fault = None
    is_logged = None
    try:
        zk.verify(proof)
        if given.pack is not None:
            is_logged = _stated(given.pack, proof)
            if not is_logged:
                raise ZkError("the party has not stated all of these commitments to the log", party=proof.claim.party)
    except ZkError as error:
        if not _is_installed():
            raise
        fault = error
    claim, which = proof.claim, 1 if given.lang == "zh" else 0
    if given.json:
        data: dict[str, Any] = {
            "holds": fault is None,
            "kind": claim.kind,
            "bound": claim.bound,
            "party": claim.party,
            "contract": claim.contract,
            "run": claim.run,
            "rounds": list(claim.rounds),
            "commitments": [b64u(point) for point in proof.commitments],
            "inLog": is_logged,
            "label": zk.LABEL[which],
        }
        print(json.dumps(data | ({"fault": fault.cause} if fault else {}), indent=2, ensure_ascii=False))
        return 1 if fault else 0
    if fault:
        print(f"NOT VERIFIED: {fault.cause}")
        print(fault.fix_zh if given.lang == "zh" else fault.fix)
    else:
        words = _WORDS[given.lang]
        print(words[claim.kind].format(run=claim.run, party=claim.party, bound=claim.bound))
        print(words["logged" if is_logged else "unlogged"].format(count=len(proof.commitments), party=claim.party))
    print(f"({zk.LABEL[which]})")
    return 1 if fault else 0


def _is_installed() -> bool:
    from convoy_audit import zk_group

    return zk_group.is_available()


def _stated(path: Path, proof: Any) -> bool:
    """Tell whether every commitment stands in a statement of this party, for its run, contract and round."""
    from convoy_audit.archive import verify_pack
    from convoy_audit.entry import parse_entry
    from convoy_audit.errors import EvidenceError
    from convoy_audit.events import QuantityCommitted
    from convoy_audit.sources import open_log
    from convoy_audit.statement import Statement

    verdict = verify_pack(path)
    if not verdict.is_verified:
        raise EvidenceError(f"the pack does not verify: {verdict.faults[0]}")
    claim = proof.claim
    quantity = "cohort" if claim.kind == "cohort-at-least" else "spend"
    wanted = set(zip(claim.rounds, proof.commitments, strict=True))
    for raw in open_log(path).entries():
        content = parse_entry(raw)
        event = content.event if isinstance(content, Statement) else None
        if isinstance(event, QuantityCommitted) and (event.party, event.run, event.contract, event.quantity) == (
            claim.party,
            claim.run,
            claim.contract,
            quantity,
        ):
            wanted.discard((event.round, event.commitment))
    return not wanted


def _prove(given: argparse.Namespace) -> int:
    from convoy_audit import zk
    from convoy_audit.canonical import parse_json, unb64u
    from convoy_audit.errors import FormatError

    rows = parse_json(given.path.read_bytes())
    try:
        openings = {int(row["round"]): zk.Opening(int(row["value"]), unb64u(row["blinding"])) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise FormatError('openings are a list of {"round", "value", "blinding"}') from None
    rounds = tuple(sorted(openings))
    claim = zk.Claim(given.kind, given.bound, given.contract, given.run, given.party, rounds, given.bits)
    proof = zk.prove(claim, [openings[number] for number in rounds])
    given.out.write_bytes(proof.to_bytes())
    if given.json:
        print(json.dumps({"written": str(given.out), "label": zk.LABEL[0]}))
    else:
        print(f"{given.out}  ({zk.LABEL[1 if given.lang == 'zh' else 0]})\nNext: convoy-audit zk verify {given.out}")
    return 0
