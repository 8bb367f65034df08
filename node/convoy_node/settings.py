"""What a node's operator decides, in two files of its folder; neither holds a secret.

    Settings.load(home)      node.toml and pins.toml; every fault of both is reported at once

``node.toml`` is written by ``convoy-node init`` and edited by people: who this party is, which log it believes, where its
rows are, which asset it owns with its grades and yearly cap. ``pins.toml`` holds the identity keys of the other parties,
as a human compared them; it is trust, so no message ever changes it.

There is no setting for noise, clips, sigma or checks: these follow from the signed contract or from nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from convoy_audit.errors import AuditError
from convoy_audit.note import Verifier
from convoy_contracts.canonical import MAX_SAFE_INTEGER, unb64u
from convoy_contracts.errors import ContractsError
from convoy_contracts.instants import instant
from convoy_contracts.vocabulary import GRADES
from convoy_node.connectors import IBIS, Source, open_source
from convoy_node.errors import HomeRefused, SettingsRefused
from convoy_node.secret_file import read_secret

NODE_FILE: Final = "node.toml"
PINS_FILE: Final = "pins.toml"
SCHEMA: Final = "convoy-node/1"
ENGINES: Final = ("sqlalchemy", "ibis")
HOLDERS: Final = ("oem", "insurer", "charging")
"""The roles that have persons."""
WITHOUT_PERSONS: Final = ("trustee", "auditor")
"""A trustee deals randomness, an auditor only watches and cosigns."""
ROLES: Final = (*HOLDERS, *WITHOUT_PERSONS)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pin:
    """The identity key of a party; ``revoked`` is (instant, reason) once it must no longer be believed."""

    party: str
    kid: str
    key: str
    not_before: str
    not_after: str
    revoked: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class DataPlace:
    """Where a party's rows are: ``file``, or the table of a database whose address is in ``url_file`` (0600, never in node.toml).

    ``engine``: *sqlalchemy*, or *ibis* to have a warehouse compute the rows. ``mapping``: file that turns the party's columns
    into the catalogue's fields (``convoy-node data map``).
    """

    file: Path | None
    url_file: Path | None
    engine: str
    table: str
    mapping: Path | None
    person: str

    def open(self, party: str) -> Source:
        """Return the source; nothing is read yet but the address.

        Raises:
            KeyRefused: the file with the address is missing or open to others.
            DatasetRefused: the mapping has faults.
        """
        place: str | Path = self.file or ""
        if self.url_file is not None:
            url = read_secret(self.url_file, party).decode("utf-8", "replace").strip()
            place = f"{IBIS}{url}" if self.engine == "ibis" else url
        return open_source(place, table=self.table, mapping=self.mapping, person=self.person, party=party)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one node, checked.

    ``log_keys``: verifier keys of the coordinator's log, all under its origin. ``data`` is None and ``asset`` empty at a node
    without persons. ``asset_fields``: grade by field. ``asset_year_cap_micro``: epsilon that all contracts of a year together
    may cost a person. ``contract_names``: contract uid by the name that consent tables use.
    """

    home: Path
    party: str
    role: str
    region: str
    name: str
    log_keys: tuple[str, ...]
    data: DataPlace | None
    person_column: str
    asset: str
    asset_fields: Mapping[str, str]
    asset_year_cap_micro: int
    contract_names: Mapping[str, str]
    pins: tuple[Pin, ...]

    @classmethod
    def load(cls, home: Path) -> Self:
        """Read the settings of a node's folder.

        Raises:
            HomeRefused: no folder of a node.
            SettingsRefused: faults; ``reasons`` lists all of them.
        """
        reader = _Reader()
        node, pins = _toml(home / NODE_FILE, reader), _toml(home / PINS_FILE, reader)
        party, log, data = (reader.table(node, name) for name in ("party", "log", "data"))
        if node.get("schema") != SCHEMA:
            reader.fault("schema", f"must be {SCHEMA!r}")
        asset = reader.table(node, "asset")
        made = cls(
            home=home,
            party=reader.value(party, "party.id", str, fits=is_id, what="an id without spaces or |"),
            role=reader.value(party, "party.role", str, fits=ROLES.__contains__, what=f"one of {', '.join(ROLES)}"),
            region=reader.value(party, "party.region", str, fits=bool, what="a region code such as CN-SH"),
            name=reader.value(party, "party.name", str, fits=bool, what="a name"),
            log_keys=_log_keys(log, reader),
            data=_data_place(home, data, reader),
            person_column=reader.value(data, "data.person", str, default="person_id", fits=bool, what="a column"),
            asset=reader.value(asset, "asset.id", str, default=""),
            asset_fields=_grades(asset, reader),
            asset_year_cap_micro=reader.value(
                asset, "asset.year_cap_micro", int, default=0, fits=_is_amount, what="micro epsilon >= 0"
            ),
            contract_names=_names(node, reader),
            pins=_pins(pins, reader),
        )
        if made.role not in WITHOUT_PERSONS:
            if made.data is None:
                reader.fault(
                    "data.source", "missing; a party with persons names its file, or data.url_file and data.table"
                )
            if not made.asset:
                reader.fault("asset.id", "missing; a party with persons names its asset")
        reader.raise_faults(made.party)
        return made

    @property
    def log_origin(self) -> str:
        """The name of the log that this node believes."""
        return Verifier.parse(self.log_keys[0]).name

    def world_keys(self) -> dict[str, dict[str, Any]]:
        """Return the pinned identity keys as the ``keys`` of a decision's world (FORMAT.md §2)."""
        return {pin.kid: _world_key(pin) for pin in self.pins}

    def catalogue(self) -> dict[str, dict[str, Any]]:
        """Return the own asset as the ``catalog`` of a decision's world."""
        fields = {name: {"grade": grade} for name, grade in self.asset_fields.items()}
        return {self.asset: {"owner": self.party, "fields": fields}} if self.asset else {}


class _Reader:
    """Collects faults, so that all of them are told at once."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, place: str, what: str) -> None:
        self.faults.append(f"{place}: {what}")

    def table(self, source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        value = source.get(name, {})
        if isinstance(value, dict):
            return value
        self.fault(name, "must be a table")
        return {}

    def value(
        self,
        source: Mapping[str, Any],
        place: str,
        kind: type[T],
        *,
        default: T | None = None,
        fits: Callable[[T], object] = lambda _: True,
        what: str = "another value",
    ) -> T:
        value = source.get(place.rsplit(".", 1)[-1], default)
        if type(value) is not kind:
            self.fault(place, "missing" if value is None else f"must be {what}")
            return kind()
        if not fits(value):
            self.fault(place, f"must be {what}")
        return value

    def raise_faults(self, party: str) -> None:
        if self.faults:
            noun = "fault" if len(self.faults) == 1 else "faults"
            raise SettingsRefused(f"the settings have {len(self.faults)} {noun}.", party=party, reasons=self.faults)


def _toml(path: Path, reader: _Reader) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HomeRefused(f"there is no {path.name} in the folder {path.parent.name!r}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reader.fault(path.name, f"is no TOML ({type(error).__name__})")
        return {}


def _data_place(home: Path, data: Mapping[str, Any], reader: _Reader) -> DataPlace | None:
    def text(name: str) -> str:
        return reader.value(data, f"data.{name}", str, default="")

    source, url_file, table, mapping = text("source"), text("url_file"), text("table"), text("mapping")
    engine = reader.value(
        data, "data.engine", str, default="sqlalchemy", fits=ENGINES.__contains__, what=f"one of {', '.join(ENGINES)}"
    )
    unknown = sorted(set(data) - {"source", "url_file", "table", "mapping", "engine", "person"})
    for name in unknown:
        reader.fault(f"data.{name}", "is no setting")
    if source and url_file:
        reader.fault("data.source", "stands beside data.url_file; name one of them")
    if url_file and not (table or mapping):
        reader.fault("data.table", "missing; a database needs a table, a view or data.mapping")
    if not source and not url_file:
        return None
    return DataPlace(
        file=home / source if source else None,
        url_file=home / url_file if url_file else None,
        engine=engine,
        table=table,
        mapping=home / mapping if mapping else None,
        person=reader.value(data, "data.person", str, default="person_id", fits=bool, what="a column"),
    )


def is_id(text: str) -> bool:
    """Whether a text can name a party or an asset: no space, quote, backslash or |."""
    return re.fullmatch(r"[!#-&(-\[\]-{}~]{1,200}", text) is not None


def is_region(text: str) -> bool:
    """Whether a text is a region's code as the coordinator takes it: country, and up to two parts, such as CN-SH."""
    return re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]{1,3}){0,2}", text) is not None


def _log_keys(log: Mapping[str, Any], reader: _Reader) -> tuple[str, ...]:
    keys = reader.value(log, "log.keys", list, default=[], fits=bool, what="a list of verifier keys")
    names = set()
    for number, key in enumerate(keys):
        try:
            names.add(Verifier.parse(key if isinstance(key, str) else "").name)
        except AuditError as error:
            reader.fault(f"log.keys[{number}]", error.cause)
    if len(names) > 1:
        reader.fault("log.keys", "name several logs; a node believes one")
    return tuple(str(key) for key in keys)


def _is_amount(number: int) -> bool:
    return 0 <= number <= MAX_SAFE_INTEGER


def _grades(asset: Mapping[str, Any], reader: _Reader) -> dict[str, str]:
    fields = reader.table(asset, "fields")
    for name, grade in fields.items():
        if grade not in GRADES:
            reader.fault(f"asset.fields.{name}", f"must be a grade: {', '.join(GRADES)}")
    return {name: str(grade) for name, grade in fields.items()}


def _names(node: Mapping[str, Any], reader: _Reader) -> dict[str, str]:
    names = reader.table(node, "contracts")
    for name, uid in names.items():
        if not isinstance(uid, str) or not uid:
            reader.fault(f"contracts.{name}", "must be a contract uid")
    return {name: str(uid) for name, uid in names.items()}


def _pins(pins: Mapping[str, Any], reader: _Reader) -> tuple[Pin, ...]:
    rows = reader.value(pins, "pin", list, default=[])
    found = [_pin(row if isinstance(row, dict) else {}, f"pin[{number}]", reader) for number, row in enumerate(rows)]
    if len({pin.kid for pin in found}) != len(found):
        reader.fault("pin", "a kid stands twice")
    return tuple(found)


def _pin(row: Mapping[str, Any], place: str, reader: _Reader) -> Pin:
    def text(name: str, fits: Callable[[str], object], what: str) -> str:
        return reader.value(row, f"{place}.{name}", str, fits=fits, what=what)

    revoked = None
    if "revoked_at" in row or "revoked_reason" in row:
        revoked = (text("revoked_at", _is_instant, "a timestamp"), text("revoked_reason", bool, "a reason"))
    return Pin(
        party=text("party", bool, "a party id"),
        kid=text("kid", bool, "a key id"),
        key=text("key", _is_key, "base64url of 32 bytes"),
        not_before=text("not_before", _is_instant, "a timestamp"),
        not_after=text("not_after", _is_instant, "a timestamp"),
        revoked=revoked,
    )


def _is_instant(text: str) -> bool:
    return instant(text) is not None


def _is_key(text: str) -> bool:
    try:
        return len(unb64u(text)) == 32
    except ContractsError:
        return False


def _world_key(pin: Pin) -> dict[str, Any]:
    key = {
        "party": pin.party,
        "kty": "OKP",
        "crv": "Ed25519",
        "x": pin.key,
        "notBefore": pin.not_before,
        "notAfter": pin.not_after,
    }
    if pin.revoked is not None:
        key |= {"revokedAt": pin.revoked[0], "revokedReason": pin.revoked[1]}
    return key
