"""Join a federation with a ticket: keys are born here, public halves are sent, a human approves.

    join(home, ticket, ...) -> Standing       as often as you like; goes on where it stopped
    ask(home) -> Standing                     how the request stands; fetches the certificate once approved

Steps, and what is true if the process dies after each: 1. the coordinator's certificate and log keys are compared with
the ticket (nothing was written); 2. the folder is made beside its place and moved there in one step (a half-made one is
thrown away: its keys were never shown to anybody); 3. the request is sent, and sent again byte for byte until it is
answered; 4. the certificate is put beside its key in one step, then the ticket's secret and ``join.json`` go. Private
keys never leave the folder: what is sent is a card of public keys, a certificate request, and a signature over both.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from convoy_audit.errors import AuditError
from convoy_audit.note import Verifier
from convoy_audit.witness_store import sync_folder
from convoy_contracts.canonical import b64u, canonical_bytes, unb64u
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_contracts.wire.proof import enrolment_proof
from convoy_contracts.wire.ticket import Ticket, TicketMalformed, keys_digest
from convoy_node import setup
from convoy_node.channel import ChannelRefused, CoordinatorUntrusted, Door, Line, is_proxy
from convoy_node.channel_home import (
    CA,
    CHANNEL,
    JOIN,
    LINK_CA,
    SECRET,
    TLS,
    Connection,
    certificate_request,
    matches,
    new_tls_key,
    read_json,
    write,
    write_private,
)
from convoy_node.errors import HomeRefused, NodeError
from convoy_node.identity import Card, Identity
from convoy_node.settings import HOLDERS, NODE_FILE, Settings

KEYS: Final = "keys"
_OVER: Final = frozenset({"TICKET_EXPIRED", "TICKET_UNKNOWN", "TICKET_USED", "REQUEST_DENIED"})
"""Refusals after which a request is never taken: its ticket is over, or a human said no."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator may say at joining; the rest is in the ticket."""

    region: str = "CN-SH"
    data: str = "data/data.parquet"
    asset: str = ""
    cap_micro: int = 6_000_000
    proxy: str = ""

    def check(self) -> None:
        """Check what can be checked before anything is written or sent.

        Raises:
            NodeError: INPUT_INVALID; ``reasons`` lists every fault.
        """
        faults = setup.faults_of(self.region, self.asset)
        if self.proxy and not is_proxy(self.proxy):
            faults.append("--proxy: must be http://host:port")
        if faults:
            raise NodeError(
                "the options of joining do not fit; nothing was made or sent.",
                code="INPUT_INVALID",
                fix="Correct the listed options and run the command again.",
                fix_zh="请更正列出的选项并重新运行命令。",
                reasons=faults,
            )


@dataclass(frozen=True, slots=True)
class Standing:
    """How joining stands: ``pending`` or ``enrolled``."""

    state: str
    party: str
    role: str
    fingerprint: str
    coordinator: str


def join(
    home: Path, ticket_text: str, wishes: Wishes | None = None, *, recover: bool = False, now: datetime | None = None
) -> Standing:
    """Join, or go on joining.

    Args:
        home: the node's folder; made here.
        ticket_text: the ticket.
        recover: make new keys in a folder whose keys were revoked; ledger, consents and memory stay.

    A folder that was never enrolled takes a further ticket: where the coordinator has refused its earlier request for good, new
    keys are made in it as with ``recover``. A request that the coordinator never took because of its card is corrected with the
    region that is now named.

    Raises:
        NodeError: whatever stands in the way, with its fix.
    """
    wishes = wishes or Wishes()
    wishes.check()
    ticket = read_ticket(ticket_text)
    waiting = read_json(home / JOIN)
    if waiting is not None and waiting.get("ticket") == ticket.id:
        return _ask_again(home, ticket, wishes)
    if waiting is None and not recover and (home / CHANNEL).exists():
        return enrolled(home)
    if waiting is not None and not recover:
        standing = _earlier(home, ticket)
        if standing is not None:
            return standing
    log_keys = _describe(ticket, wishes.proxy)
    if waiting is not None and not recover:
        _check_log(home, ticket, log_keys)
    if recover or waiting is not None:
        _new_keys(home, ticket, wishes, now or datetime.now(UTC))
    else:
        _new_home(home, ticket, wishes, log_keys, now or datetime.now(UTC))
    return ask(home)


def _ask_again(home: Path, ticket: Ticket, wishes: Wishes) -> Standing:
    """Ask how the request stands; send it corrected where the coordinator never took it because of the card's region."""
    try:
        return ask(home)
    except ChannelRefused as error:
        card = setup.read_card(home)
        if error.code != "INPUT_INVALID" or wishes.region == card.region:
            raise
    settings = (home / NODE_FILE).read_text(encoding="utf-8")
    region = json.dumps(wishes.region)
    write(home / NODE_FILE, re.sub(r"(?m)^region = .*$", f"region = {region}", settings, count=1).encode())
    # If we die here: node.toml names the new region and the request the old one; the next call corrects it again.
    _prepare(
        home,
        ticket,
        replace(wishes, proxy=wishes.proxy or Connection.load(home).proxy),
        replace(card, region=wishes.region),
    )
    return ask(home)


def _earlier(home: Path, ticket: Ticket) -> Standing | None:
    """Ask how the request of an earlier ticket stands; None where it was refused for good.

    Raises:
        HomeRefused: the folder is another party's, or its request still waits for a human.
    """
    _own_card(home, ticket)
    try:
        standing = ask(home)
    except ChannelRefused as error:
        if error.code not in _OVER:
            raise
        return None
    if standing.state == "pending":
        raise HomeRefused(
            "the folder's request with an earlier ticket still waits for its approval.",
            party=ticket.party,
            fix="Have it approved, or denied: then this ticket makes new keys in the folder. Or name a new folder.",
            fix_zh="请先批准该申请；或拒绝后，本票据将在该文件夹中生成新密钥。也可指定新文件夹。",
        )
    return standing


def _own_card(home: Path, ticket: Ticket) -> Card:
    """Return the folder's card, if the ticket is for the same party and role."""
    card = setup.read_card(home)
    if (card.id, card.role) != (ticket.party, ticket.role):
        raise HomeRefused(
            f"the folder is that of {card.id} as {card.role}; the ticket is for {ticket.party} as {ticket.role}.",
            party=ticket.party,
            fix="Name the party's own folder, or a new one for this ticket.",
            fix_zh="请指定该方自己的文件夹，或为该票据指定新文件夹。",
        )
    return card


def _check_log(home: Path, ticket: Ticket, log_keys: list[str]) -> None:
    """Check that a folder that is there believes the log of the ticket's coordinator."""
    if sorted(Settings.load(home).log_keys) != sorted(log_keys):
        raise HomeRefused(
            "the folder believes another log than that of the ticket's coordinator.",
            party=ticket.party,
            fix="Name a new folder; a node belongs to one log.",
            fix_zh="请指定新文件夹；一个节点只属于一个日志。",
        )


def ask(home: Path) -> Standing:
    """Send the request, or ask how it stands; once approved, keep the certificate.

    Raises:
        ChannelRefused, ChannelUnreachable, CoordinatorUntrusted: the request can be sent again where that makes sense.
    """
    waiting = read_json(home / JOIN)
    if waiting is None:
        return enrolled(home)
    card = _asked_with(home, waiting)
    connection = Connection.load(home)
    request = partner_pb2.EnrolRequest(
        ticket=waiting["ticket"],
        secret=(home / SECRET).read_text(encoding="ascii"),
        card=canonical_bytes(card.enrolment()),
        csr=unb64u(waiting["csr"]),
        proof=unb64u(waiting["proof"]),
    )
    with Line.enrolment(connection.door(home, connection.enrolment), card.id) as line:
        reply = line.ask(line.enrol.Enrol, request)
    if reply.fingerprint != setup.fingerprint(card):
        raise CoordinatorUntrusted("the coordinator shows another fingerprint for this node.", party=card.id)
    if reply.state == partner_pb2.EnrolReply.APPROVED:
        _keep(home, card, connection, reply)
        return enrolled(home)
    return Standing("pending", card.id, card.role, reply.fingerprint, connection.enrolment)


def _asked_with(home: Path, waiting: Mapping[str, Any]) -> Card:
    """Return the card of the request, and have ``card.json`` say the same: a recovery writes the request first."""
    known = setup.read_card(home)
    card = Card.read(waiting["card"]) if isinstance(waiting.get("card"), dict) else known
    if card != known:
        setup.write_card(home, card)
    return card


def enrolled(home: Path) -> Standing:
    """Return that this folder has joined.

    Raises:
        HomeRefused: it has not.
    """
    connection, card = Connection.load(home), setup.read_card(home)
    return Standing("enrolled", card.id, card.role, setup.fingerprint(card), connection.channel)


def read_ticket(text: str) -> Ticket:
    """Read a ticket.

    Raises:
        NodeError: TICKET_MALFORMED.
    """
    try:
        return Ticket.read(text)
    except TicketMalformed as error:
        raise NodeError(
            f"{error}.",
            code="TICKET_MALFORMED",
            fix="Copy the whole ticket again, or name the file that holds it.",
            fix_zh="请重新复制完整票据，或指定保存票据的文件。",
        ) from None


def pem_of(ca: bytes) -> bytes:
    """Return the ticket's CA as PEM.

    Raises:
        NodeError: TICKET_MALFORMED.
    """
    try:
        return x509.load_der_x509_certificate(ca).public_bytes(Encoding.PEM)
    except ValueError:
        raise NodeError(
            "the ticket names no CA certificate.",
            code="TICKET_MALFORMED",
            fix="Ask for a new ticket.",
            fix_zh="请索取新票据。",
        ) from None


def _describe(ticket: Ticket, proxy: str) -> list[str]:
    """Return the log's keys from a coordinator that is the ticket's."""
    with Line.enrolment(Door(ticket.at, pem_of(ticket.ca), proxy), ticket.party) as line:
        about = line.ask(line.enrol.Describe, partner_pb2.DescribeRequest(ticket=ticket.id, protocols=PROTOCOLS))
    keys = list(about.log_keys)
    try:
        names = {Verifier.parse(key).name for key in keys}
    except AuditError:
        names = set()
    if keys_digest(keys) != ticket.keys or names != {ticket.origin}:
        raise CoordinatorUntrusted("the coordinator's log keys are not those of the ticket.", party=ticket.party)
    return keys


def _new_home(home: Path, ticket: Ticket, wishes: Wishes, log_keys: list[str], now: datetime) -> None:
    setup.check_empty(home, ticket.party)
    holds = ticket.role in HOLDERS
    short = ticket.party.removeprefix("did:web:").split(".")[0]
    home = home.absolute()
    beside = home.with_name(f".{home.name}.joining")
    if beside.exists():
        shutil.rmtree(beside)  # of a join that died; its keys were never shown to anybody
    setup.make_folder(beside, ticket.party)
    card = setup.create_home(
        beside,
        party=ticket.party,
        role=ticket.role,
        region=wishes.region,
        name=ticket.name,
        log_keys=log_keys,
        data_source=wishes.data if holds else "",
        asset=(wishes.asset or f"urn:convoy:asset:{short}:1") if holds else "",
        asset_year_cap_micro=wishes.cap_micro if holds else 0,
        now=now,
    )
    _prepare(beside, ticket, wishes, card)
    # If we die before this: nothing was sent. After it: the folder is whole, and the request goes out at the next call.
    try:
        beside.rename(home)
    except OSError as error:
        raise HomeRefused(
            f"the folder {home.name!r} cannot be put in its place ({error.strerror}).",
            party=ticket.party,
            fix="Name a folder inside a volume, not the volume's own root.",
            fix_zh="请指定存储卷内的文件夹，而非卷的根目录。",
        ) from error
    sync_folder(home.parent)


def _new_keys(home: Path, ticket: Ticket, wishes: Wishes, now: datetime) -> None:
    """Put new keys in the place of revoked ones; the old ones stay beside, for what was sealed to them."""
    old = _own_card(home, ticket)
    number = int(old.identity_kid.rpartition("#")[2]) + 1
    beside, former = home / "keys.new", home / f"keys.{number - 1}"
    if former.exists() and (home / KEYS).exists():
        # Made by an earlier call that died before its request was written.
        identity = Identity.load(home / KEYS, old.id)
    else:
        if beside.exists():
            shutil.rmtree(beside)  # half-made, or never in its place: shown to nobody
        identity = Identity.create(beside, old.id, now.replace(microsecond=0) - setup.DRIFT, number=number)
        if (home / KEYS).exists():
            (home / KEYS).rename(former)
        # If we die here: there are no keys in their place; the next call makes new ones beside and moves them there.
        beside.rename(home / KEYS)
        sync_folder(home)
    card = identity.card(name=old.name, role=old.role, region=old.region)
    setup.pin(home, [card])
    # If we die before its last file, join.json: the next call finds keys and number as they are. After it: ``ask`` goes on.
    _prepare(home, ticket, wishes, card)


def _prepare(home: Path, ticket: Ticket, wishes: Wishes, card: Card) -> None:
    identity = Identity.load(home / KEYS, card.id)
    key = new_tls_key()
    csr = certificate_request(key, card.id)
    body = canonical_bytes(card.enrolment())
    proof = identity.identity.sign(enrolment_proof(ticket.id, body, csr))
    write_private(home / TLS, key)
    write_private(home / SECRET, ticket.secret.encode("ascii"))
    write(home / CA, pem_of(ticket.ca))
    Connection(enrolment=ticket.at, proxy=wishes.proxy).save(home)
    waiting = {
        "ticket": ticket.id,
        "card": card.enrolment(),
        "csr": b64u(csr),
        "proof": b64u(proof),
        "until": ticket.until,
    }
    write(home / JOIN, json.dumps(waiting, indent=1).encode())


def _keep(home: Path, card: Card, connection: Connection, reply: Any) -> None:
    key = (home / TLS).read_bytes().partition(b"-----BEGIN CERTIFICATE-----")[0]
    if not matches(key, reply.certificate):
        raise ChannelRefused("the certificate is of another key.", party=card.id, code="CERTIFICATE_WRONG")
    write_private(home / TLS, key + reply.certificate)
    told(home, connection, reply.endpoints)
    # If we die before these: the next call finds the request approved and does the same again.
    (home / SECRET).unlink(missing_ok=True)
    (home / JOIN).unlink(missing_ok=True)


def told(home: Path, connection: Connection, endpoints: Any) -> Connection:
    """Keep what the coordinator says about where to connect; an empty address changes nothing."""
    if endpoints.link_ca:
        write(home / LINK_CA, endpoints.link_ca)
    new = Connection(
        enrolment=connection.enrolment,
        channel=endpoints.channel or connection.channel,
        link=endpoints.link or connection.link,
        app_hashes=tuple(endpoints.app_hashes) or connection.app_hashes,
        proxy=connection.proxy,
    )
    if new != connection:
        new.save(home)
    return new


def as_json(standing: Standing) -> Mapping[str, str]:
    """Return a standing for ``--json``."""
    return {
        "state": standing.state,
        "party": standing.party,
        "role": standing.role,
        "fingerprint": standing.fingerprint,
        "coordinator": standing.coordinator,
    }
