"""Each distribution declares what it imports, so that it installs alone."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("contracts", "audit", "models", "node", "coordinator", "demo")
DISTRIBUTION_OF = {
    "grpc": "grpcio",
    "google": "protobuf",
    "multipart": "python-multipart",
    "grpc_health": "grpcio-health-checking",
    "ibis": "ibis-framework",
    "opentelemetry": "opentelemetry-sdk",
    "private_set_intersection": "openmined-psi",
}
BROUGHT_BY = {
    "starlette": "fastapi",
    "pydantic": "fastapi",
    "click": "typer",
    "httpx": "flwr",
    "google": "flwr",
    "requests": "flwr",
    "numpy": "convoy-models",
    "polars": "pandera",
    "cryptography": "convoy-contracts",
}
"""What a declared dependency always brings along, so that it need not be declared beside it."""


def _imports(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


def _declared(folder: str) -> set[str]:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(d for extra in project.get("optional-dependencies", {}).values() for d in extra),
    ]
    return {re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0].lower() for line in lines}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_distribution_declares_what_it_imports(folder: str) -> None:
    """Every third-party import has its distribution among the dependencies or extras."""
    declared = _declared(folder)
    missing = set()
    for module in _imports(ROOT / folder / f"convoy_{folder}") - {f"convoy_{folder}"}:
        name = DISTRIBUTION_OF.get(module, module.replace("_", "-")).lower()
        if name not in declared and BROUGHT_BY.get(module, "") not in declared:
            missing.add(module)
    assert not missing


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_dependency_has_an_exact_version(folder: str) -> None:
    """constraints.txt pins every direct dependency, and names no address."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {line.split("==")[0].lower() for line in text.splitlines() if "==" in line}
    assert {d for d in _declared(folder) if not d.startswith("convoy-")} <= pinned
    assert "://" not in text
    assert " @ " not in text
