"""A node's private keys: born here, kept here, used here.

    Identity.create(folder, party, born)      makes the four keys, once; refuses a folder that has any of them
    Identity.load(folder, party)        refuses a key that is missing, malformed, or open to others
    identity.card(...) -> Card          what others may know: the body of an enrolment

    identity.json  id and life of the identity key and the name of its file, no secret; a rotation replaces this one file
    identity.pem   Ed25519: contract signatures and statements       mask.pem       X25519: seals, streams, masks
    witness.keys   Ed25519 and ML-DSA-44: cosignatures               supernode.pem  EC P-256: Flower's node authentication
    mask-was-N.pem, witness-was-N.keys    former ones, for the contracts that pin them

Each file has mode 0600. No key ever leaves the folder, and none is made anywhere else. Unencrypted at rest: protect the
folder with the operating system (LIMIT).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from convoy_audit.errors import AuditError
from convoy_audit.keys import SignatureType, check_ed25519_public
from convoy_audit.note import Signer
from convoy_audit.witness_store import sync_folder, write_atomically
from convoy_contracts.canonical import b64u, canonical_bytes, parse_json, unb64u
from convoy_contracts.errors import ContractsError
from convoy_contracts.instants import instant, timestamp
from convoy_node.errors import KeyRefused
from convoy_node.secret_file import read_secret

LIFE: Final = "identity.json"
IDENTITY: Final = "identity.pem"
MASK: Final = "mask.pem"
WITNESS: Final = "witness.keys"
SUPERNODE: Final = "supernode.pem"
FORMER_MASKS: Final = "mask-was-*.pem"
FORMER_WITNESSES: Final = "witness-was-*.keys"
WITNESS_NEXT: Final = "witness-next.keys"
SUPERNODE_NEXT: Final = "supernode-next.pem"
FILES: Final = (LIFE, IDENTITY, MASK, WITNESS, SUPERNODE)
_FILE: Final = re.compile(r"identity(-[0-9]{1,9})?\.pem")
KEY_LIFE: Final = timedelta(days=730)
_CARD_FIX: Final = "Take the card.json that `convoy-node init` wrote."
WITNESS_TYPES: Final = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44)


@dataclass(frozen=True, slots=True)
class Card:
    """The public half of a node; with ``name``, the body of ``POST /v1/parties``.

    Keys are base64url of 32 bytes, but ``witness_key`` is one C2SP verifier key a line and ``supernode_key`` is PEM. The two
    instants bound the identity key's life.
    """

    id: str
    name: str
    role: str
    region: str
    identity_key: str
    identity_kid: str
    key_not_before: str
    key_not_after: str
    mask_key: str
    witness_key: str
    supernode_key: str

    def enrolment(self) -> dict[str, str]:
        """Return the body of an enrolment."""
        return {_camel(name): value for name, value in asdict(self).items()}

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``enrolment`` writes; other members are ignored.

        Raises:
            KeyRefused: a member is missing or no text.
        """
        members = {name: value.get(_camel(name)) for name in cls.__dataclass_fields__}
        faults = [_camel(name) for name, member in members.items() if not isinstance(member, str) or not member]
        if faults:
            raise KeyRefused(f"a card without {', '.join(faults)}.", fix=_CARD_FIX)
        card = cls(**{name: str(member) for name, member in members.items()})
        begin, end = instant(card.key_not_before), instant(card.key_not_after)
        if begin is None or end is None or begin >= end:
            raise KeyRefused("a card whose key has no life.", party=card.id, fix=_CARD_FIX)
        try:
            check_ed25519_public(unb64u(card.identity_key))
            check_mask_key(unb64u(card.mask_key))
        except (AuditError, ContractsError, ValueError) as error:
            raise KeyRefused("a card with a key that must not be used.", party=card.id, fix=_CARD_FIX) from error
        return card


def check_mask_key(key: bytes) -> None:
    """Refuse an X25519 key of low order: it would share the same secret with everybody (RFC 7748 §6.1).

    Raises:
        ValueError: it is one, or not 32 bytes.
    """
    X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@dataclass(frozen=True, slots=True)
class Identity:
    """The private keys of one node, never shown by ``repr``; ``kid`` and the two instants belong to the identity key."""

    party: str
    kid: str
    not_before: str
    not_after: str
    identity: Ed25519PrivateKey = field(repr=False)
    mask: X25519PrivateKey = field(repr=False)
    witness: tuple[Signer, ...] = field(repr=False)
    supernode: EllipticCurvePrivateKey = field(repr=False)
    former_masks: tuple[X25519PrivateKey, ...] = field(default=(), repr=False)
    former_witnesses: tuple[tuple[Signer, ...], ...] = field(default=(), repr=False)

    @classmethod
    def create(cls, folder: Path, party: str, born: datetime, *, number: int = 1) -> Self:
        """Make the keys of a new node in ``folder``; ``born`` is the aware instant from which the identity key counts.

        ``number`` is that of the identity key: 1, or one more than the last one of a party that starts again.

        Raises:
            KeyRefused: there is a key already; keys are never replaced in place.
        """
        there = [name for name in FILES if (folder / name).exists()]
        if there:
            raise KeyRefused(
                f"there are keys already: {', '.join(there)}.",
                party=party,
                fix="Keep them, or name an empty folder.",
                fix_zh="请保留现有密钥，或指定空文件夹。",
            )
        made = cls(
            party=party,
            kid=f"{party}#{number}",
            not_before=timestamp(born.astimezone(UTC)),
            not_after=timestamp(born.astimezone(UTC) + KEY_LIFE),
            identity=Ed25519PrivateKey.generate(),
            mask=X25519PrivateKey.generate(),
            witness=tuple(Signer.generate(witness_name(party), kind) for kind in WITNESS_TYPES),
            supernode=generate_private_key(SECP256R1()),
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / LIFE, _life_bytes(made.kid, made.not_before, made.not_after))
        _write(folder / IDENTITY, _pem(made.identity))
        _write(folder / MASK, _pem(made.mask))
        _write(folder / WITNESS, _secrets(made.witness))
        _write(folder / SUPERNODE, _pem(made.supernode))
        sync_folder(folder)
        return made

    @classmethod
    def load(cls, folder: Path, party: str) -> Self:
        """Load a node's keys.

        Raises:
            KeyRefused: a file is missing, open to others, or not the key it should be.
        """
        life = _life(folder, party)
        identity = _read_pem(folder / life.file, party)
        mask = _read_pem(folder / MASK, party)
        supernode = _read_pem(folder / SUPERNODE, party)
        witness = _signers(folder / WITNESS, party)
        if (
            not isinstance(identity, Ed25519PrivateKey)
            or not isinstance(mask, X25519PrivateKey)
            or not isinstance(supernode, EllipticCurvePrivateKey)
        ):
            raise KeyRefused("a key is of another kind or another party than its name says.", party=party)
        former = [_read_pem(path, party) for path in sorted(folder.glob(FORMER_MASKS))]
        masks = tuple(key for key in former if isinstance(key, X25519PrivateKey))
        pairs = tuple(_signers(path, party) for path in sorted(folder.glob(FORMER_WITNESSES)))
        return cls(party, life.kid, life.not_before, life.not_after, identity, mask, witness, supernode, masks, pairs)

    @classmethod
    def next_key(cls, folder: Path, party: str) -> tuple[str, Ed25519PrivateKey]:
        """Return id and private half of the identity key that shall follow; it is made once and found again.

        Raises:
            KeyRefused: the present key's id ends with no number.
        """
        head, _, number = _life(folder, party).kid.rpartition("#")
        if not number.isdigit():
            raise KeyRefused("the identity key's id ends with no number.", party=party)
        kid = f"{head}#{int(number) + 1}"
        path = folder / f"identity-{int(number) + 1}.pem"
        if not path.exists():
            write_atomically(path, _pem(Ed25519PrivateKey.generate()))  # the log may name it from now on
        key = _read_pem(path, party)
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyRefused(f"{path.name} is of another kind.", party=party)
        return kid, key

    @classmethod
    def follow(cls, folder: Path, party: str, born: datetime) -> Self:
        """Sign with the next identity key from now on; the former one stays beside. One file changes, in one step."""
        kid, _ = cls.next_key(folder, party)
        begin, end = timestamp(born.astimezone(UTC)), timestamp(born.astimezone(UTC) + KEY_LIFE)
        write_atomically(folder / LIFE, _life_bytes(kid, begin, end, f"identity-{kid.rpartition('#')[2]}.pem"))
        return cls.load(folder, party)

    def mask_of(self, public: bytes | None) -> X25519PrivateKey | None:
        """Return the mask key, present or former, whose public half a contract pins; None where it is none of them."""
        keys = (self.mask, *self.former_masks)
        return next((key for key in keys if key.public_key().public_bytes_raw() == public), None)

    @classmethod
    def follow_mask(cls, folder: Path, party: str) -> Self:
        """Have a new mask key in new contracts; the present one stays beside, for the contracts that pin it."""
        present = (folder / MASK).read_bytes()
        if all(path.read_bytes() != present for path in folder.glob(FORMER_MASKS)):
            number = len(list(folder.glob(FORMER_MASKS))) + 1
            write_atomically(folder / f"mask-was-{number}.pem", present)
        # If we die here: the present key is kept beside itself, which changes nothing.
        write_atomically(folder / MASK, _pem(X25519PrivateKey.generate()))
        return cls.load(folder, party)

    def witness_of(self, pinned: Iterable[str]) -> tuple[Signer, ...]:
        """Return the witness keys, present or former, of which a contract pins some; none where it pins others."""
        wanted = set(pinned)
        pairs = (self.witness, *self.former_witnesses)
        return next((own for own in pairs if wanted and wanted <= {signer.vkey for signer in own}), ())

    @classmethod
    def next_witness(cls, folder: Path, party: str) -> tuple[Signer, ...]:
        """Return the witness keys that shall follow; they are made once and found again.

        Raises:
            KeyRefused: what is there are no such keys.
        """
        path = folder / WITNESS_NEXT
        if not path.exists():
            write_atomically(
                path, _secrets(tuple(Signer.generate(witness_name(party), kind) for kind in WITNESS_TYPES))
            )
        return _signers(path, party)

    @classmethod
    def follow_witness(cls, folder: Path, party: str, *, keep: bool) -> Self:
        """Cosign with the next keys from now on; again changes nothing. ``forget_next_witness`` ends it.

        Args:
            keep: leave the present ones beside, for the contracts that pin them.
        """
        coming, present = (folder / WITNESS_NEXT).read_bytes(), (folder / WITNESS).read_bytes()
        if present != coming:
            former = sorted(folder.glob(FORMER_WITNESSES))
            if keep and all(path.read_bytes() != present for path in former):
                write_atomically(folder / f"witness-was-{len(former) + 1}.keys", present)
            # If we die here: the present keys are kept beside themselves, which changes nothing.
            write_atomically(folder / WITNESS, coming)
        return cls.load(folder, party)

    @staticmethod
    def forget_next_witness(folder: Path) -> None:
        """Note that the change of the witness keys is over."""
        (folder / WITNESS_NEXT).unlink(missing_ok=True)

    @classmethod
    def next_supernode(cls, folder: Path, party: str) -> EllipticCurvePrivateKey:
        """Return the SuperNode key that shall follow; it is made once and found again.

        Raises:
            KeyRefused: what is there is no such key.
        """
        path = folder / SUPERNODE_NEXT
        if not path.exists():
            write_atomically(path, _pem(generate_private_key(SECP256R1())))
        key = _read_pem(path, party)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise KeyRefused(f"{path.name} is of another kind.", party=party)
        return key

    @classmethod
    def follow_supernode(cls, folder: Path, party: str) -> Self:
        """Have the SuperNode use its next key from now on. One file changes, in one step; ``forget_next_supernode`` ends it."""
        write_atomically(folder / SUPERNODE, _pem(cls.next_supernode(folder, party)))
        return cls.load(folder, party)

    @staticmethod
    def forget_next_supernode(folder: Path) -> None:
        """Note that the change of the SuperNode's key is over."""
        (folder / SUPERNODE_NEXT).unlink(missing_ok=True)

    @property
    def identity_seed(self) -> bytes:
        """The seed with which statements are signed; never log it."""
        return self.identity.private_bytes_raw()

    @property
    def identity_public(self) -> bytes:
        """The identity key's public half, 32 bytes."""
        return self.identity.public_key().public_bytes_raw()

    @property
    def mask_public(self) -> bytes:
        """The mask key's public half, 32 bytes; every contract of this party pins it."""
        return self.mask.public_key().public_bytes_raw()

    def card(self, *, name: str, role: str, region: str) -> Card:
        """Return what may be published."""
        pem = self.supernode.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return Card(
            id=self.party,
            name=name,
            role=role,
            region=region,
            identity_key=b64u(self.identity_public),
            identity_kid=self.kid,
            key_not_before=self.not_before,
            key_not_after=self.not_after,
            mask_key=b64u(self.mask_public),
            witness_key="\n".join(signer.vkey for signer in self.witness),
            supernode_key=pem.decode(),
        )


def witness_name(party: str) -> str:
    """Return the name under which a party's witness signs: its id without the DID method."""
    return party.removeprefix("did:web:")


@dataclass(frozen=True, slots=True)
class _Life:
    kid: str
    not_before: str
    not_after: str
    file: str


def _life_bytes(kid: str, begin: str, end: str, file: str = IDENTITY) -> bytes:
    life = {"kid": kid, "notBefore": begin, "notAfter": end}
    return canonical_bytes(life if file == IDENTITY else life | {"file": file})


def _life(folder: Path, party: str) -> _Life:
    try:
        value = parse_json(read_secret(folder / LIFE, party))
    except ContractsError as error:
        raise KeyRefused(f"{LIFE} is damaged.", party=party) from error
    members = tuple(value.get(name) for name in ("kid", "notBefore", "notAfter")) if isinstance(value, dict) else ()
    file = value.get("file", IDENTITY) if isinstance(value, dict) else None
    match members:
        case (str(kid), str(begin), str(end)) if kid.startswith(f"{party}#") and instant(begin) and instant(end):
            if isinstance(file, str) and _FILE.fullmatch(file):
                return _Life(kid, begin, end, file)
    raise KeyRefused(f"{LIFE} does not say the identity key's id and life.", party=party)


def _secrets(signers: Iterable[Signer]) -> bytes:
    return "".join(f"{signer.secret}\n" for signer in signers).encode()


def _signers(path: Path, party: str) -> tuple[Signer, ...]:
    try:
        signers = tuple(Signer.parse(line) for line in read_secret(path, party).decode("ascii").split())
    except (AuditError, UnicodeDecodeError) as error:
        raise KeyRefused(f"{path.name} holds no witness keys.", party=party) from error
    if not signers:
        raise KeyRefused(f"{path.name} holds no witness keys.", party=party)
    if not all(signer.name == witness_name(party) and signer.kind.is_cosignature for signer in signers):
        raise KeyRefused("a key is of another kind or another party than its name says.", party=party)
    return signers


def _pem(key: Ed25519PrivateKey | X25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_pem(path: Path, party: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(read_secret(path, party), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyRefused(f"{path.name} holds no private key.", party=party) from error
