"""Joining after something was wrong: checked before anything is made, corrected in place, and never stuck."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from channel_site import Site

from convoy_contracts.wire.ticket import Ticket
from convoy_node import join, setup
from convoy_node.channel import ChannelRefused, is_proxy
from convoy_node.errors import HomeRefused, NodeError
from convoy_node.join import Wishes
from convoy_node.settings import Settings


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a node as it was before it checked its options itself."""
    monkeypatch.setattr(setup, "faults_of", lambda *_: [])


def test_options_that_do_not_fit_are_told_at_once_and_nothing_is_made(site: Site) -> None:
    """Region, asset and proxy, before the coordinator is asked; the corrected call works."""
    home, ticket = site.folder / "mars", site.ticket("Mars Insurer")
    with pytest.raises(NodeError) as refused:
        join.join(home, ticket, Wishes(region="MARS", asset="bad asset", proxy="foo"))
    assert refused.value.code == "INPUT_INVALID"
    assert [reason.partition(":")[0] for reason in refused.value.reasons] == ["--region", "--asset", "--proxy"]
    assert not home.exists()
    assert join.join(home, ticket, Wishes(region="CN-SH")).state == "pending"


@pytest.mark.parametrize(
    ("proxy", "fits"),
    [
        ("http://proxy.example:3128", True), ("http://user:word@10.0.0.1:8080/", True), ("http://[::1]:3128", True),
        ("foo", False), ("proxy:3128", False), ("http://proxy", False), ("https://proxy:1", False), ("http://p:x", False),
        ("http://p:1/path", False), ("http://[::1", False),
    ],
)  # fmt: skip
def test_a_proxy_is_an_address_with_a_port(proxy: str, fits: bool) -> None:
    """gRPC goes through HTTP proxies only."""
    assert is_proxy(proxy) is fits


def test_a_request_that_was_never_taken_is_corrected_by_joining_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that an earlier version left with a wrong region: keys stay, card and node.toml follow."""
    home, ticket = site.folder / "late", site.ticket("Late Insurer")
    with monkeypatch.context() as patched:
        pretend(patched)
        with pytest.raises(ChannelRefused, match="INPUT_INVALID"):
            join.join(home, ticket, Wishes(region="MARS"))
    card = setup.read_card(home)
    with pytest.raises(ChannelRefused, match="INPUT_INVALID"):
        join.ask(home)
    standing = join.join(home, ticket, Wishes(region="CN-GD"))
    assert standing.state == "pending"
    assert setup.read_card(home) == replace(card, region="CN-GD")
    assert Settings.load(home).region == "CN-GD"
    site.parts.enrolment.approve(standing.fingerprint)
    assert join.join(home, ticket).state == "enrolled"
    site.check_log()


def test_a_folder_whose_ticket_ran_out_takes_the_next_one(site: Site) -> None:
    """Without a further option: it was never enrolled, so new keys are made in it."""
    home, text = site.folder / "slow", site.ticket("Slow Insurer", life=timedelta(hours=1))
    party = Ticket.read(text).party
    site.ahead = timedelta(hours=2)
    with pytest.raises(ChannelRefused, match="TICKET_EXPIRED"):
        join.join(home, text)
    standing = join.join(home, site.ticket("Slow Insurer", party=party))
    assert standing.state == "pending"
    site.parts.enrolment.approve(standing.fingerprint)
    assert join.ask(home).state == "enrolled"
    assert site.party(home) == party


def test_a_further_ticket_does_not_replace_a_request_that_waits(site: Site) -> None:
    """Nor does another party's; both say what to do, and the first request stands."""
    home = site.asked("Patient Insurer")
    first = join.ask(home)
    with pytest.raises(HomeRefused, match="still waits") as refused:
        join.join(home, site.ticket("Patient Insurer", party=site.party(home)))
    assert "new folder" in refused.value.fix
    with pytest.raises(HomeRefused, match="the ticket is for"):
        join.join(home, site.ticket("Other Insurer"))
    assert join.ask(home) == first


def test_a_folder_with_other_things_or_without_a_place_is_refused_with_the_way_out(site: Site) -> None:
    """Before the ticket is used."""
    full = site.folder / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    text = site.ticket("Full Insurer")
    for home, cause in ((full, "not empty"), (Path("/proc/x"), "cannot be made")):
        with pytest.raises(HomeRefused, match=cause) as refused:
            join.join(home, text)
        assert refused.value.fix_zh.startswith("请指定")
    assert join.join(site.folder / "free", text).state == "pending"
