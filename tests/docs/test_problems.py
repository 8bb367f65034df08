"""The catalogue of problems is complete: no code in the source without a page, no page without a code in the source.

A code is a string constant of upper-case words with underscores, or the ``code`` of an error class. ``NOT_PROBLEMS`` lists the
few such strings that are something else.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from convoy_audit.errors import FIXES
from convoy_contracts.decide import REASONS
from convoy_contracts.problems import PROBLEMS

CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
ENVIRONMENT = (
    "CONVOY_",
    "FLWR_",
    "RAY_",
    "OMP_",
    "OPENBLAS_",
    "GRPC_",
    "MKL_",
    "PG",
    "SSL_",
    "XDG_",
    "OTEL_",
    "HTTPS_",
    "HTTP_",
)
NOT_PROBLEMS = {
    "CERTIFICATE_VERIFY_FAILED": "OpenSSL's own word, looked for in an error of grpc",
    "REASON": "the frame in which doctor shows the reasons of an error",
}
ABOUT_CODES = (
    "contracts/convoy_contracts/problems/",
    "contracts/convoy_contracts/decide/clauses.py",
    "decide/reasons.py",
)
"""Modules that say something about codes and raise none of them."""
RAISES = {"Problem", "SetupError", "EventRefused", "LintFault", "found"}
ADD = "add it to a module of contracts/convoy_contracts/problems, then run .venv/bin/python docs/generate.py"


def constants(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield string constants, lists of exported names aside."""
    exported = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
        for part in ast.walk(node.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in exported:
            yield node


def class_codes(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (class name, its code, fix and fix_zh) of every class that sets a code."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        found = {}
        for item in node.body:
            target = (
                item.targets[0]
                if isinstance(item, ast.Assign)
                else item.target
                if isinstance(item, ast.AnnAssign)
                else None
            )
            value = getattr(item, "value", None)
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[target.id] = value.value
        code = found.get("code") or found.get("default_code")
        if code and code.isupper():
            yield node.name, {"code": code} | {k: v for k, v in found.items() if k in ("fix", "fix_zh")}


@pytest.fixture(scope="module")
def trees(generate: ModuleType, root: Path) -> dict[str, ast.AST]:
    """Every module of the programs, parsed, by its path."""
    return {str(path.relative_to(root)): ast.parse(path.read_text(encoding="utf-8")) for path in generate.sources()}


@pytest.fixture(scope="module")
def used(trees: dict[str, ast.AST]) -> dict[str, set[str]]:
    """Where each code stands in the source."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        if any(about in path for about in ABOUT_CODES):
            continue
        for node in constants(tree):
            if CODE.fullmatch(node.value) and not node.value.startswith(ENVIRONMENT) and node.value not in NOT_PROBLEMS:
                found[node.value].add(f"{path}:{node.lineno}")
        for name, item in class_codes(tree):
            found[item["code"]].add(f"{path} {name}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.keyword) or node.arg != "code" or not isinstance(node.value, ast.Constant):
                continue
            if isinstance(node.value.value, str) and node.value.value.isupper():
                found[node.value.value].add(f"{path}:{node.value.lineno}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISES and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.isupper():
                    if first.value in NOT_PROBLEMS:
                        continue
                    found[first.value].add(f"{path}:{first.lineno}")
    return found


def test_every_code_in_the_source_has_a_problem(used: dict[str, set[str]]) -> None:
    """Nothing that a user can see is left unexplained."""
    missing = {code: sorted(places)[:2] for code, places in sorted(used.items()) if code not in PROBLEMS}
    assert missing == {}, ADD


def test_every_problem_is_used_by_somebody(used: dict[str, set[str]]) -> None:
    """The catalogue holds no code that nobody raises."""
    assert sorted(set(PROBLEMS) - set(used)) == [], "remove it from contracts/convoy_contracts/problems"


def test_every_problem_is_told_in_both_languages() -> None:
    """Six sentences each; the Chinese ones are Chinese, the English ones end."""
    for problem in PROBLEMS.values():
        for text in (problem.title, problem.cause, problem.fix):
            assert not re.search(r"[\u4e00-\u9fff]", text), problem.code
            assert text.endswith((".", "?", "…")), (problem.code, text)
        for text in (problem.title_zh, problem.cause_zh, problem.fix_zh):
            assert re.search(r"[\u4e00-\u9fff]", text), (problem.code, text)


def test_what_is_refused_over_http_has_a_status(trees: dict[str, ast.AST]) -> None:
    """``Problem(code)`` of the coordinator is answered over HTTP and gRPC, so each needs a status."""
    asked = {
        str(node.args[0].value)
        for path, tree in trees.items()
        if path.startswith("coordinator/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem" and node.args
        if isinstance(node.args[0], ast.Constant)
    }
    assert asked
    assert sorted(code for code in asked if code in PROBLEMS and PROBLEMS[code].status is None) == []


def test_error_classes_say_the_fix_of_the_catalogue(trees: dict[str, ast.AST]) -> None:
    """A class with a fix of its own repeats the catalogue's sentence, unless several classes, or decisions, share the code."""
    items = [item for tree in trees.values() for _, item in class_codes(tree)]
    alone = [i for i in items if i["code"] not in REASONS and sum(other["code"] == i["code"] for other in items) == 1]
    wrong = {
        item["code"]: (item["fix"], PROBLEMS[item["code"]].fix)
        for item in alone
        if "fix_zh" in item and item["code"] in PROBLEMS
        if (item["fix"], item["fix_zh"]) != (PROBLEMS[item["code"]].fix, PROBLEMS[item["code"]].fix_zh)
    }
    assert wrong == {}


def test_the_audit_library_says_the_fix_of_the_catalogue() -> None:
    """It installs alone, so it has the sentences of its own codes; codes that others use too may say more there."""
    shared = {"SIGNATURE_MISSING", "KEY_REJECTED", "QUORUM_MISSING"}
    wrong = [
        code
        for code, fixes in FIXES.items()
        if code in PROBLEMS and code not in shared and fixes != (PROBLEMS[code].fix, PROBLEMS[code].fix_zh)
    ]
    assert wrong == []


def test_commands_that_a_fix_names_exist(generate: ModuleType) -> None:
    """A fix never sends anybody to a command that is not there."""
    known = generate.command_names()
    groups = {name.rsplit(" ", 1)[0] for name in known}
    programs = {name.split()[0] for name in known}
    wrong = []
    for problem in PROBLEMS.values():
        for text in (problem.fix, problem.fix_zh, problem.cause):
            for program, words in re.findall(r"\b(convoy-[a-z]+)((?: [a-z][a-z-]+)*)", text):
                if program not in programs or words.startswith(" command"):
                    continue  # a package, or "a convoy-contracts command"
                parts = words.split()
                tries = [" ".join([program, *parts[:n]]) for n in (1, 2)] if parts else [program]
                if not any(name in known or name in groups for name in tries):
                    wrong.append((problem.code, f"{program}{words}"))
    assert wrong == []
