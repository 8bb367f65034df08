"""Evidence packs: everything an auditor needs to check a log offline, and the check itself.

    Parts(policy, checkpoint, entries, made_at, …) -> build(parts) -> {name: bytes}
    verify_files(files: Mapping[str, bytes], pinned: Policy | None = None, tsa_roots=()) -> Verdict
    Verdict: .is_verified, .faults, .checks, .limits, .as_json()

Layout and rules: SPEC.md §7. The verifier derives the whole tree from the entries; it needs no
network and no code of the coordinator. It reports all faults, and says what it cannot know. What a pack
holds for convenience - proofs of single entries, lists of decisions and ledgers, the report - is derived
again and compared, so none of it can say anything else than the log.
Pure: ``convoy_audit.archive`` reads and writes folders and zip files.
LENGTH: over 500 lines: what builds a file of the pack stands beside what checks it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

from convoy_audit import timestamps
from convoy_audit.canonical import (
    Json,
    b64,
    canonical_bytes,
    decimal,
    digest,
    is_version,
    parse_canonical,
    parse_json,
    unb64,
)
from convoy_audit.checkpoint import Checkpoint, open_checkpoint, peek
from convoy_audit.contract_check import check_contract
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError, EvidenceError, FormatError, PolicyError, ProofError
from convoy_audit.merkle import Tree, verify_consistency, verify_inclusion
from convoy_audit.note import split_note
from convoy_audit.policy import Policy, Verified, check_log_signed, quorum_of
from convoy_audit.proof import TlogProof
from convoy_audit.report import render
from convoy_audit.shapes import INSTANT
from convoy_audit.skim import Keys, Skimmed, skim, skim_bundle
from convoy_audit.summary import MAX_PROOFS, Summary
from convoy_audit.tiles import WIDTH, Span, decode_bundle, encode_bundle, entries_path, entries_spans
from convoy_audit.trail import Fault, Trail
from convoy_audit.witness import Alarm
from convoy_audit.witness_change import follow

VERSION: Final = 1
SUMS: Final = "SHA256SUMS"
MAX_SIZE: Final = 100_000_000
Bundles: TypeAlias = Callable[[Iterable[Span], Callable[[], Keys]], Iterator[Skimmed]]
"""Reads bundles in order; the second argument tells the parties' keys as the entries so far give them."""


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
    release_files: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)  # run -> file name -> content
    timestamps: Mapping[int, bytes] = field(default_factory=dict)  # size of a checkpoint -> RFC 3161 response


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
        start = span.index * WIDTH
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
    for run, contents in parts.release_files.items():
        for name, content in contents.items():
            files[f"releases/{run}/{name}"] = content
    for number, alarm in enumerate(parts.alarms, start=1):
        files[f"alarms/{number}.json"] = alarm.to_bytes()
    for size, response in parts.timestamps.items():
        files[f"timestamps/{size}.tsr"] = response
    files |= _derived(parts, policy, [open_checkpoint(n, policy.logs)[0].size for n in parts.checkpoints])
    return {**files, SUMS: sums_of(files)}


def _derived(parts: Parts, policy: Policy, earlier: Sequence[int]) -> dict[str, bytes]:
    """Return what a pack holds for convenience; the verifier derives or checks each of them."""
    tree, summary = Tree(), Summary()
    for start in range(0, len(parts.entries), WIDTH):
        run = skim(parts.entries[start : start + WIDTH])
        run.extend(tree)
        for position, raw in run.rest:
            with suppress(FormatError):  # the verifier names it; a pack is made of what there is
                summary.take(start + position, parse_entry(raw))
        summary.take_plain(start + run.size, run.first_at, run.last_at)
    checkpoint = peek(parts.checkpoint)
    files = {
        f"proofs/{index}.tlog-proof": TlogProof(index, tuple(tree.inclusion_proof(index)), parts.checkpoint).text
        for index in summary.proof_indices()
    }
    for size in sorted(earlier)[-MAX_PROOFS:]:
        if 0 < size < checkpoint.size:
            proof = [b64(node) for node in tree.consistency_proof(size)]
            files[f"consistency/{size}.json"] = canonical_bytes({"from": size, "to": checkpoint.size, "proof": proof})
    files["decisions.json"] = summary.decisions_json()
    files["ledgers.json"] = summary.ledgers_json()
    files["report.html"] = _report(summary, parts.checkpoint, policy, parts.made_at)
    return files


def _report(summary: Summary, note: bytes, own: Policy, made_at: datetime) -> bytes:
    """Render the report under the pack's own policy, whatever policy the auditor pins."""
    try:
        standing = own.standing(note)
    except AuditError:
        standing = None
    return render(summary, peek(note), standing, own.digest, made_at)


def verify_files(
    files: Mapping[str, bytes],
    pinned: Policy | None = None,
    tsa_roots: Sequence[bytes] = (),
    bundles: Bundles | None = None,
) -> Verdict:
    """Verify a pack.

    Args:
        files: name -> content; may be read lazily, each content is asked for once or twice.
        pinned: the policy that the auditor trusts; the pack's own if not given.
        tsa_roots: PEM root certificates of the time-stamping authorities that the auditor trusts.
        bundles: reads and skims entry bundles, in the order of the spans; by ``skim_files`` if not given.

    Raises:
        FormatError: this is no evidence pack at all.
    """
    if "pack.json" not in files or "checkpoint" not in files:
        raise FormatError("no evidence pack: pack.json or checkpoint is missing")
    return _Verification(files, pinned, tsa_roots, bundles or partial(skim_files, files)).run()


def skim_files(files: Mapping[str, bytes], spans: Iterable[Span], keys: Callable[[], Keys] = dict) -> Iterator[Skimmed]:
    """Read bundles and skim them, in order; signatures of statements are left to whoever takes them.

    Raises:
        FormatError: a bundle is missing, or is none.
    """
    for span in spans:
        content = files.get(name := entries_path(span.index, span.width))
        if content is None:
            raise FormatError(f"{name} is missing")
        yield skim_bundle(content, span.width)


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """Return the content of SHA256SUMS over some files."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def check_strength(policy: Policy) -> None:
    """Refuse a policy whose quorum one dishonest witness of four could bend.

    Raises:
        PolicyError: fewer than ``quorum_of`` its witnesses, or none.
    """
    if policy.needed < quorum_of(len(policy.quorum_members)) or not policy.quorum_members:
        raise PolicyError(f"a quorum of {policy.needed} of {len(policy.quorum_members)} witnesses is too weak")


class _Verification:
    """One verification, in numbered steps; collects faults and goes on where it can."""

    def __init__(
        self, files: Mapping[str, bytes], pinned: Policy | None, tsa_roots: Sequence[bytes], bundles: Bundles
    ) -> None:
        self._files = files
        self._bundles = bundles
        self._pinned = pinned
        self._tsa_roots = tuple(tsa_roots)
        self._faults: list[Fault] = []
        self._checks: list[Check] = []
        self._limits: list[tuple[str, str]] = []
        self._expected: set[str] = {"pack.json", "policy", "checkpoint", SUMS}
        self._roots: dict[int, bytes] = {}
        self._leaves: dict[int, bytes] = {}  # of the entries that the pack proves one by one
        self._sha256: dict[str, str] = {}  # of the files that were read and need not be read again
        self._trail = Trail()

    def run(self) -> Verdict:
        about = self._step(self._about) or {}
        policy = self._step(self._policy)
        is_older = policy is not None and self._is_older(policy)
        verified = self._step(lambda: self._checkpoint(policy)) if policy and not is_older else None
        size = verified.checkpoint.size if verified else int(about.get("size", 0))
        self._step(lambda: self._tree(size, verified))
        if policy is not None and is_older:
            policy = self._step(lambda: self._followed(policy)) or policy
            verified = self._step(lambda: self._checkpoint(policy))
            if verified is not None:
                self._step(lambda: self._check_root(verified))
        if policy is not None:
            self._step(lambda: self._earlier(policy))
            self._each("alarms/", lambda name: self._alarm(name, policy))
        self._say_trail()
        self._contracts()
        self._releases()
        self._each("proofs/", lambda name: self._proof(name, size))
        self._each("consistency/", lambda name: self._consistency(name, size))
        self._say_proofs()
        self._each("timestamps/", self._timestamp)
        self._step(lambda: self._lists(about))
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
        if set(about) != {"v", "origin", "size", "madeAt"} or not is_version(about["v"], VERSION):
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
        check_strength(policy)
        return policy

    def _is_older(self, policy: Policy) -> bool:
        """Whether the pinned policy lacks a quorum of this checkpoint: witnesses may have changed their keys since."""
        try:
            return self._pinned is not None and not policy.standing(self._file("checkpoint")).has_quorum
        except AuditError:
            return False

    # 2a. From the keys that the pinned policy names to those of now, by what the old ones have signed (``witness_change``).
    def _followed(self, policy: Policy) -> Policy:
        changes = list(self._trail.witness_changes.values())
        followed = follow(policy, changes)
        if followed is not policy:
            parties = sorted({change.party for change in changes})
            self._found("witness keys", f"followed from the pinned policy's for {', '.join(parties)[:200]}")
        return followed

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
        shown = {int(n) for name in self._files if (n := name.removeprefix("proofs/").partition(".")[0]).isdecimal()}
        tree = Tree()
        spans = list(entries_spans(size))
        for span, run in zip(spans, self._bundles(spans, self._trail.keys), strict=True):
            name, start = entries_path(span.index, span.width), tree.size
            self._expected.add(name)
            self._sha256[name] = run.sha256
            if not self._trail.take_run(start, run):
                for index, raw in enumerate(decode_bundle(self._file(name), span.width), start):
                    self._trail.take(index, raw)
            for index in shown & set(range(start, start + run.size)):
                self._leaves[index] = run.leaf(index - start)
            run.extend(tree)
        self._roots |= {at: tree.root(at) for at in wanted if at <= tree.size}
        if verified is not None:
            self._check_root(verified)
        self._found("tree", f"derived from {size} entries; the root is the signed one")

    def _check_root(self, verified: Verified) -> None:
        if self._roots.get(verified.checkpoint.size) != verified.checkpoint.root:
            raise ProofError("the entries do not give the root that was signed")

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
        if len(parts) != 3:
            raise FormatError(f"the file {name[:80]!r} does not belong to a pack")
        if parts[2] != "manifest.json":
            self._release_file(name, parts[1], parts[2])
            return
        manifest = self._file(name)
        release = self._trail.releases.get(parts[1])
        if release is None:
            raise EvidenceError(f"no release of run {parts[1][:80]} is in the log")
        if digest(manifest) != release.manifest:
            raise EvidenceError(f"the manifest of run {parts[1][:80]} is not the logged one")
        self._found("release", f"run {parts[1]}: its manifest is in the log")

    def _release_file(self, name: str, run: str, file: str) -> None:
        """A model card, or another file of a release: its digest stands in the logged manifest."""
        manifest = parse_json(self._file(f"releases/{run}/manifest.json"))
        listed = manifest.get("files") if isinstance(manifest, dict) else None
        if not isinstance(listed, dict) or listed.get(file) != digest(self._file(name)):
            raise EvidenceError(f"{name[:80]} is not the file that the manifest names")
        self._found("release file", f"run {run}: {file} is the one that the logged manifest names")

    # 10. Proofs of single entries and of growth, time-stamps, lists, report.
    def _proof(self, name: str, size: int) -> None:
        proof = TlogProof.parse(self._file(name))
        leaf = self._leaves.get(proof.index)
        if name != f"proofs/{proof.index}.tlog-proof" or leaf is None or proof.extra is not None:
            raise FormatError(f"the file {name[:80]!r} does not belong to a pack")
        if proof.checkpoint != self._files["checkpoint"]:
            raise EvidenceError(f"{name[:80]} is a proof under another checkpoint")
        verify_inclusion(leaf, proof.index, size, proof.path, self._roots.get(size, b""))

    def _consistency(self, name: str, size: int) -> None:
        value = parse_canonical(self._file(name))
        old, proof = value.get("from"), value.get("proof")
        if set(value) != {"from", "to", "proof"} or name != f"consistency/{old}.json" or value["to"] != size:
            raise FormatError(f"the file {name[:80]!r} does not belong to a pack")
        if type(old) is not int or not isinstance(proof, list) or not all(isinstance(node, str) for node in proof):
            raise FormatError(f"{name[:80]}: a member of the wrong kind")
        old_root, root = self._roots.get(old), self._roots.get(size, b"")
        if old_root is None:
            raise EvidenceError(f"{name[:80]}: no checkpoint of {old} is in the pack")
        verify_consistency(old, size, [unb64(node) for node in proof], old_root, root)

    def _say_proofs(self) -> None:
        for prefix, what in (("proofs/", "inclusion proofs"), ("consistency/", "consistency proofs")):
            if count := sum(name.startswith(prefix) for name in self._files):
                self._found(what, f"{count} compared with the derived tree")

    def _timestamp(self, name: str) -> None:
        response = self._file(name)
        stem = name.removeprefix("timestamps/").removesuffix(".tsr")
        size = decimal(stem, "the size of a time-stamp") if name == f"timestamps/{stem}.tsr" else -1
        note = self._files["checkpoint"] if size == self._trail.size else self._files.get(f"checkpoints/{size}")
        if note is None:
            raise EvidenceError(f"{name[:80]}: no checkpoint of this size is in the pack")
        if not self._tsa_roots or not timestamps.is_available():
            why = "needs --tsa-root" if timestamps.is_available() else "needs convoy-audit[timestamps]"
            self._limit(
                f"The time-stamp of checkpoint {size} was not verified ({why}).",
                f"检查点 {size} 的时间戳未核验（{why}）。",
            )
            return
        stamp = timestamps.verify(response, split_note(note)[0], self._tsa_roots)
        self._found("time-stamp", f"checkpoint {size} existed at {stamp.at.isoformat()}")

    def _lists(self, about: Mapping[str, Any]) -> None:
        summary = self._trail.summary
        derived = {"decisions.json": summary.decisions_json, "ledgers.json": summary.ledgers_json}
        for name, derive in derived.items():
            if name in self._files:
                self._same(name, derive())
        if "report.html" in self._files:
            made_at = INSTANT.read(about.get("madeAt"))
            own = Policy.parse(self._file("policy"))
            self._same("report.html", _report(summary, self._file("checkpoint"), own, made_at))

    def _same(self, name: str, derived: bytes) -> None:
        if self._file(name) != derived:
            raise EvidenceError(f"{name} says something else than the log")
        self._found(name, "is what the entries give")

    # 11. Sums, and no file that nobody checked.
    def _sums(self) -> None:
        strange = sorted(set(self._files) - self._expected)
        if strange:
            raise FormatError(f"{len(strange)} unknown file(s), such as {strange[0][:80]!r}")
        lines = [
            f"{self._sha256.get(name) or hashlib.sha256(self._files[name]).hexdigest()}  {name}\n"
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
