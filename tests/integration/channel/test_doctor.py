"""``convoy-node doctor`` on the way to the coordinator: each thing that goes wrong in a partner's network, and its fix."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from channel_site import Site
from tap import tapped
from tls_stranger import stranger_at
from typer.testing import CliRunner

from convoy_demo.ports import free_ports
from convoy_node import findings
from convoy_node.channel_home import TLS, Connection
from convoy_node.cli import app
from convoy_node.doctor import Check, examine

LINE = ("versions", "proxy", "reachability", "TLS", "clock", "coordinator")


def codes(checks: tuple[Check, ...]) -> dict[str, list[str]]:
    """Return the codes found, by check, where anything was."""
    return {check.name: [finding.code for finding in check.findings] for check in checks if check.findings}


def changed(home: Path, **changes: object) -> None:
    """Change what the node keeps about its connection."""
    path = home / "channel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


@contextmanager
def answering(said: bytes) -> Iterator[int]:
    """Listen on a port and give every connection one answer."""
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(said)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def test_a_joined_node_is_well_and_every_check_of_the_line_has_run(site: Site) -> None:
    """Versions, proxy, reachability, TLS, clock and the coordinator's word."""
    checks = examine(site.joined("Healthy Insurer"), now())
    assert [check.name for check in checks if check.name in LINE] == list(LINE)
    assert {name: found for name, found in codes(checks).items() if name in LINE} == {}


def test_a_node_that_waits_for_its_approval_is_told_so(site: Site) -> None:
    """No certificate yet is a finding with a fix, and no other check is blamed for it."""
    assert codes(examine(site.asked("Waiting Insurer"), now())) == {"TLS": ["CERTIFICATE_MISSING"]}


def test_a_coordinator_that_does_not_answer_is_named_with_address_and_reason(site: Site) -> None:
    """Only the address that fails; what stands on it is left out."""
    home = site.joined("Cut Insurer")
    (gone,) = free_ports(1)
    changed(home, channel=f"localhost:{gone}")
    checks = examine(home, now())
    assert codes(checks) == {"reachability": ["UNREACHABLE"]}
    (finding,) = next(check for check in checks if check.name == "reachability").findings
    assert f"localhost:{gone}" in finding.cause
    assert "firewall" in finding.fix
    assert "防火墙" in finding.fix_zh


@pytest.mark.parametrize(
    ("answer", "code"),
    [(None, "PROXY_UNREACHABLE"), (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "PROXY_REFUSES")],
)
def test_a_proxy_that_fails_is_told_from_a_coordinator_that_fails(site: Site, answer: bytes | None, code: str) -> None:
    """Gone, or there and unwilling; the answer's first line is the reason."""
    home = site.joined("Proxied Insurer")
    with answering(answer or b"") as port:
        if answer is None:
            (port,) = free_ports(1)
        changed(home, proxy=f"http://127.0.0.1:{port}")
        found = codes(examine(home, now()))
    assert set(found) == {"proxy"}
    assert set(found["proxy"]) == {code}


def test_a_proxy_address_that_is_none_is_said(site: Site) -> None:
    """A password in it is not repeated."""
    home = site.joined("Mistyped Insurer")
    changed(home, proxy="socks5://user:secret@proxy")
    checks = examine(home, now())
    assert set(codes(checks)["proxy"]) == {"PROXY_MALFORMED"}
    assert "secret" not in str(checks)


def test_a_proxy_that_asks_for_a_password_is_given_it_and_nobody_else(site: Site) -> None:
    """Name and password of the proxy's URL, percent-decoded, as Basic; the finding repeats neither."""
    home = site.joined("Trusted Insurer")
    with tapped(0, is_proxy=True, login="user:se:cret") as proxy:
        changed(home, proxy=f"http://user:se%3Acret@127.0.0.1:{proxy.port}")
        assert codes(examine(home, now())) == {}
        changed(home, proxy=f"http://user:wrong@127.0.0.1:{proxy.port}")
        checks = examine(home, now())
    assert set(codes(checks)["proxy"]) == {"PROXY_REFUSES"}
    assert "wrong" not in str(checks)


def test_graded_fields_are_looked_for_in_the_data_before_any_contract(site: Site) -> None:
    """Each missing column by name, the person's among them; reading needs no contract."""
    home = site.joined("Early Bird Insurer")
    (home / "data").mkdir()
    (home / "data" / "data.csv").write_text("customer,claims\n1,0\n")
    settings = home / "node.toml"
    text = settings.read_text().replace("data.parquet", "data.csv")
    settings.write_text(text.replace("[asset.fields]\n", '[asset.fields]\nclaims = "L2"\nregion = "L2"\n'))
    (check,) = [check for check in examine(home, now()) if check.name == "data"]
    assert [finding.code for finding in check.findings] == ["FIELD_NOT_IN_DATA"] * 2
    assert ["person_id" in check.faults[0], "region" in check.faults[1]] == [True, True]


def test_tls_inspection_in_between_is_found(site: Site, tmp_path: Path) -> None:
    """Somebody answers with a certificate of another CA: not this coordinator, whoever it is."""
    home = site.joined("Inspected Insurer")
    with stranger_at(tmp_path) as port:
        changed(home, channel=f"localhost:{port}")
        checks = examine(home, now())
    assert "TLS_INTERCEPTED" in codes(checks)["TLS"]
    assert codes(checks)["coordinator"] == ["COORDINATOR_UNTRUSTED"]


@pytest.mark.parametrize(("days", "code"), [(80, "CERTIFICATE_OLD"), (91, "CERTIFICATE_OVER")])
def test_a_certificate_near_or_past_its_end_is_found(site: Site, days: int, code: str) -> None:
    """Ninety days of life; after two thirds the node renews, so an old one means that it was not up."""
    home = site.joined("Sleepy Insurer")
    site.ahead = timedelta(days=days)
    found = codes(examine(home, now() + timedelta(days=days)))
    assert found["TLS"] == [code]
    if days > 90:
        assert found["coordinator"] == ["CERTIFICATE_EXPIRED"]


@pytest.mark.parametrize(("seconds", "way"), [(90, "ahead of"), (-90, "behind")])
def test_a_wrong_clock_is_found_by_comparing_with_the_coordinator(site: Site, seconds: int, way: str) -> None:
    """More than half a minute, either way."""
    home = site.joined("Early Insurer")
    checks = examine(home, now() + timedelta(seconds=seconds))
    assert codes(checks) == {"clock": ["CLOCK_WRONG"]}
    assert way in next(check for check in checks if check.name == "clock").faults[0]
    assert codes(examine(home, now() + timedelta(seconds=seconds / 9))) == {}


def test_what_the_coordinator_refuses_stands_with_its_own_fix(site: Site) -> None:
    """A node that was shut out, and one whose node.toml claims another role."""
    home, other = site.joined("Shut Insurer"), site.joined("Ambitious Insurer")
    site.parts.access.revoke(site.party(home), "administrative")
    assert codes(examine(home, now()))["coordinator"] == ["PARTY_REVOKED"]
    settings = other / "node.toml"
    settings.write_text(settings.read_text().replace('role = "insurer"', 'role = "oem"'))
    assert "ROLE_NOT_ENROLLED" in codes(examine(other, now()))["coordinator"]


def test_disk_randomness_and_versions_are_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a machine that has just booted, a package of another release."""
    home = site.joined("Poor Insurer")
    monkeypatch.setattr("convoy_node.doctor.LEAST_FREE_BYTES", 1 << 62)

    def not_ready(size: int, flags: int = 0) -> bytes:
        raise BlockingIOError

    monkeypatch.setattr("convoy_node.doctor.os.getrandom", not_ready)
    monkeypatch.setattr("convoy_node.doctor_line.VERSIONS", {"grpcio": ((9, 0), (9, 1))})
    assert codes(examine(home, now())) == {
        "disk and randomness": ["DISK_FULL", "RANDOMNESS_NOT_READY"],
        "versions": ["PACKAGE_WRONG"],
    }


def test_the_command_prints_each_finding_with_its_fix_in_both_languages(site: Site) -> None:
    """Exit code 1, the fix beside the fault; --json carries both languages."""
    home = site.asked("Shown Insurer")
    for language, fix in (("en", "convoy-node up fetches it"), ("zh", "convoy-node up 会取回证书")):
        shown = CliRunner().invoke(app, ["doctor", "--home", str(home), "--language", language])
        assert shown.exit_code == 1
        assert fix in shown.output
    told = json.loads(CliRunner().invoke(app, ["doctor", "--home", str(home), "--json"]).output)
    (finding,) = [finding for check in told["checks"] for finding in check["findings"]]
    assert finding["code"] == "CERTIFICATE_MISSING"
    assert finding["fix_zh"]
    (home / TLS).write_bytes(b"")
    assert Connection.load(home).enrolment


def test_every_finding_has_a_fix_in_both_languages() -> None:
    """Nothing is said without what to do about it, and no placeholder is in one language only."""
    import string

    for code, (cause, fix, cause_zh, fix_zh) in findings.CATALOGUE.items():
        assert code == "REASON" or all((cause, fix, cause_zh, fix_zh)), code

        def names(text: str) -> set[str]:
            return {name.removesuffix("_zh") for _, name, _, _ in string.Formatter().parse(text) if name}

        assert names(cause) | names(fix) == names(cause_zh) | names(fix_zh), code
