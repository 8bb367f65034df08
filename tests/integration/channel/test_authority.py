"""Another certificate authority follows the pinned one without new tickets; one that it has not signed for is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from channel_site import Site, site_in, until

from convoy_audit.entry import encode
from convoy_audit.evidence import Evidence
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_coordinator.channel import papers
from convoy_coordinator.enrolment.authorities import NEXT_FACTS, Succession
from convoy_coordinator.enrolment.ca import Authority
from convoy_coordinator.errors import Problem
from convoy_coordinator.keys import CA_KEY
from convoy_node import join
from convoy_node.channel import ChannelRefused, ChannelUnreachable, CoordinatorUntrusted
from convoy_node.channel_authority import NotYet, follow
from convoy_node.channel_home import CA, Credentials
from convoy_node.channel_keys import open_line
from convoy_node.channel_roots import FACTS, GRACE, NEXT, trusted
from convoy_node.identity import Identity
from convoy_node.settings import Settings
from convoy_node.up import Node

HELLO = partner_pb2.HelloRequest(protocols=PROTOCOLS, role="insurer")
LEAD, OVERLAP = timedelta(days=7), timedelta(days=20)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "LOOK_S", 0.0)


def now(site: Site) -> datetime:
    return datetime.now(UTC) + site.ahead


def says_hello(site: Site, home: Path) -> str:
    """Connect anew, by the site's clock."""
    with open_line(home, site.party(home), now(site)) as line:
        return str(line.ask(line.partner.Hello, HELLO, deadline_s=10).party)


def up_until(site: Site, home: Path, true: Any, what: str) -> None:
    """Run a node by the site's clock until something is true."""
    import threading

    node = Node(home, tell=lambda text: print(text, flush=True), clock=lambda: now(site))
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    try:
        until(true, what, 30)
    finally:
        node.stop()
        thread.join(20)


def test_an_authority_is_followed_by_another_without_a_pause_or_a_ticket(tmp_path: Path) -> None:
    """Announced, both, alone: in each of the three a node that heard of it connects; at the end one that did not is refused."""
    begun = -timedelta(
        days=40
    )  # TLS looks at the real clock, so all of it lies before now and certificates are still good
    with site_in(tmp_path) as site:
        site.ahead = begun
        home, away = site.joined("Awake Insurer"), site.joined("Sleeping Insurer")
        first = site.parts.succession.authorities.present.fingerprint
        coming = site.parts.succession.announce(LEAD, OVERLAP)
        assert site.parts.succession.announce(LEAD, OVERLAP).log_index == coming.log_index, "again changes nothing"
        up_until(site, home, (home / FACTS).exists, "the announcement is followed")
        old = Credentials.load(home, "x")
        assert trusted(home, now(site)) == (home / CA).read_bytes(), "announced is not yet trusted"

        site.ahead = begun + LEAD + timedelta(days=1)
        for one in (home, away):
            assert says_hello(site, one) == site.party(one), "both are good, also for who knows nothing"
        up_until(site, home, lambda: Credentials.load(home, "x") != old, "a certificate of the next one is there")
        fresh = site.joined("New Insurer")
        assert site.parts.succession.authorities.present.fingerprint == first

        site.ahead = begun + LEAD + OVERLAP + timedelta(hours=1)
        assert says_hello(site, home) == site.party(home)
        assert site.parts.succession.authorities.present.fingerprint == coming.authority.fingerprint != first
        site.ahead += GRACE
        assert says_hello(site, home) == site.party(home)
        assert not (home / NEXT).exists()
        for lost in (away, fresh):
            with pytest.raises(CoordinatorUntrusted):
                says_hello(site, lost)
        late = site.joined("Late Insurer")
        assert (late / CA).read_bytes() == (home / CA).read_bytes(), "tickets name the one that serves"
        site.check_log()
        keys, tls = site.parts.settings.keys_folder, site.parts.settings.tls_folder
        assert sorted(path.name for path in keys.glob("ca*")) == [CA_KEY], "the old private key is gone"
        assert len(list(tls.glob("ca-was-*.pem"))) == 1
    with site_in(tmp_path) as again:
        again.ahead = begun + LEAD + OVERLAP + GRACE * 2
        assert says_hello(again, home) == again.party(home)


@pytest.fixture
def heard(site: Site) -> tuple[Site, Path, dict[str, Any]]:
    """A node, and the evidence of an announcement that it and the log have cosigned."""
    home = site.joined("Careful Insurer")
    site.parts.succession.announce(LEAD, OVERLAP)
    cosign(site, home)
    return site, home, json.loads(site.parts.succession.evidence())


def cosign(site: Site, home: Path) -> None:
    from convoy_node.witness_home import open_witness

    log, witness = site.parts.log, open_witness(home)
    note, old = log.checkpoint(), witness.size(log.origin)
    from convoy_audit.checkpoint import peek

    done = witness.add_checkpoint(note.encode(), old, log.consistency(old, peek(note.encode()).size), 1_800_000_000)
    log.add_cosignatures(note + done.lines)


def follows(site: Site, home: Path, evidence: dict[str, Any], at: datetime | None = None) -> bool:
    own = [signer.verifier for signer in Identity.load(home / "keys", site.party(home)).witness]
    return follow(home, Settings.load(home), json.dumps(evidence).encode(), own, at or now(site))


def test_an_announcement_that_holds_is_kept_once(heard: tuple[Site, Path, dict[str, Any]]) -> None:
    """The same again is nothing new."""
    site, home, evidence = heard
    assert follows(site, home, evidence)
    assert not follows(site, home, evidence)
    begins = now(site) + LEAD + timedelta(minutes=1)
    assert trusted(home, begins).count(b"BEGIN CERTIFICATE") == 2
    assert trusted(home, begins + OVERLAP + GRACE).count(b"BEGIN CERTIFICATE") == 1


def announced_by(site: Site, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the evidence of an announcement that a thief of the log's keys writes: all there but the pinned authority's word."""
    folder.mkdir()
    thief = Succession(folder, folder / "tls", "Test federation", site.parts.journal, site.parts.log, site.parts.clock)
    Authority.open(folder, folder / "tls", "Test federation", now(site))
    index = thief.announce(LEAD, OVERLAP).log_index
    if changes:
        from convoy_audit.entry import parse_entry

        event: Any = parse_entry(site.parts.log.entries(index, index + 1)[0])
        from dataclasses import replace

        index = site.parts.log.append(encode(replace(event, **changes)))
    return {"index": index}


@pytest.mark.parametrize(
    "how", ["another authority's word", "nobody's word for the pinned one", "not cosigned", "no announcement"]
)
def test_an_announcement_that_does_not_hold_changes_nothing(site: Site, tmp_path: Path, how: str) -> None:
    """A coordinator with a new authority and the log's keys, but without the pinned authority's: refused, and nothing is kept."""
    home = site.joined("Careful Insurer")
    log = site.parts.log
    changes = (
        {}
        if how == "another authority's word"
        else {"old": f"sha256:{site.parts.succession.authorities.present.fingerprint}"}
    )
    index = announced_by(site, tmp_path / "thief", **changes)["index"]
    if how == "no announcement":
        index = 0
    if how == "not cosigned":
        log.checkpoint()
    else:
        cosign(site, home)
    evidence = log.evidence(index)
    assert isinstance(evidence, Evidence)
    expected = NotYet if how == "not cosigned" else CoordinatorUntrusted
    with pytest.raises(expected):
        follows(site, home, evidence.to_json())
    assert not (home / NEXT).exists()
    assert not (home / FACTS).exists()
    for broken in (b"", b"[]", b"{ }", b'{"index": 1}'):
        with pytest.raises(CoordinatorUntrusted):
            follow(home, Settings.load(home), broken, [], now(site))


def test_an_announcement_that_is_over_is_not_followed(heard: tuple[Site, Path, dict[str, Any]]) -> None:
    """A node that slept through it needs a ticket."""
    site, home, evidence = heard
    with pytest.raises(CoordinatorUntrusted, match="over"):
        follows(site, home, evidence, now(site) + LEAD + OVERLAP + timedelta(days=1))


def test_a_crash_while_the_next_one_takes_its_place_is_made_good(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step it dies at, the next look finds a key and its certificate."""
    coming = site.parts.succession.announce(LEAD, OVERLAP)
    site.ahead = LEAD + OVERLAP + timedelta(hours=1)
    cut = 0
    for steps in range(10):
        left = [steps]

        def counted(real: Any, left: list[int] = left) -> Any:
            def step(*given: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError("the process is gone")
                return real(*given, **named)

            return step

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            try:
                assert site.parts.succession.authorities.coming is None
                break
            except OSError:
                cut += 1
    tls = site.parts.settings.tls_folder
    assert cut == 2
    assert site.parts.succession.authorities.present.fingerprint == coming.authority.fingerprint
    assert not (tls / NEXT_FACTS).exists()


def test_times_that_make_no_sense_are_refused(site: Site) -> None:
    """An overlap in which nobody can renew would lock everybody out."""
    for lead, overlap in ((timedelta(days=-1), OVERLAP), (LEAD, timedelta(minutes=1)), (LEAD, timedelta(days=5000))):
        with pytest.raises(Problem, match="INPUT_INVALID"):
            site.parts.succession.announce(lead, overlap)
    assert site.parts.succession.authorities.coming is None
    home = site.folder / "x"
    assert join.join(home, site.ticket("Insurer X")).state == "pending"
    with pytest.raises((ChannelRefused, ChannelUnreachable, Exception)):
        says_hello(site, home)
