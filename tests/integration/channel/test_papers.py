"""Contracts and releases over the partner channel, with the commands that a partner types."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from channel_site import Site, until
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from convoy_audit.entry import encode, parse_entry
from convoy_audit.events import DutyStated, RunAuthorised
from convoy_audit.statement import Statement
from convoy_contracts.duties import due_at
from convoy_contracts.events import make_event, sign_event
from convoy_contracts.instants import timestamp
from convoy_contracts.wire import partner_pb2
from convoy_coordinator.releases.service import Bundle
from convoy_coordinator.runs.service import RunRequest
from convoy_coordinator.runs.states import RunState
from convoy_coordinator.testing import CLAIMS, DRIVE, NO_DIGEST, Member, bundle_files, contract_text
from convoy_node import channel_papers, join, setup
from convoy_node.channel import ChannelRefused
from convoy_node.channel_home import POSITION
from convoy_node.cli import app
from convoy_node.duties import is_working_day
from convoy_node.errors import NodeError
from convoy_node.identity import Identity

LARGE = bytes(range(256)) * 40_000  # ten megabytes: more than HTTP/2 keeps under way


def typed(home: Path, *words: str | Path) -> Any:
    """Run a command of the node with ``--json``."""
    done = CliRunner().invoke(app, [*map(str, words), "--home", str(home), "--json"])
    assert done.exit_code == 0, f"{words}: {done.output} {done.exception}"
    return json.loads(done.output)


def partner(site: Site, name: str, role: str, asset: str, field: str) -> Path:
    """Return the folder of a node that is enrolled and grades one field."""
    home = site.folder / name.replace(" ", "-").lower()
    asked = join.join(home, site.ticket(name, role), join.Wishes(asset=asset))
    site.parts.enrolment.approve(asked.fingerprint)
    assert join.ask(home).state == "enrolled"
    settings = home / "node.toml"
    settings.write_text(settings.read_text().replace("[asset.fields]\n", f'[asset.fields]\n"{field}" = "L2"\n'))
    return home


def offer(site: Site, maker: Path, insurer: Path) -> str:
    """Have the coordinator offer a contract that pins both nodes' keys; return its digest."""
    now = datetime.now(UTC).replace(microsecond=0)
    cards = [setup.read_card(home) for home in (maker, insurer)]
    members = tuple(Member(card.id, card.name, card.role) for card in cards)
    parties = [
        {
            "id": card.id,
            "roles": ["convoy:Controller"],
            "region": "CN-SH",
            "pia": {"ref": f"PIA-{card.role}", "validUntil": (now + timedelta(days=900)).isoformat()},
            "maskKey": {"kid": f"{card.id}#mask-1", "x": card.mask_key},
            "witnessKey": card.witness_key,
        }
        for card in cards
    ]
    term = {
        "notBefore": (now - timedelta(days=1)).isoformat(),
        "notAfter": (now + timedelta(days=300)).isoformat(),
    }
    text = contract_text(members, parties=parties, term=term, offerUntil=(now + timedelta(days=9)).isoformat())
    return site.parts.contracts.offer(text).contract.digest


def publish(site: Site, digest: str, requester: str, **contents: bytes) -> str:
    """Take a run to its release, as the ServerApp does, while both nodes are up and cosign; return the run."""
    parts = site.parts
    run = parts.runs.queue(RunRequest(digest, "risk", requester, "convoy:RiskModelTraining", {}))
    parts.runs.claim()
    ground = parts.intake.ground(run.uid)
    until(lambda: parts.log.level_of(ground).word == "witnessed", "both nodes have cosigned contract and request", 60)
    event = RunAuthorised(
        at=datetime.now(UTC), run=run.uid, contract=digest, scope=NO_DIGEST, algorithm=NO_DIGEST, plan=NO_DIGEST,
        round=run.round, requester=requester, purpose=run.purpose, providers=parts.contracts.view(digest).agreed.parties,
        epsilon_micro={DRIVE: 4_000_000, CLAIMS: 4_000_000}, delta_nano={DRIVE: 1000, CLAIMS: 1000},
    )  # fmt: skip
    (index,) = parts.intake.append([encode(event)])
    until(lambda: parts.log.level_of(index).word == "witnessed", "both nodes have cosigned the authorisation", 60)
    for state in (RunState.AUTHORISED, RunState.RUNNING):
        parts.runs.move(run.uid, state)
    facts = {"uid": run.uid, "contractDigest": digest, "requester": requester}
    files = {name: b64decode(content) for name, content in bundle_files(facts, **contents).items()}
    release, _ = parts.releases.publish(Bundle(run.uid, files, None))
    until(lambda: parts.log.level_of(release.log_index).word == "witnessed", "the release is witnessed", 60)
    return run.uid


def test_a_contract_is_read_signed_and_given_and_its_release_fetched_over_the_channel(
    site: Site, tmp_path: Path
) -> None:
    """No other way to the coordinator is used; who is no recipient sees nothing; who is shut out gets no further byte."""
    maker = partner(site, "Paper Maker", "oem", DRIVE, "harsh_brake_100km")
    insurer = partner(site, "Paper Insurer", "insurer", CLAIMS, "claims")
    digest = offer(site, maker, insurer)
    for number, home in enumerate((maker, insurer)):
        (row,) = typed(home, "contract", "list")["contracts"]
        assert (row["digest"], len(row["unsigned"])) == (digest, 2 - number)
        paper = tmp_path / f"{home.name}.json"
        typed(home, "contract", "get", digest, "--to", paper)
        typed(home, "sign", paper)
        left = typed(home, "contract", "send", digest)["unsigned"]
        assert left == typed(home, "contract", "send", digest)["unsigned"], "again changes nothing"
        assert site.party(home) not in left
    assert site.parts.contracts.view(digest).standing.is_active

    for home in (maker, insurer):
        site.up(home)
    run = publish(site, digest, site.party(insurer), card_md=b"# Card\n", model_safetensors=LARGE)
    (row,) = typed(insurer, "release", "list")["releases"]
    target = tmp_path / "release"
    assert typed(insurer, "release", "get", run, "--to", target)["manifestDigest"] == row["manifestDigest"]
    manifest = (target / "manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == row["manifestDigest"]
    assert (target / "model.safetensors").read_bytes() == LARGE
    with pytest.raises(NodeError) as taken:
        channel_papers.fetch(insurer, run, target)
    assert taken.value.code == "FILE_EXISTS"

    assert typed(maker, "release", "list")["releases"] == []
    wanted = partner_pb2.ReleaseFileRequest(run=run, name="model.safetensors")
    with site.line(maker) as line, pytest.raises(ChannelRefused) as refused:
        list(channel_papers._chunks(line, run, "model.safetensors"))
    assert refused.value.code == "NOT_A_RECIPIENT"
    assert (site.party(maker), "NOT_A_RECIPIENT") in site.refusals()

    with site.line(insurer) as line:
        stream = line.partner.ReleaseFile(wanted, timeout=60)
        seen = len(next(stream).content)
        site.parts.access.revoke(site.party(insurer), "administrative")
        with pytest.raises(Exception, match="PARTY_REVOKED"):
            seen += sum(len(chunk.content) for chunk in stream)
        assert seen < len(LARGE), "an open transfer ends as well"


def test_a_contract_that_is_terminated_raises_the_deletion_at_every_party_once(site: Site, tmp_path: Path) -> None:
    """One party ends it before its term; the others hear of it, also after a restart; the duty is stated to the log."""
    maker = partner(site, "Ending Maker", "oem", DRIVE, "harsh_brake_100km")
    insurer = partner(site, "Staying Insurer", "insurer", CLAIMS, "claims")
    digest = offer(site, maker, insurer)
    for home in (maker, insurer):
        typed(home, "contract", "get", digest, "--to", tmp_path / f"{home.name}.json")
        typed(home, "sign", tmp_path / f"{home.name}.json")
        typed(home, "contract", "send", digest)
    contract = site.parts.contracts.view(digest).agreed
    node, thread, told = site.up(insurer)
    assert "delete-at-end" not in {duty["kind"] for duty in typed(insurer, "duties")["duties"]}

    ender = Identity.load(maker / "keys", site.party(maker))
    chain, at = site.parts.changes.chain(contract.uid), datetime.now(UTC)
    event = make_event(
        uid=contract.uid, seq=chain.next_seq, prev=chain.head, kind="terminate", by=ender.party, at=timestamp(at)
    )
    key = Ed25519PrivateKey.from_private_bytes(ender.identity_seed)
    proof = {"party": ender.party, "kid": ender.kid} | sign_event(
        event, party=ender.party, kid=ender.kid, private_key=key
    )
    site.parts.changes.post(contract.uid, event.value, [proof], chain.head)

    until(lambda: any("was terminated" in line for line in told), f"the insurer hears of it: {told}")
    (due,) = [duty for duty in typed(insurer, "duties")["duties"] if duty["kind"] == "delete-at-end"]
    assert due["contract"] == contract.uid
    assert due["blocking"]
    assert datetime.fromisoformat(due["due"]) == due_at("delete-at-end", at, is_working_day)
    node.stop()
    thread.join(20)
    (insurer / POSITION).write_text("0")  # everything is heard again
    for home in (insurer, maker):
        _, _, again = site.up(home)
        until(lambda told=again: any("was terminated" in line for line in told), f"{home.name} hears of it: {again}")
    until(
        lambda: "delete-at-end" in {duty["kind"] for duty in typed(maker, "duties")["duties"]}, "the maker owes it too"
    )
    assert [d["id"] for d in typed(insurer, "duties")["duties"] if d["kind"] == "delete-at-end"] == [due["id"]]

    def stated() -> list[str]:
        entries = site.parts.log.entries(0, site.parts.log.size())
        known = [found.event for found in map(parse_entry, entries) if isinstance(found, Statement)]
        return [one.party for one in known if isinstance(one, DutyStated) and one.kind == "delete-at-end"]

    until(lambda: len(stated()) >= 2, "both have stated it")
    assert sorted(stated()) == sorted([site.party(maker), site.party(insurer)])


def test_what_the_coordinator_sends_is_checked_and_nothing_is_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another text under a known digest, and a release that lists a path or another digest."""
    home = site.joined("Doubting Insurer")
    with pytest.raises(NodeError) as unknown:
        channel_papers.text_of(home, NO_DIGEST)
    assert unknown.value.code == "CONTRACT_UNKNOWN"
    with pytest.raises(NodeError) as unsigned:
        channel_papers.send_signature(home, NO_DIGEST)
    assert unsigned.value.code == "CONTRACT_UNKNOWN"
    with pytest.raises(NodeError) as none:
        channel_papers.fetch(home, "run-1", tmp_path / "none")
    assert none.value.code == "RELEASE_UNKNOWN"

    offered = channel_papers.Offered(NO_DIGEST, "{}", "offered", ())
    monkeypatch.setattr(channel_papers, "offered", lambda _: (offered,))
    with pytest.raises(NodeError) as swapped:
        channel_papers.text_of(home, NO_DIGEST)
    assert swapped.value.code == "CONTRACT_DIGEST_MISMATCH"
    manifest = ("manifest.json", NO_DIGEST, 9)
    for files in ((manifest, ("../evil", NO_DIGEST, 1)), (("card.md", NO_DIGEST, 1),), (manifest,)):
        listed = channel_papers.Released("run-1", NO_DIGEST, 1, files)
        monkeypatch.setattr(channel_papers, "released", lambda _, listed=listed: (listed,))
        monkeypatch.setattr(channel_papers, "_chunks", lambda *_: iter([b"not it"]))
        with pytest.raises(NodeError) as altered:
            channel_papers.fetch(home, "run-1", tmp_path / "bad")
        assert altered.value.code == "BUNDLE_ALTERED"
    assert not list(tmp_path.glob("*bad*")), "nothing is kept, not even beside"
