"""The node's log: where an error came from, never what it said."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convoy_node import journal
from convoy_node.journal import Journal


def lines(folder: Path) -> list[dict[str, object]]:
    """Return the lines of the present file."""
    return [json.loads(line) for line in (folder / "log" / "node.jsonl").read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "log", lambda: datetime(2027, 3, 1, tzinfo=UTC))


def test_a_line_is_one_object_with_its_time(tmp_path: Path, log: Journal) -> None:
    """And the file is the owner's."""
    log.note("decided", run="r1", reasons=["TERM_ENDED"])
    assert lines(tmp_path) == [
        {"at": "2027-03-01T00:00:00.000+00:00", "event": "decided", "run": "r1", "reasons": ["TERM_ENDED"]}
    ]
    assert stat.S_IMODE((tmp_path / "log" / "node.jsonl").stat().st_mode) == 0o600


def test_an_error_is_told_by_kind_and_place_and_not_by_text(tmp_path: Path, log: Journal) -> None:
    """Through its whole chain."""
    try:
        try:
            int("SECRET-ROW-VALUE")
        except ValueError as error:
            raise LookupError("PERSON-4711") from error
    except LookupError as error:
        reference = log.failure("failed", error, action="close")
    (line,) = lines(tmp_path)
    assert line["reference"] == reference
    assert [text.split()[0] for text in line["errors"]] == ["LookupError", "ValueError"]  # type: ignore[attr-defined]
    assert "test_journal.py:" in str(line)
    assert "SECRET" not in str(line)
    assert "4711" not in str(line)


def test_the_file_is_rotated_and_the_oldest_goes(tmp_path: Path, log: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files at most."""
    monkeypatch.setattr(journal, "MAX_BYTES", 400)
    for number in range(60):
        log.note("answered", number=number)
    names = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert names == ["node.1.jsonl", "node.2.jsonl", "node.3.jsonl", "node.jsonl"]
    assert lines(tmp_path)[-1]["number"] == 59


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, log: Journal) -> None:
    """No promise rests on it."""
    (tmp_path / "log" / "node.jsonl").mkdir()
    log.note("answered")
