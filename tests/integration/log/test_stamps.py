"""RFC 3161 time-stamps through the coordinator: asked over HTTP, verified, kept, in every pack, checked offline."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from time_authority import TimeAuthority, listening

from convoy_audit.archive import verify_pack
from convoy_coordinator.app import create_app
from convoy_coordinator.errors import SetupError
from convoy_coordinator.log.stamps import StampJob, stamps
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import Federation, SetClock
from convoy_coordinator.wiring import stamp_authority, wire

ORIGIN = "test.example/log"
NOW = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> TimeAuthority:
    """A time-stamping authority of our own."""
    return TimeAuthority(tmp_path_factory.mktemp("tsa"))


def test_a_witnessed_checkpoint_is_stamped_and_its_stamp_is_in_every_pack(tmp_path: Path, tsa: TimeAuthority) -> None:
    """Not before the quorum; a bad answer keeps nothing; the second request asks nobody; an auditor verifies it offline."""
    home, clock = tmp_path / "home", SetClock(NOW)
    create_home(home, origin=ORIGIN)
    with listening(tsa) as service:
        settings = read_settings(home, tsa_url=service.url, tsa_root_file=tsa.folder / "root.pem")
        with TestClient(create_app(settings, clock=clock), raise_server_exceptions=False) as client:
            federation = Federation(client, home, clock)
            federation.enrol()

            def ask() -> tuple[int, dict[str, object]]:
                answer = client.post("/v1/log/timestamp", headers=federation.operator)
                return answer.status_code, answer.json()

            assert client.post("/v1/log/timestamp").status_code == 401
            status, said = ask()
            assert (status, said["code"]) == (409, "LOG_NOT_WITNESSED")
            federation.witness(*federation.members)
            for service.status, service.spoil in ((500, None), (200, b"nonsense"), (200, b"")):
                status, said = ask()
                assert (status, said["code"]) == (503, "TIMESTAMP_FAILED")
            assert stamps(settings.stamps_folder) == {}
            service.spoil = None
            status, facts = ask()
            assert status == 200, facts
            asked = service.asked
            assert ask() == (200, facts)
            assert service.asked == asked
            pack = tmp_path / "pack.zip"
            pack.write_bytes(client.get("/v1/evidence.zip", headers=federation.operator).content)
    verdict = verify_pack(pack, tsa_roots=[tsa.root])
    assert verdict.is_verified, verdict.faults
    (check,) = [check for check in verdict.checks if check.name == "time-stamp"]
    assert str(facts["at"]) in check.found
    assert f"checkpoint {facts['size']} " in check.found


def test_a_stamp_is_due_once_a_day(tmp_path: Path) -> None:
    """By the age of the newest one."""
    clock = SetClock(NOW)
    job = StampJob(None, tmp_path, None, clock)  # type: ignore[arg-type]
    assert job.is_due()
    (tmp_path / "7.tsr").write_bytes(b"")
    now = clock().timestamp()
    for age_s, due in ((0, False), (86_399, False), (86_400, True)):
        os.utime(tmp_path / "7.tsr", (now - age_s, now - age_s))
        assert job.is_due() is due


def test_without_an_authority_nothing_is_asked_and_an_address_needs_roots(tmp_path: Path) -> None:
    """A refusal that says what to set; no start with answers that nobody could verify."""
    home = tmp_path / "home"
    create_home(home, origin=ORIGIN)
    parts = wire(read_settings(home))
    try:
        with pytest.raises(Exception, match="tsa_url") as raised:
            parts.stamping.once()
        assert raised.value.code == "TIMESTAMP_FAILED"  # type: ignore[attr-defined]
        parts.stamping.start()
        assert parts.stamping._repeating._thread is None
    finally:
        parts.close()
    with pytest.raises(SetupError) as refused:
        stamp_authority(read_settings(home, tsa_url="https://tsa.example/"))
    assert refused.value.code == "SETTINGS_INVALID"
