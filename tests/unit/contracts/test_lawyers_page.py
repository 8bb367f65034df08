"""The page for partners' lawyers: complete in both languages, and never behind the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy_contracts.cli import main
from convoy_contracts.decide import REASONS, Decision
from convoy_contracts.decide.clauses import CLAUSES, GATES, table
from convoy_contracts.decide.explain import explain

PAGE = (Path(__file__).resolve().parents[3] / "docs/contracts/README.md").read_text(encoding="utf-8")


def test_every_code_has_a_clause_and_a_gate() -> None:
    """Nothing is left out, nothing is made up."""
    assert list(CLAUSES) == list(REASONS)
    numbers = [number for first, last, _, _ in GATES for number in range(first, last + 1)]
    assert numbers == list(range(1, 58))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_holds_the_whole_table(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of the page is the one that ``convoy-contracts reasons`` prints."""
    assert main(["reasons", "--lang", language]) == 0
    assert table(language) == capsys.readouterr().out  # type: ignore[arg-type]
    assert table(language) in PAGE  # type: ignore[arg-type]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_explanation_names_every_gate_with_its_clause(language: str) -> None:
    """57 lines, the refused ones with what to do."""
    text = explain(Decision(False, ("COHORT_TOO_SMALL",), ("note:x",)), language)  # type: ignore[arg-type]
    assert all(f"{code}:" in text for code in REASONS)
    assert "cohort.minSubjects" in text
    assert ("fix:" if language == "en" else "处理") in text
    assert "note:x" in text


def test_what_was_not_reached_is_not_called_passed() -> None:
    """A decision that stopped says so."""
    text = explain(Decision(False, ("DOCUMENT_MALFORMED",), ()), "en")
    assert text.count("not reached") == 54
