"""What a compose file of ours must keep: the specification's schema, and our own rules of hardening.

findings(compose, root) -> list[str]      empty where all is well; every fault at once
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator

SCHEMA: Final = Path(__file__).with_name("compose-spec.json")
PROFILES: Final = {"demo", "coordinator", "node", "auditor", "observability", "setup"}
_PINNED: Final = re.compile(r"^[a-z0-9./_-]+:v?[0-9]+(\.[0-9]+)+[a-z0-9.-]*(@sha256:[0-9a-f]{64})?$")
_SECRET_NAME: Final = re.compile(r"(PASSWORD|TOKEN|SECRET|KEY|URL)$", re.IGNORECASE)
_BASE_IMAGE: Final = re.compile(r"^FROM (\S+)", re.MULTILINE)


def findings(compose: Mapping[str, Any], root: Path) -> list[str]:
    """Return every fault of a compose file.

    Args:
        compose: its content, variables filled in.
        root: the folder of the file, where its Dockerfiles and configurations are.
    """
    found = [
        f"schema: {'/'.join(map(str, error.absolute_path)) or 'file'}: {error.message[:200]}"
        for error in sorted(
            Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).iter_errors(compose), key=str
        )
    ]
    services = compose.get("services", {})
    if not isinstance(services, dict):
        return found
    for name, service in services.items():
        if isinstance(service, dict):
            found += [f"{name}: {fault}" for fault in _service(name, service, compose, root)]
    secrets = compose.get("secrets")
    for name, secret in (secrets if isinstance(secrets, dict) else {}).items():
        if not isinstance(secret, dict) or "file" not in secret:
            found.append(f"secret {name}: comes from no file")
    return found


def _service(name: str, service: Mapping[str, Any], compose: Mapping[str, Any], root: Path) -> Iterator[str]:
    yield from _hardening(service)
    profiles = set(service.get("profiles", ()))
    if not profiles or profiles - PROFILES:
        yield f"profiles {sorted(profiles)} are none of ours"
    image = str(service.get("image", ""))
    if not _PINNED.match(image):
        yield f"image {image!r} is not pinned by a version"
    build = service.get("build")
    if isinstance(build, dict):
        yield from _dockerfile(root / str(build.get("dockerfile", "Dockerfile")), root)
    runs_on = service.get("restart") != "no"
    if runs_on and "healthcheck" not in service:
        yield "no health check"
    for variable, value in _environment(service).items():
        if (
            _SECRET_NAME.search(variable)
            and not str(value).startswith("/run/secrets/")
            and not variable.endswith("_FILE")
        ):
            yield f"environment: {variable} looks like a secret; give it as a file"
    yield from _references(name, service, compose)


def _hardening(service: Mapping[str, Any]) -> Iterator[str]:
    user = str(service.get("user", ""))
    if not re.match(r"^[1-9][0-9]*:[1-9][0-9]*$", user):
        yield 'runs as root or as a user by name: set user: "UID:GID"'
    if service.get("read_only") is not True:
        yield "the file system is not read-only"
    if service.get("cap_drop") != ["ALL"]:
        yield "capabilities are not dropped"
    if service.get("cap_add") or service.get("privileged"):
        yield "capabilities are added"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "no-new-privileges is not set"
    if service.get("network_mode") == "host" or service.get("pid") == "host":
        yield "shares the host's namespaces"


def _references(name: str, service: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[str]:
    services = compose["services"]
    for other in service.get("depends_on", ()):
        if other not in services:
            yield f"depends on {other}, which is no service"
        elif not set(services[other].get("profiles", ())) & set(service.get("profiles", ())):
            yield f"depends on {other}, which is in none of its profiles"
    mode = str(service.get("network_mode", ""))
    if mode.startswith("service:"):
        if mode.removeprefix("service:") not in services:
            yield f"network_mode names {mode}, which is no service"
        if service.get("networks") or service.get("ports"):
            yield "has networks or ports of its own beside network_mode"
    elif not service.get("networks"):
        yield "is in the default network: name its networks"
    networks = compose.get("networks", {})
    if service.get("ports") and all(
        (networks.get(network) or {}).get("internal") for network in service.get("networks", ())
    ):
        yield "publishes ports, but is only in internal networks"
    for kind, known in (("secrets", compose.get("secrets", {})), ("networks", networks)):
        for used in service.get(kind, ()):
            if used not in known:
                yield f"{kind}: {used} is not defined"
    for volume in service.get("volumes", ()):
        source = str(volume).split(":")[0]
        if "/" not in source and source not in compose.get("volumes", {}):
            yield f"volumes: {source} is not defined"


def _dockerfile(path: Path, root: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        yield f"{path.relative_to(root)} is not there"
        return
    where = path.relative_to(root)
    for image in _BASE_IMAGE.findall(text):
        if not _PINNED.match(image):
            yield f"{where}: base image {image} is not pinned by a version"
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    if not users or users[-1].split(":")[0] in ("root", "0"):
        yield f"{where}: runs as root"
    if "-c constraints.txt" not in text:
        yield f"{where}: installs without constraints.txt"
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for each in source.split():
            if not (root / each).exists():
                yield f"{where}: copies {each}, which is not there"


def _environment(service: Mapping[str, Any]) -> Mapping[str, Any]:
    given = service.get("environment", {})
    if isinstance(given, list):
        return dict(entry.partition("=")[::2] for entry in given)
    return given if isinstance(given, dict) else {}
