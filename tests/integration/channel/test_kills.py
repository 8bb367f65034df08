"""Joining, rotating and leaving survive a power cut after any lasting step: the next call goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from channel_site import Site

from convoy_node import join, setup
from convoy_node.channel_home import JOIN, LEFT, SECRET, TLS, Credentials
from convoy_node.identity import Identity

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).resolve().parents[2] / "support" / "killed_command.py"
DIED = 9
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


def _public(site: Site, party: str) -> bytes:
    from convoy_contracts.canonical import unb64u

    return unb64u(site.parts.parties.get(party).identity_key)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
