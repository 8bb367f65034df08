"""The catalogue of problems as a library and as a command."""

from __future__ import annotations

import pytest

from convoy_contracts.cli import EXIT_FAULT, EXIT_OK, main
from convoy_contracts.decide import REASONS
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.problems import ACTS, AREAS, GRPC, PROBLEMS, Problem, find, listed
from convoy_contracts.problems.telling import told


def test_every_problem_belongs_to_an_area_and_has_somebody_who_acts() -> None:
    """And a status that gRPC knows, where it has one."""
    for problem in PROBLEMS.values():
        assert problem.area in AREAS
        assert problem.acts in ACTS
        assert problem.status is None or problem.status in GRPC


def test_decisions_say_what_the_reasons_say() -> None:
    """One sentence for title and fix, wherever it is read."""
    for code, reason in REASONS.items():
        assert PROBLEMS[code].title == f"{reason.title_en}."
        assert PROBLEMS[code].fix_zh == f"{reason.fix_zh}。"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_command_prints_a_page(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Offline, however the code is written."""
    assert main(["problem", "ticket-used", "--language", language]) == EXIT_OK
    text = capsys.readouterr().out
    assert text.startswith("TICKET_USED\n")
    assert ("Cause" if language == "en" else "原因") in text
    assert "HTTP 409, gRPC FAILED_PRECONDITION" in text


def test_the_command_lists_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each."""
    assert main(["problem", "--list", "--language", "zh"]) == EXIT_OK
    assert len(capsys.readouterr().out.splitlines()) == len(PROBLEMS)


@pytest.mark.parametrize("given", [["problem"], ["problem", "BUDGET"], ["problem", "x" * 300]])
def test_an_unknown_code_names_its_neighbours(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input is refused as everywhere."""
    assert main(given) == EXIT_FAULT
    assert "ARGUMENT_REFUSED" in capsys.readouterr().err


def test_a_neighbour_is_offered() -> None:
    """A part of a code finds codes that hold it."""
    with pytest.raises(ArgumentRefused, match="BUDGET_EXHAUSTED"):
        find("BUDGET")


def test_a_code_stands_once() -> None:
    """Two problems of one code are a fault of the catalogue."""
    one = Problem("A", "node", "node", None, "t", "t", "c", "c", "f", "f")
    with pytest.raises(ValueError, match="twice"):
        listed(one, one)


def test_a_refusal_of_a_command_is_told_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    """Code, cause, fix, the same in Chinese, and where to read more."""
    assert main(["problem"]) == EXIT_FAULT
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ARGUMENT_REFUSED: no code is named"
    assert lines[1].startswith("Fix: convoy-contracts problem")
    assert PROBLEMS["ARGUMENT_REFUSED"].fix_zh in lines[2]
    assert lines[3] == "More: convoy-contracts problem ARGUMENT_REFUSED"


def test_an_error_without_a_page_is_told_as_it_is() -> None:
    """Nothing is made up."""
    assert told(ValueError("no more")) == "no more"
