"""The parts of the SuperLink launcher, one by one: folder, certificates, bundle, membership, event log."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store
from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node, NodeInfo
from flwr.supercore.fab import Fab
from flwr.supernode.start_client_internal import _verify_fab

from convoy_coordinator.federation.flower.app_bundle import APP_ID, app_bundle
from convoy_coordinator.federation.flower.errors import LinkHomeUnusable
from convoy_coordinator.federation.flower.event_log import JsonLines
from convoy_coordinator.federation.flower.link_home import LinkHome, Ready
from convoy_coordinator.federation.flower.membership import FileMembership, PartyFederations
from convoy_coordinator.federation.flower.pki import write_loopback_certificates

OEM, INSURER = "did:web:oem.example", "did:web:insurer-a.example"


def test_secrets_are_born_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    """A second start keeps the secrets of the first."""
    home = LinkHome(tmp_path)
    home.create_secrets()
    before = home.superexec_secret(), home.control_token()
    home.create_secrets()
    assert (home.superexec_secret(), home.control_token()) == before
    assert len(set(before)) == 2
    for file in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_secret_that_others_could_read_is_refused(tmp_path: Path) -> None:
    """An open file is treated as a lost secret, and the error says what to do."""
    home = LinkHome(tmp_path)
    home.create_secrets()
    (tmp_path / "secrets" / "control.token").chmod(0o644)
    with pytest.raises(LinkHomeUnusable, match="can be read by others") as refusal:
        home.control_token()
    assert "Delete control.token" in refusal.value.fix


def test_the_addresses_are_known_only_while_a_link_is_ready(tmp_path: Path) -> None:
    """What is written is read back; a folder without a running link raises."""
    home = LinkHome(tmp_path)
    with pytest.raises(LinkHomeUnusable):
        home.read_ready()
    ready = Ready(1, "127.0.0.1:1", "127.0.0.1:2", "ab")
    home.write_ready(ready)
    assert home.read_ready() == ready
    home.ready_file.write_text('{"pid": 1}')
    with pytest.raises(LinkHomeUnusable):
        home.read_ready()


def test_the_loopback_certificate_is_valid_for_its_hosts_and_no_other(tmp_path: Path) -> None:
    """The chain verifies by the rules of the web, so that any TLS client accepts it."""
    home = LinkHome(tmp_path)
    write_loopback_certificates(home)
    authority = x509.load_pem_x509_certificate(home.ca_file.read_bytes())
    server = x509.load_pem_x509_certificate(home.certificate_file.read_bytes())
    policy = PolicyBuilder().store(Store([authority]))
    assert policy.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("elsewhere.example")).verify(server, [])
    assert stat.S_IMODE(home.key_file.stat().st_mode) == 0o600


def test_certificates_are_never_overwritten(tmp_path: Path) -> None:
    """Making them twice raises: partners have pinned the first."""
    home = LinkHome(tmp_path)
    write_loopback_certificates(home)
    with pytest.raises(FileExistsError):
        write_loopback_certificates(home)


def test_the_bundle_is_always_the_same_bytes() -> None:
    """Contracts and allow-lists name this hash; it changes only with a new version of the bundle."""
    assert app_bundle().sha256 == app_bundle().sha256
    assert app_bundle().sha256 == ("7409f642981dd57eebf1061b31455fa09e054fa1c25218b12251c4f8fd05950c")


def test_flower_accepts_the_bundle_under_its_name() -> None:
    """Flower's own reader finds the id that runs are started with."""
    identifier, _ = get_metadata_from_config(get_fab_config(app_bundle().content))
    assert f"@{identifier}" == APP_ID


def test_a_stock_supernode_trusts_the_bundle_only_under_the_right_key() -> None:
    """Flower's own check accepts our signature and refuses that of another key."""
    mine, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    bundle = app_bundle().signed("release", mine, at=1_790_000_000)
    fab = Fab(bundle.sha256, bundle.content, bundle.verifications)
    for key, expected in ((mine, True), (other, False)):
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        assert _verify_fab(fab, {"release": public}) is expected


class Nodes:
    """The only question that the federation manager asks of Flower's state: the names of nodes."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names

    def get_node_info(self, *, node_ids: list[int]) -> list[NodeInfo]:
        return [NodeInfo(node_id=n, name=self._names[n]) for n in node_ids if n in self._names]


def federations(home: LinkHome) -> PartyFederations:
    manager = PartyFederations(FileMembership(home.membership_file))
    manager.linkstate = Nodes({7: OEM, 8: INSURER})
    return manager


def test_a_withdrawn_party_is_out_at_the_next_question(tmp_path: Path) -> None:
    """Membership is read again whenever its file changes; the server's own node always stays."""
    home, manager = LinkHome(tmp_path), federations(LinkHome(tmp_path))
    home.write_membership({"@none/risk": [OEM, INSURER]})
    assert manager.filter_nodes({1, 7, 8, 9}, "@none/risk") == {1, 7, 8}
    home.write_membership({"@none/risk": [OEM]})
    assert manager.filter_nodes({1, 7, 8}, "@none/risk") == {1, 7}
    assert not manager.has_node(8, "@none/risk")
    home.write_membership({})
    assert not manager.exists("@none/risk")
    assert manager.filter_nodes({1, 7}, "@none/risk") == {1}


@pytest.mark.parametrize("content", ["", "[]", '{"f": "all"}', '{"f": [1]}', None])
def test_without_a_readable_membership_nobody_takes_part(tmp_path: Path, content: str | None) -> None:
    """A missing or malformed file closes the federation instead of opening it."""
    home = LinkHome(tmp_path)
    if content is not None:
        home.membership_file.write_text(content)
    manager = federations(home)
    assert not manager.exists("f")
    assert manager.filter_nodes({1, 7}, "f") == {1}


def test_a_membership_that_becomes_unreadable_closes_what_was_open(tmp_path: Path) -> None:
    """The last good answer is not kept."""
    home = LinkHome(tmp_path)
    home.write_membership({"f": [OEM]})
    manager = federations(home)
    assert manager.has_node(7, "f")
    home.membership_file.write_text("{")
    os.utime(home.membership_file, (1, 1))
    assert not manager.has_node(7, "f")


def logged(home: LinkHome) -> list[dict[str, object]]:
    return [json.loads(line) for line in home.events_file.read_text().splitlines()]


def test_a_stored_message_is_written_down_before_it_is_stored(tmp_path: Path) -> None:
    """The line names the node, the run and the content hash, and never the content."""
    home = LinkHome(tmp_path)
    log = JsonLines(home.events_file)
    about = Metadata(message_id="ab", src_node_id=7, dst_node_id=1, message_type="query.hello")
    request = PushMessagesRequest(node=Node(node_id=7), messages_list=[Message(metadata=about)])
    caller = SimpleNamespace(client=SimpleNamespace(host="10.0.0.7"))
    log.write_log(log.compose_log_before_event(request, caller, None, "/v1/fleet/push-messages"))
    (line,) = logged(home)
    assert (line["action"], line["status"], line["node"], line["ip"]) == (
        "fleet/push-messages",
        "asked",
        "7",
        "10.0.0.7",
    )
    assert line["messages"] == [
        {
            "id": "ab",
            "type": "query.hello",
            "from": "7",
            "to": "1",
            "group": "",
            "run": 0,
            "error": False,
        }
    ]


def test_an_empty_poll_leaves_no_line_and_a_failed_one_does(tmp_path: Path) -> None:
    """The log holds what happened, not that nothing did."""
    home = LinkHome(tmp_path)
    log = JsonLines(home.events_file)
    request, path = PullMessagesRequest(node=Node(node_id=7)), "/v1/fleet/pull-messages"
    log.write_log(log.compose_log_before_event(request, None, None, path))
    log.write_log(log.compose_log_after_event(request, None, None, path, PullMessagesResponse()))
    assert logged(home) == []
    log.write_log(log.compose_log_after_event(request, None, None, path, ValueError("row 4711")))
    assert [line["status"] for line in logged(home)] == ["failed:ValueError"]
    assert "4711" not in home.events_file.read_text()
