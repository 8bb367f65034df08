"""Make a node's folder, pin its peers, sign contracts: acts of the operator, each an explicit one.

create_home(home, ...) -> Card     keys are born here; refuses a folder that is a node's already
pin(home, cards)                   believe the identity keys of other parties; compare fingerprints first
fingerprint(card) -> str           what two people read to each other
read_card(home) -> Card            what this node publishes at its enrolment
sign_contract(home, text, at)      this party's signature, kept with the text; the node takes part in nothing else
contracts(home) -> {digest: text}  what this party signed: contracts/<hex>/{contract.json,signature.json}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from convoy_audit.witness_store import FileWitnessStore, write_atomically
from convoy_contracts.canonical import MAX_SAFE_INTEGER
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError
from convoy_contracts.instants import timestamp
from convoy_contracts.signatures import sign
from convoy_contracts.wire.proof import card_fingerprint
from convoy_node import ledger_file
from convoy_node.errors import HomeRefused, SettingsRefused
from convoy_node.identity import Card, Identity
from convoy_node.register import Register
from convoy_node.settings import NODE_FILE, PINS_FILE, SCHEMA, Settings, is_id, is_region

CARD_FILE: Final = "card.json"
LEDGER: Final = "ledger.db"
REGISTER: Final = "register.db"
DRIFT: Final = timedelta(minutes=5)
"""A new key counts from a little before it was born, because clocks differ."""


def create_home(
    home: Path,
    *,
    party: str,
    role: str,
    region: str,
    log_keys: Sequence[str],
    name: str = "",
    data_source: str = "",
    person_column: str = "person_id",
    asset: str = "",
    asset_fields: Mapping[str, str] | None = None,
    asset_year_cap_micro: int = 0,
    contract_names: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> Card:
    """Make the folder of a new node and return what it may publish.

    Args:
        home: a folder that is not there yet, or is empty.
        party: id of the party, such as ``did:web:oem.example``.
        role: oem, insurer, charging, trustee or auditor.
        region: code of the region where the node runs, such as ``CN-SH``.
        log_keys: verifier keys of the coordinator's log, compared with what the operator was told.
        name: of the organisation; the id if not given.
        data_source: file with the rows, relative to the folder; empty at a trustee.
        person_column: the column that tells persons apart.
        asset: uid of the asset that the rows are; a party has one in this version.
        asset_fields: grade by field.
        asset_year_cap_micro: epsilon (micro) that one year may cost a person, over all contracts.
        contract_names: contract uid by the name that consent tables use.
        now: aware; the clock's instant if not given.

    Raises:
        HomeRefused: there is a node already, the folder is not empty, or it cannot be made.
        SettingsRefused: the values do not make settings; nothing was written.
    """
    check_empty(home, party)
    lines = [
        "# A Convoy node. Reference: docs/node.md. There is no setting for noise, clips or checks.",
        f"schema = {_text(SCHEMA)}",
        "",
        "[party]",
        f"id = {_text(party)}",
        f"role = {_text(role)}",
        f"region = {_text(region)}",
        f"name = {_text(name or party)}",
        "",
        "[log]  # the coordinator's log; compare these keys with what you were told",
        f"keys = [{', '.join(map(_text, log_keys))}]",
        "",
        "[data]",
        f"source = {_text(data_source)}",
        f"person = {_text(person_column)}",
    ]
    if asset:
        lines += [
            "",
            "[asset]  # year_cap_micro: epsilon x 10^6 per person, over all contracts of a year",
            f"id = {_text(asset)}",
            f"year_cap_micro = {asset_year_cap_micro}",
            "",
            "[asset.fields]",
            *(f"{_text(field)} = {_text(grade)}" for field, grade in (asset_fields or {}).items()),
        ]
    lines += ["", "[contracts]  # name in consent tables = contract uid"]
    lines += [f"{_text(short)} = {_text(uid)}" for short, uid in (contract_names or {}).items()]
    text = "\n".join(lines) + "\n"
    _check_settings(text, party, region, asset)
    # Nothing was written so far. If we die below: the folder is no node's; remove it, its keys were shown to nobody.
    make_folder(home, party)
    _write(home / NODE_FILE, text)
    _write(home / PINS_FILE, _PINS_HEAD)
    born = (now or datetime.now(UTC)).replace(microsecond=0) - DRIFT
    card = Identity.create(home / "keys", party, born).card(name=name or party, role=role, region=region)
    _write(home / CARD_FILE, json.dumps(card.enrolment(), ensure_ascii=False, indent=2) + "\n")
    pin(home, [card])
    ledger_file.create(home / LEDGER)  # not by Ledger: scipy takes half a second of every command to import
    Register(home / REGISTER, party=party).close()
    FileWitnessStore.create(home / "witness")
    for folder in ("contracts", "log"):
        (home / folder).mkdir(mode=0o700)
    return card


def check_empty(home: Path, party: str = "") -> None:
    """Check that a folder is not there yet, or is empty.

    Raises:
        HomeRefused: it is not, or cannot be looked into.
    """
    try:
        is_free = not home.exists() or (home.is_dir() and not any(home.iterdir()))
    except OSError as error:
        raise _no_folder(home, party, error) from error
    if not is_free:
        raise HomeRefused(
            f"the folder {home.name!r} is not empty.",
            party=party,
            fix="Name a new folder, or an empty one; a node's folder is never made over.",
            fix_zh="请指定新文件夹或空文件夹；节点文件夹绝不会被覆盖。",
        )


def make_folder(home: Path, party: str = "") -> None:
    """Make a folder of the owner's only, and those above it.

    Raises:
        HomeRefused: it cannot be made.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(home, party, error) from error


def _no_folder(home: Path, party: str, error: OSError) -> HomeRefused:
    return HomeRefused(
        f"the folder {home.name!r} cannot be made ({error.strerror}).",
        party=party,
        fix="Name a folder in a place where you may write.",
        fix_zh="请指定您有权写入的位置中的文件夹。",
    )


def micro(epsilon: float) -> int:
    """Return an epsilon in whole millionths.

    Raises:
        SettingsRefused: it is no amount.
    """
    if not (math.isfinite(epsilon) and 0 <= epsilon * 1e6 <= MAX_SAFE_INTEGER):
        raise SettingsRefused(
            "the cap is no amount of epsilon.",
            fix="Name a number of 0 or more, such as --cap 6.",
            fix_zh="请给出不小于 0 的数，例如 --cap 6。",
        )
    return round(epsilon * 1e6)


def faults_of(region: str, asset: str) -> list[str]:
    """Return what is wrong with a region and with an asset's uid (empty: none), as sentences that name the option."""
    faults = [] if is_region(region) else ["--region: must be a code such as CN-SH: a country, then at most two parts"]
    return faults + ([] if not asset or is_id(asset) else ["--asset: must be a uid without spaces, quotes or |"])


def _check_settings(text: str, party: str, region: str, asset: str) -> None:
    """Check settings before anything of them is written in the node's folder: every fault at once."""
    faults = faults_of(region, asset)
    with TemporaryDirectory(prefix="convoy-init-") as folder:
        trial = Path(folder)
        _write(trial / NODE_FILE, text)
        _write(trial / PINS_FILE, _PINS_HEAD)
        try:
            Settings.load(trial)
        except SettingsRefused as error:
            faults += error.reasons
    if faults:
        noun = "fault" if len(faults) == 1 else "faults"
        raise SettingsRefused(
            f"the settings have {len(faults)} {noun}; nothing was made.",
            party=party,
            fix="Correct the listed values and run the command again.",
            fix_zh="请更正列出的值并重新运行命令。",
            reasons=faults,
        )


def read_card(home: Path) -> Card:
    """Return what this node publishes at its enrolment.

    Raises:
        HomeRefused: no folder of a node, or a damaged card.
    """
    try:
        return Card.read(json.loads((home / CARD_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise HomeRefused(f"there is no usable {CARD_FILE} in the folder {home.name!r}.") from error


def write_card(home: Path, card: Card) -> None:
    """Replace what this node publishes, after a key was followed by another."""
    _write(home / CARD_FILE, json.dumps(card.enrolment(), ensure_ascii=False, indent=2) + "\n")


def fingerprint(card: Card) -> str:
    """Return eight groups of four hex digits over all of a card's keys, to compare by telephone."""
    return card_fingerprint(card.enrolment())


def pin(home: Path, cards: Iterable[Card]) -> None:
    """Believe the identity keys of these parties, beside those pinned before.

    Raises:
        HomeRefused: another key is pinned for a party; replacing a key is an act for ``pins.toml``.
    """
    known = {pin.kid: pin.key for pin in Settings.load(home).pins}
    text = (home / PINS_FILE).read_text(encoding="utf-8")
    for card in cards:
        if known.setdefault(card.identity_kid, card.identity_key) != card.identity_key:
            raise HomeRefused(
                f"another key is pinned as {card.identity_kid}.",
                party=card.id,
                fix=f"Ask {card.id} by telephone; a changed key gets a new kid in {PINS_FILE}.",
            )
        if f"kid = {_text(card.identity_kid)}\n" not in text:
            text += (
                f"\n[[pin]]\nparty = {_text(card.id)}\nkid = {_text(card.identity_kid)}\nkey = {_text(card.identity_key)}\n"
                f"not_before = {_text(card.key_not_before)}\nnot_after = {_text(card.key_not_after)}\n"
            )
    _write(home / PINS_FILE, text)
    Settings.load(home)


def sign_contract(home: Path, text: str, at: datetime) -> dict[str, str]:
    """Sign a contract as this party and keep it; from then on the node may take part in its runs.

    Whoever signs must be able to keep it: refused is a contract that pins other keys than this folder holds, schedules an
    asset or field that ``node.toml`` does not grade, or has a computation of which a single run costs a person more than the cap of
    a year in ``node.toml``.

    Raises:
        HomeRefused: no contract (``code`` says so), or one that this node cannot keep; ``reasons`` lists every fault.
    """
    settings = Settings.load(home)
    identity = Identity.load(home / "keys", settings.party)
    try:
        contract = Contract.parse(text)
        faults = _faults(contract, settings, identity)
        if faults:
            raise HomeRefused(
                f"contract {contract.uid} cannot be kept by this node.",
                party=settings.party,
                code="CONTRACT_NOT_KEEPABLE",
                fix="Agree a version that fits this node, or correct node.toml.",
                reasons=faults,
            )
        entry = sign(
            contract,
            party=settings.party,
            kid=identity.kid,
            sig_t=timestamp(at.astimezone(UTC)),
            private_key=identity.identity,
        )
    except ContractsError as error:
        raise HomeRefused(
            f"the contract cannot be signed: {error.cause}.",
            party=settings.party,
            code=error.code,
            fix=error.fix,
            reasons=error.problems,
        ) from error
    folder = home / "contracts" / contract.digest.removeprefix("sha256:")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder / "signature.json", json.dumps(entry, indent=1))
    # If we die here: a signature without a text, which counts as not signed.
    _write(folder / "contract.json", text)
    return entry


def contracts(home: Path) -> dict[str, str]:
    """Return the text of each contract that this party signed, by digest; one whose text was changed does not count."""
    found = {}
    for path in sorted((home / "contracts").glob("*/contract.json")):
        try:
            text = path.read_text(encoding="utf-8")
            digest = Contract.parse(text).digest
        except (OSError, UnicodeDecodeError, ContractsError):
            continue
        if digest.removeprefix("sha256:") == path.parent.name:
            found[digest] = text
    return found


def _faults(contract: Contract, settings: Settings, identity: Identity) -> list[str]:
    from convoy_node.preview import unaffordable  # numpy and scipy, for this command only

    card = identity.card(name=settings.name, role=settings.role, region=settings.region)
    party = contract.party(settings.party)
    if party is None:
        return [f"{settings.party} is no party of it"]
    faults = []
    if party.maskKey is None or party.maskKey.x != card.mask_key:
        faults.append("it pins another mask key for this party, or none")
    if party.witnessKey is None or not set(party.witnessKey.splitlines()) <= set(card.witness_key.splitlines()):
        faults.append("it pins another witness key for this party, or none")
    for row in (row for row in contract.data if row.provider == settings.party):
        if row.asset != settings.asset:
            faults.append(f"node.toml does not name the asset {row.asset}")
            continue
        faults += [
            f"node.toml does not grade the field {f.name}" for f in row.fields if f.name not in settings.asset_fields
        ]
    return faults + unaffordable(settings, contract)


_PINS_HEAD: Final = (
    "# Identity keys that this node believes. A revoked key keeps its entry: add revoked_at and revoked_reason.\n"
)


def _text(value: str) -> str:
    """Write a TOML basic string."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise HomeRefused(
            f"{path.name} cannot be written.",
            fix="See the disk and the folder's owner.",
            fix_zh="请检查磁盘与文件夹所有者。",
        ) from error
