"""What an error of a node says: the fix in both languages is that of its code, wherever the code was given."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import convoy_node
from convoy_contracts.problems import PROBLEMS
from convoy_contracts.problems.telling import told
from convoy_node import errors
from convoy_node.api_problems import Answers
from convoy_node.errors import ConsentRefused, HomeRefused, NodeError

SOURCE = Path(convoy_node.__file__).parent


def overridden() -> Iterator[tuple[type[NodeError], str]]:
    """Yield class and code of every call in the package that gives an error class a code of its own."""
    for path in sorted(SOURCE.rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            kind = getattr(errors, call.func.id, None) if isinstance(call.func, ast.Name) else None
            for word in call.keywords:
                if word.arg == "code" and isinstance(word.value, ast.Constant) and isinstance(kind, type):
                    yield kind, str(word.value.value)


RAISED = sorted(set(overridden()), key=lambda one: (one[0].__name__, one[1]))


def every_class() -> Iterator[type[NodeError]]:
    """Yield every error class of the package."""
    for module in pkgutil.walk_packages(convoy_node.__path__, "convoy_node."):
        if not module.name.endswith("client_app"):
            importlib.import_module(module.name)
    waiting = [NodeError]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


def test_the_package_overrides_codes() -> None:
    """The walk over the source finds what the tester found."""
    assert {(ConsentRefused, "REASK_BLOCKED"), (HomeRefused, "FILE_EXISTS"), (NodeError, "PORT_TAKEN")} <= set(RAISED)


@pytest.mark.parametrize(("kind", "code"), RAISED)
def test_a_code_given_at_the_raise_brings_its_own_fix_in_both_languages(kind: type[NodeError], code: str) -> None:
    """Never that of the class, on the command line, in the API and in doctor."""
    known = PROBLEMS[code]
    error = kind("it happened.", code=code)
    assert (error.fix, error.fix_zh) == (known.fix, known.fix_zh)
    assert told(kind("it happened.", fix="Do this.", code=code)).splitlines()[1].endswith(known.fix_zh)


def test_every_class_tells_a_fix_of_its_own_code() -> None:
    """A class that inherits its sentences from a class of another code tells the catalogue's instead."""
    for kind in every_class():
        made = NodeError.__new__(kind)
        NodeError.__init__(made, "it happened.")
        if "fix_zh" not in vars(kind):
            assert made.fix_zh == PROBLEMS[kind.code].fix_zh, kind
        else:
            assert "code" in vars(kind), kind
            assert made.fix_zh == kind.fix_zh, kind


def test_a_fix_given_at_the_raise_stands_in_both_languages() -> None:
    """What the raise knows better than the catalogue is what is told."""
    error = HomeRefused("it is there.", code="FILE_EXISTS", fix="Do this.", fix_zh="这样做。")
    assert (error.fix, error.fix_zh) == ("Do this.", "这样做。")
    assert "这样做。" in told(error)


def test_the_api_tells_the_fix_of_the_code(tmp_path: Path) -> None:
    """``fixZh`` of a problem document is that of its ``code``."""
    error = ConsentRefused("nobody of this id.", code="PERSON_UNKNOWN", fix="Check it.")
    body = bytes(Answers(tmp_path)._refused(None, error).body)  # type: ignore[arg-type]
    assert PROBLEMS["PERSON_UNKNOWN"].fix_zh.encode() in body
    assert ConsentRefused.fix_zh.encode() not in body


def test_an_error_without_a_fix_is_told_with_that_of_its_code() -> None:
    """A command never says less in English than in Chinese."""
    error = NodeError("it happened.", code="EPOCH_UNKNOWN")
    error.fix = ""
    assert PROBLEMS["EPOCH_UNKNOWN"].fix in told(error)
