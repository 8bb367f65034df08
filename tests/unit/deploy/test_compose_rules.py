"""The compose file keeps the specification and our rules, and each rule is one that bites."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "deploy"))

import compose_file
import compose_rules
import yaml

ROOT = Path(__file__).resolve().parents[3]
Compose = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> Compose:
    """The file as Compose sees it without any variable set."""
    return compose_file.filled(compose_file.read(ROOT / "docker-compose.yml"), {})  # type: ignore[no-any-return]


def test_the_file_keeps_schema_and_rules(compose: Compose) -> None:
    """No fault, with every service and profile that operations need."""
    assert compose_rules.findings(compose, ROOT) == []
    assert {"demo", "coordinator", "superlink", "server-app", "postgres", "node", "auditor"} <= set(compose["services"])
    profiles = {profile for service in compose["services"].values() for profile in service["profiles"]}
    assert {"demo", "coordinator", "node", "observability"} <= profiles


def _drop(service: str, member: str) -> Callable[[Compose], None]:
    return lambda compose: compose["services"][service].pop(member)


def _set(service: str, member: str, value: Any) -> Callable[[Compose], None]:
    return lambda compose: compose["services"][service].__setitem__(member, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop("node", "user"), "node: runs as root"),
        (_set("node", "user", "0:0"), "node: runs as root"),
        (_set("coordinator", "read_only", False), "coordinator: the file system is not read-only"),
        (_set("node", "cap_drop", []), "node: capabilities are not dropped"),
        (_set("node", "cap_add", ["NET_ADMIN"]), "node: capabilities are added"),
        (_set("superlink", "security_opt", []), "superlink: no-new-privileges is not set"),
        (_set("node", "image", "convoy/node:latest"), "node: image 'convoy/node:latest' is not pinned"),
        (_drop("server-app", "healthcheck"), "server-app: no health check"),
        (_set("coordinator", "environment", {"DATABASE_PASSWORD": "hunter2"}), "coordinator: environment: DATABASE_PASSWORD"),
        (_set("node", "depends_on", {"postgres": {"condition": "service_healthy"}}), "node: depends on postgres, which is in none"),
        (_set("node", "secrets", ["nothing"]), "node: secrets: nothing is not defined"),
        (_set("node", "networks", []), "node: is in the default network"),
        (_set("coordinator", "networks", ["inside"]), "coordinator: publishes ports, but is only in internal networks"),
        (_set("superlink", "network_mode", "host"), "superlink: shares the host's namespaces"),
        (_set("node", "volumes", ["other-state:/state"]), "node: volumes: other-state is not defined"),
        (_set("node", "profiles", ["production"]), "node: profiles ['production'] are none of ours"),
        (_set("node", "comand", ["x"]), "schema: services/node"),
        (lambda c: c["secrets"].__setitem__("ticket", {"environment": "TICKET"}), "secret ticket: comes from no file"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_rule_is_told_which(
    compose: Compose, change: Callable[[Compose], None], said: str
) -> None:
    """One change, and the finding names the service and the rule."""
    broken = copy.deepcopy(compose)
    change(broken)
    found = compose_rules.findings(broken, ROOT)
    assert any(fault.startswith(said) for fault in found), found


def test_variables_are_filled_as_compose_does() -> None:
    """Default, must-be-set, dollar."""
    filled = compose_file.filled
    assert filled("${A:-x}/${B-y}$$", {"A": "", "B": ""}) == "x/$"
    assert filled(["${A}"], {"A": "1"}) == ["1"]
    with pytest.raises(compose_file.ComposeFault, match="A must be set: say it"):
        filled("${A:?say it}", {})


def test_each_application_has_a_dockerfile_of_its_own_and_nothing_else_is_sent_to_the_builder() -> None:
    """Coordinator, node, demo and verifier; a secret or a data file never reaches an image."""
    for name in ("coordinator", "node", "demo", "audit"):
        text = (ROOT / name / "Dockerfile").read_text()
        assert text.count("FROM ") == 2, "built in one stage, run in another"
        assert not re.search(r"^(ADD|ARG)\b", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = {
        source
        for name in ("coordinator", "node", "demo", "audit")
        for line in (ROOT / name / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied <= sent


def test_prometheus_scrapes_services_that_exist(compose: Compose) -> None:
    """Its targets are names of this file's services."""
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    targets = {
        target.split(":")[0] for job in scraped for config in job["static_configs"] for target in config["targets"]
    }
    assert targets <= set(compose["services"])
