"""A release as a folder: what a recipient loads, and why it may trust it.

    model.safetensors    arrays (no pickle anywhere)
    specification.json   what was trained: the bytes whose digest the contract signs
    golden.json          inputs with the outputs that a correct loader computes
    card.md              model card, Chinese and English
    manifest.json        digest of each file, contract, run, recipients, epsilon, evidence
    manifest.sig         Ed25519 signature (64 bytes) over the bytes of manifest.json

``pack`` makes the files, the coordinator signs and logs the manifest, ``read_bundle`` is the only
way to a ``Verified[Bundle]``: it raises on any altered byte, extra or missing file, wrong key,
recall, other contract or other recipient. It does not check the log: whoever loads a release for
pricing also verifies that the manifest's digest is in the log (``convoy-audit``).

What may never change for ``convoy-release/1``: file names, members of the manifest, RFC 8785 bytes,
and that the signature covers exactly the bytes of manifest.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from convoy_contracts.canonical import canonical_bytes, parse_json
from convoy_contracts.errors import DocumentMalformed
from convoy_models.card import CardFacts, render
from convoy_models.errors import BundleAltered, BundleMalformed, BundleNotForUse
from convoy_models.fixedpoint import Floats

KIND: Final = "convoy-release/1"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
MODEL: Final = "model.safetensors"
SPECIFICATION: Final = "specification.json"
GOLDEN: Final = "golden.json"
CARD: Final = "card.md"
CONTENTS: Final = frozenset({MODEL, SPECIFICATION, GOLDEN, CARD})
MAX_FILE_BYTES: Final = 1 << 30
_MEMBERS: Final = {
    "kind": str,
    "run": str,
    "algorithm": str,
    "contractDigest": str,
    "recipients": list,
    "epsilonMicro": int,
    "deltaNano": int,
    "evidence": dict,
    "files": dict,
}

T = TypeVar("T")
_ONLY_HERE: Final = object()


class Verified(Generic[T]):
    """A value that passed verification; only a ``read`` function of this module makes one."""

    __slots__ = ("_value",)

    def __init__(self, value: T, proof: object) -> None:
        if proof is not _ONLY_HERE:
            raise BundleMalformed("a verified value is made by verification only.")
        self._value = value

    @property
    def value(self) -> T:
        """The verified value."""
        return self._value


@dataclass(frozen=True, slots=True)
class Golden:
    """One golden vector: columns of inputs, and the outputs of a correct model."""

    cohort: str
    columns: Mapping[str, Sequence[float | str]]
    outputs: Sequence[float]


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What a manifest says about a release.

    Attributes:
        run: uid of the run that trained it.
        algorithm: the contract's algorithm id.
        contract_digest: ``sha256:...`` of the contract.
        recipients: party ids that may load it.
        epsilon_micro: per person, in millionths, rounded up; ``delta_nano`` in billionths.
        evidence: proof that the run was authorised: strings, integers, lists and objects.
    """

    run: str
    algorithm: str
    contract_digest: str
    recipients: tuple[str, ...]
    epsilon_micro: int
    delta_nano: int
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A release in memory."""

    facts: ReleaseFacts
    manifest_digest: str
    arrays: Mapping[str, Floats]
    specification: Mapping[str, Any]
    golden: tuple[Golden, ...]
    card: str

    def check_golden(self, predict: Callable[[Golden], Sequence[float]], tolerance: float = 1e-9) -> None:
        """Compare a loader's outputs with the golden ones.

        Raises:
            BundleAltered: an output differs by more than ``tolerance``, relative.
        """
        for golden in self.golden:
            got, wanted = np.asarray(predict(golden)), np.asarray(golden.outputs)
            same = got.shape == wanted.shape
            if not (same and np.allclose(got, wanted, rtol=tolerance, atol=tolerance)):
                raise BundleAltered(
                    f"the loaded model misses the golden vector of cohort {golden.cohort}.",
                    fix="Load the bundle with the version of convoy-models that made it.",
                )


def pack(
    facts: ReleaseFacts,
    *,
    arrays: Mapping[str, Floats],
    specification: Mapping[str, Any],
    golden: Sequence[Golden],
    card: CardFacts,
) -> dict[str, bytes]:
    """Return the files of a release, manifest.json among them, unsigned.

    The same arguments give the same bytes.

    Raises:
        BundleMalformed: a value without one exact form in JSON (floats, large integers).
    """
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    vectors = [{"cohort": g.cohort, "columns": g.columns, "outputs": g.outputs} for g in golden]
    files = {
        MODEL: safetensors.numpy.save(ordered),
        SPECIFICATION: _canonical(specification),
        GOLDEN: _json({"vectors": vectors}),
        CARD: render(card).encode(),
    }
    manifest = {
        "kind": KIND,
        "run": facts.run,
        "algorithm": facts.algorithm,
        "contractDigest": facts.contract_digest,
        "recipients": sorted(facts.recipients),
        "epsilonMicro": facts.epsilon_micro,
        "deltaNano": facts.delta_nano,
        "evidence": dict(facts.evidence),
        "files": {name: digest(content) for name, content in files.items()},
    }
    return {**files, MANIFEST: _canonical(manifest)}


def digest(content: bytes) -> str:
    """Return ``sha256:<hex>`` of bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_bundle(folder: Path, files: Mapping[str, bytes], key: Ed25519PrivateKey) -> str:
    """Sign and write a packed release into a new folder; return the manifest's digest.

    The folder appears with all files or not at all. If the process dies before the rename, a
    hidden folder remains that nobody reads and the next call replaces.

    Raises:
        BundleMalformed: not the files of ``pack``, or the folder exists already.
    """
    if set(files) != CONTENTS | {MANIFEST}:
        raise BundleMalformed("these are not the files of a packed release.")
    if folder.exists():
        raise BundleMalformed(f"{folder.name} exists already; a release never changes.")
    hidden = folder.with_name(f".{folder.name}.part")
    hidden.mkdir(parents=True, exist_ok=True)
    for name, content in {**files, SIGNATURE: key.sign(files[MANIFEST])}.items():
        with (hidden / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    hidden.rename(folder)
    return digest(files[MANIFEST])


def read_bundle(
    folder: Path,
    key: Ed25519PublicKey,
    *,
    recipient: str,
    contract_digest: str,
    recalled: Collection[str],
) -> Verified[Bundle]:
    """Read and verify a release.

    Steps: 1. signature over the manifest's bytes; 2. the folder holds exactly the files it names;
    3. each file's digest; 4. contract, recipient, recall; 5. the contents parse.

    Args:
        folder: the release.
        key: the coordinator's release key, pinned by the reader.
        recipient: the reader's party id.
        contract_digest: of the contract in force.
        recalled: run uids or manifest digests that were recalled.

    Raises:
        BundleMalformed: a folder that cannot be read as a release.
        BundleAltered: step 1, 2 or 3 fails.
        BundleNotForUse: step 4 fails.
    """
    found = _read_folder(folder)
    for name in (MANIFEST, SIGNATURE):
        if name not in found:
            raise BundleAltered(f"{name} is missing.")
    try:
        key.verify(found[SIGNATURE], found[MANIFEST])
    except InvalidSignature as error:
        raise BundleAltered("the manifest's signature is not by the pinned release key.") from error
    facts, named = _parse_manifest(found[MANIFEST])
    contents = {name: found[name] for name in found if name not in (MANIFEST, SIGNATURE)}
    if set(contents) != set(named):
        wrong = ", ".join(sorted(set(contents) ^ set(named)))
        raise BundleAltered(f"files are missing or were added: {wrong}.")
    for name, content in sorted(contents.items()):
        if digest(content) != named[name]:
            raise BundleAltered(f"{name} is not what was released.")
    manifest_digest = digest(found[MANIFEST])
    if facts.contract_digest != contract_digest:
        raise BundleNotForUse("the release belongs to another contract.")
    if recipient not in facts.recipients:
        raise BundleNotForUse("the release names other recipients.", party=recipient)
    if facts.run in recalled or manifest_digest in recalled:
        raise BundleNotForUse(f"the release of run {facts.run} was recalled.")
    return Verified(_parse_contents(facts, manifest_digest, contents), _ONLY_HERE)


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Read every file once, so that what is checked is what is used."""
    found: dict[str, bytes] = {}
    try:
        for entry in sorted(folder.iterdir()):
            status = entry.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise BundleAltered(f"{entry.name} is not a plain file.")
            if status.st_size > MAX_FILE_BYTES:
                raise BundleMalformed(f"{entry.name} is larger than a release file may be.")
            found[entry.name] = entry.read_bytes()
    except OSError as error:
        raise BundleMalformed(f"the folder {folder.name} cannot be read.") from error
    return found


def _parse_manifest(raw: bytes) -> tuple[ReleaseFacts, dict[str, str]]:
    value = _parse_exact(raw, MANIFEST)
    if set(value) != set(_MEMBERS) or value["kind"] != KIND:
        raise BundleMalformed(f"the manifest is not of kind {KIND}.")
    wrong = [name for name, kind in _MEMBERS.items() if type(value[name]) is not kind]
    strings = [*value["recipients"], *value["files"], *value["files"].values()]
    if wrong or not all(isinstance(text, str) for text in strings):
        raise BundleMalformed("a member of the manifest has a wrong type.")
    if set(value["files"]) != CONTENTS:
        raise BundleMalformed("the manifest does not name the files of a release.")
    facts = ReleaseFacts(
        run=value["run"],
        algorithm=value["algorithm"],
        contract_digest=value["contractDigest"],
        recipients=tuple(value["recipients"]),
        epsilon_micro=value["epsilonMicro"],
        delta_nano=value["deltaNano"],
        evidence=value["evidence"],
    )
    return facts, value["files"]


def _parse_contents(facts: ReleaseFacts, manifest: str, files: Mapping[str, bytes]) -> Bundle:
    try:
        arrays = safetensors.numpy.load(files[MODEL])
        golden = tuple(
            Golden(vector["cohort"], vector["columns"], vector["outputs"])
            for vector in _parse(files[GOLDEN], GOLDEN)["vectors"]
        )
        card = files[CARD].decode()
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleMalformed("a file of the release cannot be read.") from error
    specification = _parse_exact(files[SPECIFICATION], SPECIFICATION)
    return Bundle(facts, manifest, arrays, specification, golden, card)


def _parse(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleMalformed(f"{name} is not JSON.") from error
    if not isinstance(value, dict):
        raise BundleMalformed(f"{name} is not a JSON object.")
    return value


def _json(value: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted members and no spaces; floats are allowed."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise BundleMalformed("a value of the release cannot be written as JSON.") from error
    return text.encode()


def _canonical(value: Mapping[str, Any]) -> bytes:
    """Return RFC 8785 bytes that ``_parse_exact`` reads back without loss."""
    try:
        raw = canonical_bytes(value)
        parse_json(raw)
    except DocumentMalformed as error:
        raise BundleMalformed("a value of the release has no exact form in JSON.") from error
    return raw


def _parse_exact(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = parse_json(raw)
        exact = isinstance(value, dict) and canonical_bytes(value) == raw
    except DocumentMalformed as error:
        raise BundleMalformed(f"{name} is not strict JSON.") from error
    if not exact:
        raise BundleMalformed(f"{name} is not a JSON object in canonical form.")
    return dict(value)
