"""Commands for drafting: new, text, diff, export."""

from __future__ import annotations

import argparse
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convoy_contracts.life_cli import read_contract, read_json

if TYPE_CHECKING:
    from convoy_contracts.build import Member

EXIT_OK, EXIT_FAULT, EXIT_WIDENING = 0, 2, 3


def register(commands: Any) -> None:
    """Add the commands."""
    new = commands.add_parser("new", help="print a draft contract from a template")
    new.add_argument("template", choices=("risk", "recommendation", "bundle"))
    new.add_argument("--uid", required=True, help="id of the contract, the same in all its versions")
    new.add_argument("--version", type=int, default=1, help="number of the version")
    new.add_argument("--title", help="name for people; decides nothing")
    new.add_argument("--offer-until", required=True, help="when the offer lapses, with offset")
    new.add_argument("--not-before", required=True, help="first instant of the term, with offset")
    new.add_argument("--not-after", required=True, help="end of the term, with offset; not included")
    new.add_argument(
        "--party", action="append", default=[], metavar="ROLE=ID@REGION",
        help="oem, insurer, charging or trustee; the first is the author; repeat it",
    )  # fmt: skip
    new.add_argument("--pia", action="append", default=[], metavar="ID=REF@UNTIL", help="a party's impact assessment")
    new.add_argument("--mask-key", action="append", default=[], metavar="ID=X", help="a party's X25519 key, base64url")
    new.add_argument(
        "--witness-key", action="append", default=[], metavar="ID=VKEY",
        help="a party's witness key; a node has two, on its card: repeat it for each",
    )  # fmt: skip
    new.add_argument("--notice", default="vehicle-owner@1", help="id of the accepted notice")
    new.set_defaults(run=_new)

    text = commands.add_parser(
        "text", help="print the contract in sentences; exit 2 if it is not the text that is bound"
    )
    text.add_argument("contract", type=Path)
    text.add_argument("--lang", choices=("zh-CN", "en"), default="zh-CN", help="language of the text")
    text.add_argument("--bind", action="store_true", help="print the document with the digests of its texts instead")
    text.set_defaults(run=_text)

    diff = commands.add_parser("diff", help="say member by member what a new version widens or narrows")
    diff.add_argument("old", type=Path)
    diff.add_argument("new", type=Path)
    diff.add_argument("--json", action="store_true", help="print the changes as JSON")
    diff.add_argument("--exit-code", action="store_true", help="exit 3 if persons must be asked again")
    diff.set_defaults(run=_diff)

    export = commands.add_parser("export", help="print the contract as ODRL and DPV in JSON-LD")
    export.add_argument("contract", type=Path)
    export.add_argument("--odrl", action="store_true", required=True, help="the one view there is")
    export.set_defaults(run=_export)


def _new(given: argparse.Namespace) -> int:
    from convoy_contracts.templates import draft

    document = draft(
        given.template, uid=given.uid, version=given.version, title=given.title, nonce=secrets.token_urlsafe(16),
        offer_until=given.offer_until, not_before=given.not_before, not_after=given.not_after, notice=given.notice,
        parties=_members(given),
    )  # fmt: skip
    print(json.dumps(document, ensure_ascii=False, indent=1))
    return EXIT_OK


def _members(given: argparse.Namespace) -> list[Member]:
    from convoy_contracts.build import ROLES, Member
    from convoy_contracts.errors import ArgumentRefused

    def pairs(name: str, values: list[str]) -> dict[str, str]:
        found = dict(value.split("=", 1) for value in values if "=" in value)
        if len(found) != len(values):
            raise ArgumentRefused(f"--{name} is given twice for one party, or has no '='", fix="Write ID=VALUE, once.")
        return found

    assessments = {party: tuple(value.rsplit("@", 1)) for party, value in pairs("pia", given.pia).items()}
    masks = pairs("mask-key", given.mask_key)
    witnesses: dict[str, list[str]] = {}
    for value in given.witness_key:
        party, equals, key = value.partition("=")
        if not equals or key in witnesses.setdefault(party, []):
            raise ArgumentRefused("--witness-key has no '=', or names one key twice", fix="Write ID=VKEY, once a key.")
        witnesses[party].append(key)
    members = []
    for spelled in given.party:
        role, _, rest = spelled.partition("=")
        party, _, region = rest.rpartition("@")
        if role not in ROLES or not party or not region:
            raise ArgumentRefused(f"--party {spelled} is no ROLE=ID@REGION", fix="Write oem=did:web:oem.cn@CN-SH.")
        pia = assessments.get(party)
        if pia is not None and len(pia) != 2:
            raise ArgumentRefused(f"--pia of {party} is no REF@UNTIL", fix="Write ID=PIA-1@2027-11-01T00:00:00+08:00.")
        members.append(
            Member(
                party,
                role,
                region,
                mask_key=masks.get(party),
                witness_key="\n".join(witnesses[party]) if party in witnesses else None,
                pia=None if pia is None else (pia[0], pia[1]),
            )
        )
    return members


def _text(given: argparse.Namespace) -> int:
    import sys

    from convoy_contracts.lawyers import bind_text, render, text_faults

    contract = read_contract(given.contract)
    if given.bind:
        print(json.dumps(bind_text(contract, read_json(given.contract)), ensure_ascii=False, indent=1))
        return EXIT_OK
    print(render(contract, given.lang), end="")
    faults = text_faults(contract)
    for fault in faults:
        print(f"TEXT_NOT_BOUND: {fault}", file=sys.stderr)
    return EXIT_FAULT if faults else EXIT_OK


def _diff(given: argparse.Namespace) -> int:
    from convoy_contracts.amendments import classify

    found = classify(read_contract(given.old), read_contract(given.new))
    if given.json:
        changes = [change.as_json() for change in found.changes]
        print(json.dumps({"reconsent": found.needs_consent, "changes": changes}, ensure_ascii=False))
    else:
        for change in found.changes:
            print(f"{change.effect:<9}  {change.where}: {_shown(change.old)} -> {_shown(change.new)}")
        print("re-consent: persons must be asked again" if found.needs_consent else "notify: nothing is widened")
    return EXIT_WIDENING if given.exit_code and found.needs_consent else EXIT_OK


def _shown(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _export(given: argparse.Namespace) -> int:
    from convoy_contracts.odrl import export

    print(json.dumps(export(read_contract(given.contract)), ensure_ascii=False, indent=1))
    return EXIT_OK
