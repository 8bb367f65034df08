"""Evidence of chosen entries: each with a proof of its own, for somebody who is not to see the rest.

    ABOUT, entry_file(index), proof_file(index)      names of files, for whoever writes one
    is_selection(files) -> bool
    verify_selection(files: Mapping[str, bytes], pinned: Policy | None = None) -> Verdict

Layout: SPEC.md §7. Every file is checked: the policy's strength, the checkpoint's quorum, each entry's bytes, place and proof, and
SHA256SUMS; unknown files are an error. LIMIT: a selection says nothing about what was not chosen. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from convoy_audit.canonical import is_version, parse_canonical
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError, EvidenceError, FormatError
from convoy_audit.merkle import leaf_hash
from convoy_audit.pack import MAX_SIZE, SUMS, Check, Verdict, check_strength
from convoy_audit.policy import Policy, Verified
from convoy_audit.proof import parse_proof, verify_proof
from convoy_audit.trail import Fault, Trail

ABOUT: Final = "selection.json"
_MEMBERS: Final = {"v", "origin", "size", "madeAt", "asked", "indices", "notYetCheckpointed", "witnessed"}
_LIMITS: Final = (
    (
        "Whether other entries fit the question as well: only the pack of the whole log can show that.",
        "是否还有其他符合条件的条目：只有完整日志的证据包能够说明。",
    ),
    (
        "Whether the entries follow from each other (chains of statements, order of runs): that needs the whole log.",
        "条目之间是否前后相符（声明链、训练顺序）：须有完整日志。",
    ),
)
_OWN_POLICY: Final = (
    "Whether the policy in this file is the right one: compare it with the one you pinned, or give --policy.",
    "本文件内的策略是否正确：请与您固定的策略比较，或使用 --policy。",
)


def entry_file(index: int) -> str:
    """Return the name of the file of an entry."""
    return f"entries/{index}.json"


def proof_file(index: int) -> str:
    """Return the name of the file of its proof."""
    return f"proofs/{index}.tlog-proof"


def is_selection(files: Mapping[str, bytes]) -> bool:
    """Tell whether these are chosen entries and not a pack of a whole log."""
    return ABOUT in files and "pack.json" not in files


def verify_selection(files: Mapping[str, bytes], pinned: Policy | None = None) -> Verdict:
    """Verify chosen entries; every fault is collected.

    Args:
        files: name -> content.
        pinned: the policy that the reader trusts; the file's own if not given.
    """
    faults: list[Fault] = []
    checks: list[Check] = []
    about: dict[str, Any] = {}
    verified: Verified | None = None
    policy: Policy | None = None
    try:
        about = _about(files)
        policy = pinned or Policy.parse(_file(files, "policy"))
        check_strength(policy)
        verified = policy.verify(_file(files, "checkpoint"))
        checkpoint = verified.checkpoint
        if (checkpoint.origin, checkpoint.size) != (about["origin"], about["size"]):
            raise EvidenceError(f"{ABOUT} speaks of another checkpoint")
        checks.append(Check("checkpoint", f"size {checkpoint.size}, {len(verified.standing.cosigned)} cosigned"))
    except AuditError as error:
        faults.append(Fault.of(error))
    for index in about.get("indices", ()):
        try:
            _check_entry(files, index, policy, verified)
        except AuditError as error:
            faults.append(Fault.of(error, index))
    chosen = about.get("indices", ())
    known = {ABOUT, "policy", "checkpoint", "README.txt", SUMS, *map(entry_file, chosen), *map(proof_file, chosen)}
    for name in sorted(set(files) - known):
        faults.append(Fault.of(FormatError(f"{name[:80]} does not belong to this selection")))
    faults += _sums(files)
    checks.append(Check("entries", f"{len(chosen)} chosen, each with its proof"))
    asked = about.get("asked") or {}
    checks.append(Check("asked", ", ".join(f"{name} = {value}" for name, value in sorted(asked.items()))[:400] or "-"))
    standing = verified.standing if verified is not None else None
    return Verdict(
        origin=str(about.get("origin", "")),
        size=len(chosen),
        witnesses=standing.cosigned if standing else (),
        needed=standing.needed if standing else 0,
        checks=tuple(checks),
        faults=tuple(faults),
        limits=(*_LIMITS, *(() if pinned is not None else (_OWN_POLICY,))),
        trail=Trail(),
    )


def _about(files: Mapping[str, bytes]) -> dict[str, Any]:
    about = parse_canonical(files[ABOUT])
    if set(about) != _MEMBERS or not is_version(about["v"], 1):
        raise FormatError(f"{ABOUT}: other members or another version")
    size, indices = about["size"], about["indices"]
    is_list = isinstance(indices, list) and all(type(index) is int for index in indices)
    if type(size) is not int or not 0 <= size <= MAX_SIZE or not is_list or not isinstance(about["asked"], dict):
        raise FormatError(f"{ABOUT}: a member of the wrong kind")
    if indices != sorted(set(indices)) or any(not 0 <= index < size for index in indices):
        raise FormatError(f"{ABOUT}: indices that repeat, are out of order, or beyond the checkpoint")
    return about


def _check_entry(files: Mapping[str, bytes], index: int, policy: Policy | None, verified: Verified | None) -> None:
    raw = _file(files, entry_file(index))
    parse_entry(raw)
    proof = parse_proof(_file(files, proof_file(index)))
    if proof.index != index:
        raise EvidenceError(f"the proof of entry {index} is one of entry {proof.index}")
    if policy is None or verified is None:
        return
    found = verify_proof(proof, leaf_hash(raw), policy)
    if found.checkpoint != verified.checkpoint:
        raise EvidenceError(f"the proof of entry {index} is under another checkpoint")


def _sums(files: Mapping[str, bytes]) -> list[Fault]:
    try:
        listed = dict(line.split("  ", 1)[::-1] for line in _file(files, SUMS).decode("utf-8").splitlines())
    except (AuditError, ValueError):
        return [Fault.of(FormatError(f"{SUMS} is missing or cannot be read"))]
    wrong = [
        name
        for name in sorted({*files, *listed} - {SUMS})
        if name not in files or listed.get(name) != hashlib.sha256(files[name]).hexdigest()
    ]
    return [Fault.of(EvidenceError(f"{name[:80]} is not what {SUMS} says")) for name in wrong]


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise FormatError(f"{name} is missing")
    return files[name]
