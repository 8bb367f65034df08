"""Floors that no configuration lowers, commitments that can be forgotten, archives that prove what they hold."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from convoy_audit import events
from convoy_audit.cli import main
from convoy_audit.entry import check_commitment, encode
from convoy_audit.errors import AuditError, EvidenceError, FormatError, ProofError, RetentionError
from convoy_audit.merkle import leaf_hash, root
from convoy_audit.retention import FLOOR_DAYS, CommitmentKeys, Kind, RetentionPlan, sealed_end
from convoy_audit.testing import MemoryLog
from convoy_audit.tile_archive import check_archive, write_archive

DAY = datetime(2024, 2, 29, tzinfo=UTC)
NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize("kind", sorted(FLOOR_DAYS))
def test_no_configuration_goes_under_a_floor(kind: Kind) -> None:
    """One day less is refused, zero and negative as well; more is allowed."""
    for days in (FLOOR_DAYS[kind] - 1, 0, -1):
        with pytest.raises(RetentionError) as raised:
            RetentionPlan(**{f"{kind}_days": days})
        assert kind in raised.value.cause
        assert raised.value.fix_zh
    assert RetentionPlan(**{f"{kind}_days": FLOOR_DAYS[kind] + 1}).days(kind) == FLOOR_DAYS[kind] + 1
    with pytest.raises(FormatError):
        RetentionPlan(**{f"{kind}_days": 1e9})  # type: ignore[arg-type]


def test_the_floors_are_at_least_six_months_and_three_years() -> None:
    """Also across the longest half year and a leap year."""
    assert DAY + timedelta(days=FLOOR_DAYS["log"]) >= datetime(2024, 8, 29, tzinfo=UTC)
    assert datetime(2026, 7, 1, tzinfo=UTC) + timedelta(days=FLOOR_DAYS["log"]) >= datetime(2027, 1, 1, tzinfo=UTC)
    for kind in ("decision", "assessment"):
        assert DAY + timedelta(days=RetentionPlan().days(kind)) >= datetime(2027, 2, 28, tzinfo=UTC)  # type: ignore[arg-type]


def test_nothing_is_erasable_before_its_day() -> None:
    """The refusal names the day."""
    plan = RetentionPlan()
    plan.check_erasable("log", DAY, DAY + timedelta(days=184))
    with pytest.raises(RetentionError, match="2027-03-01"):
        plan.check_erasable("decision", DAY, DAY + timedelta(days=1095))
    for at, now in ((DAY.replace(tzinfo=None), NOW), (DAY, NOW.replace(tzinfo=None))):
        with pytest.raises(FormatError):
            plan.check_erasable("log", at, now)
    with pytest.raises(FormatError):
        plan.check_erasable("other", DAY, NOW)  # type: ignore[arg-type]


def test_only_whole_old_bundles_from_the_start_are_sealed() -> None:
    """A young entry between old ones keeps all that follow."""
    old, young = NOW - timedelta(days=200), NOW - timedelta(days=100)
    assert sealed_end([old] * 700, NOW, RetentionPlan()) == 512
    assert sealed_end([old] * 300 + [young] + [old] * 400, NOW, RetentionPlan()) == 256
    assert sealed_end([old] * 255, NOW, RetentionPlan()) == 0
    assert sealed_end([old] * 700, NOW, RetentionPlan(log_days=201)) == 0


def test_a_commitment_opens_until_its_key_is_erased(tmp_path: Path) -> None:
    """Then nobody can show any more what was committed, and the log's bytes are the same as before."""
    keys = CommitmentKeys(tmp_path / "keys")
    commitment, other = keys.new(b"plate B-1234"), keys.new(b"plate B-1234")
    assert commitment != other
    check_commitment(commitment, keys.open(commitment), b"plate B-1234")
    with pytest.raises(EvidenceError):
        check_commitment(commitment, keys.open(other), b"plate B-1234")
    (tmp_path / "keys" / commitment.removeprefix("sha256:")).stat()
    keys.erase(commitment)
    keys.erase(commitment)
    with pytest.raises(RetentionError):
        CommitmentKeys(tmp_path / "keys").open(commitment)
    check_commitment(other, keys.open(other), b"plate B-1234")
    for wrong in ("../x", "sha256:../../x", "sha256:" + "A" * 64):
        with pytest.raises(FormatError):
            keys.open(wrong)


def test_keys_are_private_and_a_half_erased_key_opens_nothing(tmp_path: Path) -> None:
    """Mode 0600; a crash between overwriting and removing leaves zeroes."""
    keys = CommitmentKeys(tmp_path)
    commitment = keys.new(b"value")
    file = tmp_path / commitment.removeprefix("sha256:")
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(bytes(32))
    with pytest.raises(RetentionError):
        keys.open(commitment)
    file.write_bytes(b"short")
    with pytest.raises(AuditError):
        keys.open(commitment)


def test_erasing_is_an_event_of_the_party() -> None:
    """It names the commitment and the ground, nothing about the person."""
    event = events.CommitmentErased(
        at=NOW, party="did:web:a.example", commitment="sha256:" + "0" * 64, ground="withdrawal"
    )
    assert set(events.to_json(event)) == {"v", "type", "at", "party", "commitment", "ground"}


# Archives -----------------------------------------------------------------------------------------


def publish(log: MemoryLog, folder: Path) -> None:
    for name, content in log.static().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def told(size: int) -> MemoryLog:
    log = MemoryLog("example.com/log")
    log.append(
        *(
            encode(events.QueryOpened(at=DAY + timedelta(seconds=n), run=f"run-{n}", attempt=1, queries=()))
            for n in range(size)
        )
    )
    return log


def test_an_archive_proves_what_it_holds(tmp_path: Path) -> None:
    """Its root is that of the log's tree of this size; the same entries give the same bytes."""
    log = told(700)
    first = write_archive(iter(log.entries), 512, log.origin, tmp_path / "a.zip")
    assert first == write_archive(iter(log.entries), 512, log.origin, tmp_path / "b.zip")
    found = check_archive(tmp_path / "a.zip", log.tree.root(512))
    assert (found.origin, found.end, found.root) == (log.origin, 512, root(map(leaf_hash, log.entries[:512])))
    with pytest.raises(ProofError):
        check_archive(tmp_path / "a.zip", log.tree.root(511))
    with pytest.raises(EvidenceError):
        write_archive(iter(log.entries), 512, log.origin, tmp_path / "a.zip")


@pytest.mark.parametrize(("end", "size"), [(0, 700), (300, 700), (-256, 700), (1024, 700)])
def test_an_archive_has_whole_bundles_only(end: int, size: int, tmp_path: Path) -> None:
    """And as many entries as it says; nothing is left behind under its name."""
    with pytest.raises(FormatError):
        write_archive(iter(told(size).entries), end, "o", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda files: files | {"tile/entries/000": files["tile/entries/000"].replace(b"run-7", b"run-8")},
        lambda files: files | {"more": b"x"},
        lambda files: {n: c for n, c in files.items() if n != "tile/entries/001"},
        lambda files: files | {"archive.json": files["archive.json"].replace(b'"end":512', b'"end":256')},
        lambda files: files | {"SHA256SUMS": b""},
    ],
)
def test_a_changed_archive_is_found(spoil: Callable[[dict[str, bytes]], dict[str, bytes]], tmp_path: Path) -> None:
    """An entry, an unknown file, a missing bundle, its own description, the sums."""
    import zipfile

    from convoy_audit.archive import read_files

    write_archive(iter(told(600).entries), 512, "example.com/log", tmp_path / "a.zip")
    files = spoil(dict(read_files(tmp_path / "a.zip")))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(AuditError):
        check_archive(tmp_path / "b.zip")
    assert main(["archive", "check", str(tmp_path / "b.zip")]) in (1, 2)


def test_the_command_archives_what_is_old_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And compares an archive with the log it came from; under the floor nothing is done."""
    log = told(600)
    publish(log, tmp_path / "site")
    site, target = str(tmp_path / "site"), str(tmp_path / "a.zip")
    assert main(["archive", "make", site, target, "--log-days", "30"]) == 2
    assert "RETENTION_FLOOR" in capsys.readouterr().err
    assert main(["archive", "make", site, target]) == 0
    assert main(["archive", "check", target, "--log", site]) == 0
    other = told(600).rewritten([b"x", *log.entries[1:]])
    publish(other, tmp_path / "other")
    assert main(["archive", "check", target, "--log", str(tmp_path / "other")]) == 1


def test_the_command_commits_checks_and_forgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value comes by standard input; after erasing, and with another value, the answer is 1."""

    def run(act: str, *arguments: str, value: bytes = b"plate B-1234", lang: str = "en") -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(value)))
        code = main(["commitment", act, str(tmp_path / "keys"), *arguments, "--lang", lang])
        return code, capsys.readouterr().out.strip()

    code, commitment = run("new")
    assert (code, commitment[:7], len(commitment)) == (0, "sha256:", 71)
    assert run("check", commitment)[0] == 0
    assert run("check", commitment, value=b"plate B-1235")[0] == 1
    assert run("erase", commitment)[0] == 0
    assert run("erase", commitment)[0] == 0
    assert run("check", commitment) == (1, "FORGOTTEN: the key of this commitment was erased, or never was here")
    assert "已遗忘" in run("check", commitment, lang="zh")[1]
    assert run("check", "nonsense")[0] == 2
