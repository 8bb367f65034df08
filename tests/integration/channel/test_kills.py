"""Joining, rotating and leaving survive a power cut after any lasting step: the next call goes on where it stopped."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from channel_site import Site, alarm
from killed_command import DIED, STEPS, counting

from convoy_audit.statement import sign_statement
from convoy_contracts.canonical import b64u
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_coordinator.errors import Problem
from convoy_coordinator.parties import store as party_store
from convoy_coordinator.parties.routes import NewParty
from convoy_node import channel_keys, join, setup
from convoy_node.channel import Line
from convoy_node.channel_home import JOIN, LEFT, SECRET, TLS, Credentials
from convoy_node.errors import NodeError
from convoy_node.identity import Identity
from convoy_node.memory import Memory

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).resolve().parents[2] / "support" / "killed_command.py"

HELLO = partner_pb2.HelloRequest(protocols=PROTOCOLS, role="insurer")
FEW = (1, 5, 12, 22, 35, 51, 70, 92, 117, 150)
MANY = (0, 2, 4, 6, 8, 10, 12, 14, 17, 20, 25, 32, 40, 50)


def dying(*words: str | Path, steps: tuple[int, ...] = FEW) -> Iterator[int]:
    """Run a command again and again, each time with more steps to live, until it ends by itself; yields the kills."""
    for kills, left in enumerate(steps):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(left), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != DIED:
            assert done.returncode == 0, done.stdout + done.stderr
            return
        yield kills
    raise AssertionError("it never came to its end")


def test_joining_goes_on_after_every_kill_with_the_keys_that_were_shown(site: Site, tmp_path: Path) -> None:
    """One folder, one request, one set of keys, however often the power fails before and after the approval."""
    home, letter = tmp_path / "node", tmp_path / "ticket"
    letter.write_text(site.ticket("Stubborn Insurer"))
    shown: set[str] = set()
    kills = 0
    for kills in dying("join", letter, "--home", home):  # noqa: B007 - its last value counts
        if home.exists():
            shown.add(setup.fingerprint(setup.read_card(home)))
            assert (home / JOIN).exists(), "a folder in its place is whole, and knows what it has asked"
    assert kills >= 3
    (request,) = site.parts.enrolment.requests()
    assert shown <= {request.fingerprint}
    site.parts.enrolment.approve(request.fingerprint)
    for _ in dying("join", letter, "--home", home):
        Identity.load(home / "keys", site.party(home))
    assert join.ask(home).state == "enrolled"
    assert not (home / SECRET).exists()
    assert Credentials.load(home, "x").days_left(request.requested_at) > 80
    assert not home.with_name(".node.joining").exists()
    assert site.events().count("coordinator:party:enrolled") == 1
    site.check_log()


def test_a_rotation_goes_on_after_every_kill_with_one_new_key(site: Site) -> None:
    """Whatever was lost, the log knows one change of key, and the node signs with the key that the coordinator believes."""
    home = site.joined("Turning Insurer")
    for _ in dying("rotate", "--home", home, steps=MANY):
        identity = Identity.load(home / "keys", site.party(home))
        assert identity.kid in (f"{site.party(home)}#1", f"{site.party(home)}#2")
        if setup.read_card(home).identity_kid == f"{site.party(home)}#2":
            break  # it died when all was done; a further call would be another rotation
    party = site.parts.parties.get(site.party(home))
    identity = Identity.load(home / "keys", party.id)
    assert (identity.kid, identity.identity_public) == (f"{party.id}#2", _public(site, party.id))
    assert site.events().count("node:key:rotated") == 1
    site.check_log()


def test_leaving_goes_on_after_every_kill_and_is_said_once(site: Site) -> None:
    """One final statement in the log; frozen from the first step on."""
    home = site.joined("Parting Insurer")
    for _ in dying("leave", "--yes", "--home", home, steps=MANY):
        pass
    assert (home / LEFT).exists()
    assert (home / "ledger.frozen").exists()
    assert site.events().count("node:duties:ended") == 1
    assert site.parts.parties.standing(site.party(home)).state == "left"
    assert (home / TLS).exists(), "keys stay: they are this side of the record"
    site.check_log()


class PowerCut(BaseException):
    """The process is gone."""


@contextmanager
def cut_after(steps: int) -> Iterator[None]:
    """End what is inside at its n-th lasting step, as ``killed_command`` does, but within this process: quick enough for every n."""

    def die() -> None:
        raise PowerCut

    counted = counting(steps, die)
    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(Line, "ask", counted(Line.ask))
        yield


def until_done(work: Callable[[], Any]) -> int:
    """Do something again and again, each time with one step more to live; return how often it was cut off."""
    for steps in range(300):
        try:
            with cut_after(steps):
                work()
            return steps
        except PowerCut:
            continue
    raise AssertionError("it never came to its end")


def test_coming_back_after_a_compromise_goes_on_after_every_kill(site: Site) -> None:
    """One request with one set of new keys, whatever was cut off; ledger and old keys stay, and the log has one change of key."""
    home = site.joined("Unlucky Insurer")
    party = site.party(home)
    site.parts.access.revoke(party, "key-compromise")
    ticket = site.ticket("Unlucky Insurer", party=party)
    assert until_done(lambda: join.join(home, ticket, recover=True)) > 10
    (request,) = site.parts.enrolment.requests("pending")
    assert join.ask(home).fingerprint == request.fingerprint == setup.fingerprint(setup.read_card(home))
    site.parts.enrolment.approve(request.fingerprint)
    until_done(lambda: join.ask(home))
    assert join.ask(home).state == "enrolled"
    assert Identity.load(home / "keys", party).kid == setup.read_card(home).identity_kid == f"{party}#2"
    assert Identity.load(home / "keys.1", party).kid == f"{party}#1"
    with site.line(home) as line:
        assert line.ask(line.partner.Hello, HELLO).party == party
    assert site.events().count("coordinator:party:rotated") == 1
    site.check_log()


def test_who_was_denied_may_come_back_with_the_next_ticket(site: Site) -> None:
    """A request that was denied has used up a key's number at the node; the coordinator takes a later one, and no old key."""
    home = site.joined("Twice Insurer")
    party = site.party(home)
    site.parts.access.revoke(party, "key-compromise")
    asked = join.join(home, site.ticket("Twice Insurer", party=party), recover=True)
    site.parts.enrolment.deny(asked.fingerprint)
    again = join.join(home, site.ticket("Twice Insurer", party=party), recover=True)
    assert again.fingerprint != asked.fingerprint
    site.parts.enrolment.approve(again.fingerprint)
    assert join.ask(home).state == "enrolled"
    assert Identity.load(home / "keys", party).kid == f"{party}#3"
    site.check_log()

    site.parts.access.revoke(party, "key-compromise")
    ticket = site.ticket("Twice Insurer", party=party)
    card, first = setup.read_card(home), Identity.load(home / "keys.1", party)
    stolen = replace(card, identity_kid=f"{party}#9", identity_key=b64u(first.identity_public))
    with pytest.raises(Problem, match="KEY_REJECTED"):
        site.parts.parties.check(NewParty.model_validate(stolen.enrolment()).enrolment())
    assert join.join(home, ticket, recover=True).state == "pending"


@pytest.mark.parametrize("change", ["rotation", "return"])
def test_a_coordinator_that_dies_between_its_log_and_its_database_says_a_change_of_key_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The entry is found again; what the former key signs in its week is still good for whoever reads the log."""
    home = site.joined("Patient Insurer")
    party, old = site.party(home), Identity.load(home / "keys", site.party(home))
    if change == "return":
        site.parts.access.revoke(party, "key-compromise")
        asked = join.join(home, site.ticket("Patient Insurer", party=party), recover=True)

    def act() -> None:
        if change == "rotation":
            channel_keys.rotate(home, datetime.now(UTC))
        else:
            site.parts.enrolment.approve(asked.fingerprint)

    def dies(*_: Any) -> None:
        raise sqlite3.OperationalError("the process is gone")

    with monkeypatch.context() as patch:
        patch.setattr(party_store, "update_party", dies)
        with pytest.raises((NodeError, sqlite3.OperationalError)):
            act()
    act()
    assert site.events().count("coordinator:party:rotated") == 1
    assert site.parts.parties.get(party).identity_kid == f"{party}#2"
    if change == "rotation":
        memory = Memory(home / "node.db")
        raw = memory.state(
            lambda n, previous: sign_statement(alarm(party), number=n, previous=previous, seed=old.identity_seed)
        )
        memory.close()
        with site.line(home) as line:
            line.ask(line.partner.State, partner_pb2.StateRequest(statements=[raw]))
    site.check_log()


def test_a_rotation_that_is_cut_off_at_any_step_names_one_new_key(site: Site) -> None:
    """Every step of a chain of calls, each of which gets one step further than the one before."""
    home = site.joined("Stepping Insurer")
    party = site.party(home)

    def rotated() -> None:
        if setup.read_card(home).identity_kid == f"{party}#1":
            channel_keys.rotate(home, datetime.now(UTC))

    assert until_done(rotated) > 10
    assert Identity.load(home / "keys", party).kid == setup.read_card(home).identity_kid == f"{party}#2"
    assert site.parts.parties.get(party).identity_kid == f"{party}#2"
    assert site.events().count("node:key:rotated") == site.events().count("coordinator:party:rotated") == 1
    assert sorted(path.name for path in (home / "keys").glob("identity-*")) == ["identity-2.pem"]
    site.check_log()


def _public(site: Site, party: str) -> bytes:
    from convoy_contracts.canonical import unb64u

    return unb64u(site.parts.parties.get(party).identity_key)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
