"""Evidence packs: everything an auditor needs to check a log offline, and the check itself.

    Parts(policy, checkpoint, entries, made_at, …) -> build(parts) -> {name: bytes}
    verify_files(files: Mapping[str, bytes], pinned: Policy | None = None) -> Verdict
    Verdict: .is_verified, .faults, .checks, .limits, .as_json()

Layout and rules: SPEC.md §7. The verifier derives the whole tree from the entries; it needs no
network and no code of the coordinator. It reports all faults, and says what it cannot know.
Pure: ``convoy_audit.archive`` reads and writes folders and zip files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from convoy_audit.canonical import Json, canonical_bytes, digest, parse_canonical, parse_json
from convoy_audit.checkpoint import Checkpoint, open_checkpoint
from convoy_audit.contract_check import check_contract
from convoy_audit.errors import AuditError, EvidenceError, FormatError, PolicyError, ProofError
from convoy_audit.merkle import frontier_root, leaf_hash, node_hash
from convoy_audit.policy import Policy, Verified, check_log_signed, quorum_of
from convoy_audit.shapes import INSTANT
from convoy_audit.tiles import decode_bundle, encode_bundle, entries_path, entries_spans
from convoy_audit.trail import Fault, Trail
from convoy_audit.witness import Alarm

VERSION: Final = 1
SUMS: Final = "SHA256SUMS"
MAX_SIZE: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class SignedContract:
    """A contract document (any spelling) and the parties' detached signatures (FORMAT.md §4)."""

    document: bytes
    signatures: Sequence[Mapping[str, Json]] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pack is made of; ``entries`` are exactly those under ``checkpoint``."""

    policy: bytes
    checkpoint: bytes
    entries: Sequence[bytes]
    made_at: datetime
    checkpoints: Sequence[bytes] = ()
    contracts: Sequence[SignedContract] = ()
    manifests: Mapping[str, bytes] = field(default_factory=dict)  # run -> manifest.json
    alarms: Sequence[Alarm] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, with what was found."""

    name: str
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier found; ``is_verified`` only if nothing was wrong."""

    origin: str
    size: int
    witnesses: tuple[str, ...]
    needed: int
    checks: tuple[Check, ...]
    faults: tuple[Fault, ...]
    limits: tuple[tuple[str, str], ...]  # what it cannot know, en and zh
    trail: Trail = field(repr=False)

    @property
    def is_verified(self) -> bool:
        """Tell whether everything that could be checked holds."""
        return not self.faults

    @property
    def entries(self) -> int:
        """The number of entries."""
        return self.size

    def as_json(self) -> dict[str, Json]:
        """Return the verdict as data."""
        return {
            "verified": self.is_verified,
            "origin": self.origin,
            "entries": self.size,
            "witnesses": len(self.witnesses),
            "cosigned": list(self.witnesses),
            "needed": self.needed,
            "checks": [{"name": c.name, "found": c.found} for c in self.checks],
            "faults": [{"code": f.code, "cause": f.cause, "party": f.party, "entry": f.index} for f in self.faults],
            "cannotKnow": [{"en": en, "zh": zh} for en, zh in self.limits],
        }


def build(parts: Parts) -> dict[str, bytes]:
    """Return the files of a pack.

    Raises:
        AuditError: a part is malformed, or the entries are not those under the checkpoint.
    """
    policy = Policy.parse(parts.policy)
    checkpoint, _ = open_checkpoint(parts.checkpoint, policy.logs)
    if checkpoint.size != len(parts.entries):
        raise EvidenceError(f"{len(parts.entries)} entries under a checkpoint of {checkpoint.size}")
    about = {
        "v": VERSION,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "madeAt": INSTANT.write(parts.made_at),
    }
    files = {
        "pack.json": canonical_bytes(about),
        "policy": parts.policy,
        "checkpoint": parts.checkpoint,
    }
    for span in entries_spans(checkpoint.size):
        start = span.index * 256
        bundle = encode_bundle(parts.entries[start : start + span.width])
        files[entries_path(span.index, span.width)] = bundle
    for note in parts.checkpoints:
        size = open_checkpoint(note, policy.logs)[0].size
        if size < checkpoint.size:
            files[f"checkpoints/{size}"] = note
    for contract in parts.contracts:
        document = canonical_bytes(parse_json(contract.document))
        name = f"contracts/{hashlib.sha256(document).hexdigest()}"
        files[f"{name}/contract.json"] = document
        if contract.signatures:
            signatures = [dict(entry) for entry in contract.signatures]
            files[f"{name}/signatures.json"] = canonical_bytes(signatures)
    for run, manifest in parts.manifests.items():
        files[f"releases/{run}/manifest.json"] = manifest
    for number, alarm in enumerate(parts.alarms, start=1):
        files[f"alarms/{number}.json"] = alarm.to_bytes()
    sums = "".join(f"{hashlib.sha256(files[n]).hexdigest()}  {n}\n" for n in sorted(files))
    return {**files, SUMS: sums.encode()}


def verify_files(files: Mapping[str, bytes], pinned: Policy | None = None) -> Verdict:
    """Verify a pack.

    Args:
        files: name -> content; may be read lazily, each content is asked for once or twice.
        pinned: the policy that the auditor trusts; the pack's own if not given.

    Raises:
        FormatError: this is no evidence pack at all.
    """
    if "pack.json" not in files or "checkpoint" not in files:
        raise FormatError("no evidence pack: pack.json or checkpoint is missing")
    return _Verification(files, pinned).run()


class _Verification:
    """One verification, in numbered steps; collects faults and goes on where it can."""

    def __init__(self, files: Mapping[str, bytes], pinned: Policy | None) -> None:
        self._files = files
        self._pinned = pinned
        self._faults: list[Fault] = []
        self._checks: list[Check] = []
        self._limits: list[tuple[str, str]] = []
        self._expected: set[str] = {"pack.json", "policy", "checkpoint", SUMS}
        self._roots: dict[int, bytes] = {}
        self._trail = Trail()

    def run(self) -> Verdict:
        about = self._step(self._about) or {}
        policy = self._step(self._policy)
        verified = self._step(lambda: self._checkpoint(policy)) if policy else None
        size = verified.checkpoint.size if verified else int(about.get("size", 0))
        self._step(lambda: self._tree(size, verified))
        if policy is not None:
            self._step(lambda: self._earlier(policy))
            self._each("alarms/", lambda name: self._alarm(name, policy))
        self._say_trail()
        self._contracts()
        self._releases()
        self._step(self._sums)
        self._say_limits(policy, verified)
        standing = verified.standing if verified else None
        return Verdict(
            origin=str(about.get("origin", "")),
            size=self._trail.size,
            witnesses=standing.cosigned if standing else (),
            needed=standing.needed if standing else 0,
            checks=tuple(self._checks),
            faults=tuple(self._faults),
            limits=tuple(self._limits),
            trail=self._trail,
        )

    # 1. What the pack says of itself.
    def _about(self) -> dict[str, Any]:
        about = parse_canonical(self._files["pack.json"])
        size = about.get("size")
        if set(about) != {"v", "origin", "size", "madeAt"} or about["v"] != VERSION:
            raise FormatError("pack.json: other members or another version")
        if type(size) is not int or not 0 <= size <= MAX_SIZE or type(about["origin"]) is not str:
            raise FormatError("pack.json: a member of the wrong kind")
        INSTANT.read(about["madeAt"])
        return about

    # 2. Whom to believe.
    def _policy(self) -> Policy:
        own = Policy.parse(self._file("policy"))
        policy = self._pinned or own
        self._found("policy", f"{policy.needed} of {len(policy.quorum_members)} witnesses")
        if self._pinned is not None and self._pinned.digest != own.digest:
            self._found("policy", "the pack's own policy differs; the pinned one was used")
        if policy.needed < quorum_of(len(policy.quorum_members)) or not policy.quorum_members:
            raise PolicyError(f"a quorum of {policy.needed} of {len(policy.quorum_members)} witnesses is too weak")
        return policy

    # 3. The checkpoint: log signatures and quorum.
    def _checkpoint(self, policy: Policy) -> Verified:
        verified = policy.verify(self._file("checkpoint"))
        standing = verified.standing
        about = self._step(self._about)
        if about and (about["origin"], about["size"]) != (
            verified.checkpoint.origin,
            verified.checkpoint.size,
        ):
            raise EvidenceError("pack.json and checkpoint speak of different logs or sizes")
        signed = [s.verifier.kind.name for s in standing.note.signatures if s.verifier in policy.logs]
        self._found("log signatures", ", ".join(sorted(signed)))
        self._found(
            "cosignatures",
            f"{len(standing.cosigned)} of {len(policy.quorum_members)} witnesses, "
            f"{standing.needed} needed: {', '.join(standing.cosigned)}",
        )
        return verified

    # 4. The whole tree, from the entries alone.
    def _tree(self, size: int, verified: Verified | None) -> None:
        wanted = set(self._earlier_sizes()) | {size}
        peaks: list[bytes] = []
        for index, raw in enumerate(self._entries(size)):
            node, bits = leaf_hash(raw), index
            while bits & 1:
                node, bits = node_hash(peaks.pop(), node), bits >> 1
            peaks.append(node)
            if index + 1 in wanted:
                self._roots[index + 1] = frontier_root(peaks)
            self._trail.take(index, raw)
        if size == 0:
            self._roots[0] = frontier_root(peaks)
        if verified is not None and self._roots.get(size) != verified.checkpoint.root:
            raise ProofError("the entries do not give the root that was signed")
        self._found("tree", f"derived from {size} entries; the root is the signed one")

    def _entries(self, size: int) -> Iterator[bytes]:
        for span in entries_spans(size):
            yield from decode_bundle(self._file(entries_path(span.index, span.width)), span.width)

    # 5. Earlier checkpoints lie on the same history.
    def _earlier(self, policy: Policy) -> None:
        sizes = self._earlier_sizes()
        for size in sizes:
            note = self._file(f"checkpoints/{size}")
            checkpoint, opened = open_checkpoint(note, policy.logs)
            check_log_signed(checkpoint, opened, policy.logs)
            if checkpoint.size != size or self._roots.get(size) != checkpoint.root:
                raise ProofError(f"the checkpoint of {size} is not on this history")
        if sizes:
            self._found("earlier checkpoints", f"{len(sizes)} signed by the log, all consistent")

    def _earlier_sizes(self) -> list[int]:
        names = (n.removeprefix("checkpoints/") for n in self._files if n.startswith("checkpoints/"))
        return sorted(int(n) for n in names if n.isascii() and n.isdigit() and len(n) < 16)

    # 6. Alarms that witnesses kept.
    def _alarm(self, name: str, policy: Policy) -> None:
        alarm = Alarm.from_bytes(self._file(name))
        pair: list[Checkpoint] = []
        for note in (alarm.known, alarm.offered):
            checkpoint, opened = open_checkpoint(note, policy.logs)
            check_log_signed(checkpoint, opened, policy.logs)
            pair.append(checkpoint)
        known, offered = pair
        if known.size == offered.size and known.root != offered.root:
            raise EvidenceError(f"the log has signed two different trees of size {known.size}")
        raise EvidenceError(
            f"a witness that knew {known.size} entries refused a checkpoint of {offered.size}: {alarm.finding}"
        )

    # 7. What the entries say to each other.
    def _say_trail(self) -> None:
        trail = self._trail
        self._faults += trail.faults
        statements = sum(chain.number for chain in trail.chains.values())
        self._found("entries", f"{trail.size} canonical, {len(trail.kinds)} kinds of event")
        self._found("statements", f"{statements} signed, numbered and chained by {len(trail.chains)} parties")
        self._found(
            "runs",
            f"{len(trail.authorised)} authorised, {len(trail.releases)} released, {len(trail.denials)} denials",
        )

    # 8. Contracts: bytes, digest, every party's signature.
    def _contracts(self) -> None:
        present = sorted({n.split("/")[1] for n in self._files if n.startswith("contracts/")})
        keys = {p.party: p.identity_key for p in self._trail.parties.values()}
        for name in present:
            self._step(lambda name=name: self._contract(name, keys))
        if present:
            self._found("contracts", f"{len(present)} with the digest that was logged")
        missing = len(self._trail.contracts - {f"sha256:{name}" for name in present})
        if missing:
            self._limit(
                f"{missing} contract(s) named in the log are not in the pack.",
                f"日志中提到的 {missing} 份合约不在证据包内。",
            )

    def _contract(self, name: str, keys: Mapping[str, bytes]) -> None:
        path = f"contracts/{name}/signatures.json"
        self._expected.add(path)
        document = self._file(f"contracts/{name}/contract.json")
        if digest(document) != f"sha256:{name}":
            raise EvidenceError(f"contract {name[:16]}… does not have the digest of its folder")
        if f"sha256:{name}" not in self._trail.contracts:
            raise EvidenceError(f"contract {name[:16]}… is not named in the log")
        if path not in self._files:
            self._limit(
                f"No signatures are given for contract {name[:16]}….",
                f"合约 {name[:16]}… 未附签名。",
            )
            return
        signers = check_contract(document, parse_json(self._file(path)), keys)
        self._found("contract signatures", f"{name[:16]}… by {len(signers)} parties, all of them")

    # 9. Releases: the manifest that was logged.
    def _releases(self) -> None:
        for name in sorted(n for n in self._files if n.startswith("releases/")):
            self._step(lambda name=name: self._release(name))
        missing = [r for r in self._trail.releases if f"releases/{r}/manifest.json" not in self._files]
        if missing:
            self._limit(
                f"The manifests of {len(missing)} release(s) are not in the pack.",
                f"{len(missing)} 次发布的清单不在证据包内。",
            )

    def _release(self, name: str) -> None:
        parts = name.split("/")
        if len(parts) != 3 or parts[2] != "manifest.json":
            raise FormatError(f"the file {name[:80]!r} does not belong to a pack")
        manifest = self._file(name)
        release = self._trail.releases.get(parts[1])
        if release is None:
            raise EvidenceError(f"no release of run {parts[1][:80]} is in the log")
        if digest(manifest) != release.manifest:
            raise EvidenceError(f"the manifest of run {parts[1][:80]} is not the logged one")
        self._found("release", f"run {parts[1]}: its manifest is in the log")

    # 10. Sums, and no file that nobody checked.
    def _sums(self) -> None:
        strange = sorted(set(self._files) - self._expected)
        if strange:
            raise FormatError(f"{len(strange)} unknown file(s), such as {strange[0][:80]!r}")
        lines = [
            f"{hashlib.sha256(self._files[name]).hexdigest()}  {name}\n"
            for name in sorted(self._expected - {SUMS})
            if name in self._files
        ]
        if self._files.get(SUMS) != "".join(lines).encode():
            raise EvidenceError("SHA256SUMS does not fit the files")
        self._found("files", f"{len(lines)}, all with the sums that are listed")

    def _say_limits(self, policy: Policy | None, verified: Verified | None) -> None:
        if policy is not None and self._pinned is None:
            self._limit(
                f"The policy came with the pack ({policy.digest}). Compare it with the one that you "
                "were given, or use --policy.",
                f"策略来自证据包（{policy.digest}）。请与您持有的策略核对，或使用 --policy。",
            )
        if verified is not None and (times := verified.standing.times_s):
            first, last = (datetime.fromtimestamp(t, UTC).isoformat() for t in (times[0], times[-1]))
            self._limit(
                f"Times of entries are their authors' clocks. All entries are older than {last}: the "
                f"witnesses cosigned between {first} and {last}.",
                f"条目时间取自作者时钟。全部条目早于 {last}：见证签名时间为 {first} 至 {last}。",
            )
        for party, chain in sorted(self._trail.chains.items()):
            self._limit(
                f"{party}: statements 1 to {chain.number} are here. Only the party knows whether there are later ones.",
                f"{party}：此处有第 1 至 {chain.number} 号声明；是否有更晚的声明只有该参与方知道。",
            )
        self._limit(
            "That an entry is here does not make it true: the log shows what was declared, decided "
            "and released, and that it was not changed since.",
            "条目在此并不证明其内容属实：日志只证明声明、决定与发布的内容，且此后未被更改。",
        )
        self._limit(
            "If the coordinator and a quorum of witnesses conspire, they can show another history.",
            "若协调方与达到法定数的见证方串通，可展示另一份历史。",
        )

    def _file(self, name: str) -> bytes:
        self._expected.add(name)
        content = self._files.get(name)
        if content is None:
            raise FormatError(f"{name} is missing")
        return content

    def _each(self, prefix: str, act: Any) -> None:
        for name in sorted(n for n in self._files if n.startswith(prefix)):
            self._step(lambda name=name: act(name))

    def _step(self, act: Any) -> Any:
        try:
            return act()
        except AuditError as error:
            self._faults.append(Fault.of(error))
            return None

    def _found(self, name: str, found: str) -> None:
        self._checks.append(Check(name, found))

    def _limit(self, english: str, chinese: str) -> None:
        self._limits.append((english, chinese))
