"""Read a compose file as Compose does: YAML with merges, then variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

_VARIABLE: Final = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?])([^}]*))?\})")


class ComposeFault(Exception):
    """The file cannot be used; the text says where and why."""


def read(path: Path) -> dict[str, Any]:
    """Return the file's content, variables not yet filled in.

    Raises:
        ComposeFault: no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ComposeFault(f"{path.name}: {error}") from error
    if not isinstance(content, dict):
        raise ComposeFault(f"{path.name}: no mapping")
    return content


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` filled in.

    Raises:
        ComposeFault: a variable that must be set is not.
    """
    if isinstance(value, dict):
        return {name: filled(member, environment) for name, member in value.items()}
    if isinstance(value, list):
        return [filled(member, environment) for member in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        dollar, name, mode, text = found.groups()
        if dollar:
            return "$"
        given = environment.get(name)
        if given is None or (given == "" and (mode or "").startswith(":")):
            if mode and mode.endswith("?"):
                raise ComposeFault(f"{name} must be set: {text}")
            return text or ""
        return given

    return _VARIABLE.sub(fill, value)
