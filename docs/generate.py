"""Write the generated pages: one for each problem, and the reference of commands, settings and events.

    .venv/bin/python docs/generate.py            write what is out of date
    .venv/bin/python docs/generate.py --check    name what is out of date; exit 1 if anything is

Everything is taken from the programs themselves, so a page cannot say something else than they do. ``tests/docs`` compares.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by docs/generate.py from the programs; do not edit. -->\n\n"
VARIABLE = re.compile(r"CONVOY_[A-Z_]+[A-Z]")
TABLES = ROOT / "docs/contracts/README.md"

NODE_SETTINGS: Mapping[str, str] = {
    "schema": "`convoy-node/1`",
    "party.id": "id of this party, such as `did:web:oem.example`",
    "party.role": "oem, insurer, charging, trustee or auditor",
    "party.region": "region code such as `CN-SH`; its territory must be one of the contract's",
    "party.name": "name for people",
    "log.keys": "verifier keys of the one log that this node believes",
    "data.source": "file with the rows, relative to the node's folder; not beside `data.url_file`",
    "data.url_file": "file (0600) with the address of a database; the address never stands in node.toml",
    "data.table": "table or view of the database",
    "data.mapping": "file that turns the party's columns into the catalogue's fields (`convoy-node data map`)",
    "data.engine": "`sqlalchemy`, or `ibis` to have a warehouse compute the rows",
    "data.person": "column with the party's own id of a person; default `person_id`",
    "asset.id": "the asset that this party owns",
    "asset.fields": "grade by field: L1 to L4, I, C",
    "asset.year_cap_micro": "micro epsilon that all contracts of a year together may cost a person",
    "contracts": "contract uid by the short name that consent tables use",
    "pin": "in pins.toml: identity keys of the other parties, as a human compared them",
}
"""What each entry of node.toml and pins.toml is; ``_node_places`` makes sure that none is left out."""
ENVIRONMENT: Mapping[str, str] = {
    "CONVOY_NODE_HOME": "the node's folder, instead of `--home`",
    "CONVOY_COORDINATOR_HOME": "the coordinator's folder, instead of `--home`",
    "CONVOY_CONSENT_URL": "address of the database of `convoy-node consent import --sql`, so that it stands in no process list",
    "CONVOY_BACKUP_PASSPHRASE_FILE": "file (0600) with the passphrase of an encrypted backup, instead of `--passphrase-file`",
    "CONVOY_OTEL": "address of an OpenTelemetry collector (OTLP over HTTP), such as `http://127.0.0.1:4318`; extra `otel`",
    "CONVOY_LOG": "`json` for one JSON object a line, `text` for people",
}


def pages() -> dict[str, str]:
    """Return every generated page by its path below the repository."""
    return dict(_all())


def _all() -> Iterator[tuple[str, str]]:
    yield from _problems()
    yield "docs/reference/cli.md", NOTE + _commands()
    yield "docs/reference/settings.md", NOTE + _settings()
    yield "docs/reference/events.md", NOTE + _events()
    yield "docs/reference/life.md", NOTE + _life()
    yield "docs/reference/interfaces.md", NOTE + _interfaces()
    yield "docs/contracts/README.md", _contract_tables()


# Problems ---------------------------------------------------------------------------------------------------------------


def _problems() -> Iterator[tuple[str, str]]:
    from convoy_contracts.problems import AREAS, PROBLEMS

    for code, problem in PROBLEMS.items():
        text = f"# {code}\n\n## English\n\n{problem.page('en')}\n## 中文\n\n{problem.page('zh')}\n[All problems · 全部问题](README.md)\n"
        yield f"docs/problems/{code}.md", NOTE + text
    lines = [
        "# Problems · 问题代码", "",
        "Every failure that a user can see has a code. The same code, cause and fix come over HTTP (RFC 9457), over gRPC (status",
        "details) and on the command line; `convoy-contracts problem CODE --language zh` prints a page offline, and a coordinator",
        "serves them at `/problems/CODE`. Codes never change their meaning.",
        "每个用户可见的失败都有代码；HTTP、gRPC 与命令行使用相同的代码、原因与处理方法。", "",
    ]  # fmt: skip
    for area, (name, name_zh) in AREAS.items():
        found = sorted(p.code for p in PROBLEMS.values() if p.area == area)
        lines += [f"## {name} · {name_zh}", "", "| code | HTTP | what it says | 含义 |", "|---|---|---|---|"]
        lines += [
            f"| [{code}]({code}.md) | {PROBLEMS[code].status or '-'} | {PROBLEMS[code].title} | {PROBLEMS[code].title_zh} |"
            for code in found
        ]
        lines.append("")
    yield "docs/problems/README.md", NOTE + "\n".join(lines)


def _contract_tables() -> str:
    """Put the tables of ``convoy-contracts reasons`` into the page for lawyers, in place of the old ones."""
    from convoy_contracts.decide.clauses import table

    text = TABLES.read_text(encoding="utf-8")
    for language, head in (("en", "| clause | member"), ("zh", "| 条款 | 合约成员")):
        begin = text.index(head)
        end = text.index("\n\n", begin) + 1
        text = text[:begin] + table(language) + text[end:]
    return text


def _life() -> str:
    from convoy_contracts.lifecycle import AGREED, DPV, FINAL, TABLE, State

    names = {
        State.DRAFT: ("not offered yet", "尚未要约"), State.OFFERED: ("offered, nobody has signed", "已要约，无人签署"),
        State.PARTLY_SIGNED: ("some have signed", "部分签署"),
        State.SIGNED: ("all have signed, the term has not begun", "已全部签署，期限未开始"),
        State.ACTIVE: ("in force", "生效"), State.SUSPENDED: ("the whole contract is stopped", "合约整体暂停"),
        State.SUPERSEDED: ("replaced by a later version", "已被新版本取代"), State.EXPIRED: ("the term is over", "期限届满"),
        State.TERMINATED: ("ended by a party", "已终止"), State.REFUSED: ("a party refused the offer", "要约被拒绝"),
        State.WITHDRAWN: ("the author withdrew the offer", "要约被撤回"),
        State.LAPSED: ("not signed by all in time", "未按时全部签署，要约失效"),
    }  # fmt: skip
    lines = [
        "# The life of a contract version · 合约版本的生命周期", "",
        "Computed from the document, signatures, signed events and the clock, never stored: `GET /v1/contracts/{uid}/state?at=` and",
        "`convoy-contracts state` give the same answer for any instant. How to use it: [authoring](../contracts/authoring.md).", "",
        "## States · 状态", "", "| state | what it means | 含义 | DPV | |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for state in State:
        kind = "final · 终态" if state in FINAL else "agreed · 已达成" if state in AGREED else "open · 未定"
        lines.append(f"| `{state}` | {names[state][0]} | {names[state][1]} | `{DPV[state]}` | {kind} |")
    lines += ["", "## Acts · 行为", "", "| act | of | who may | in states |", "|---|---|---|---|"]
    for row in TABLE:
        who = ", ".join(sorted(row.who))
        lines.append(
            f"| `{row.act}` | {row.target} | {who} | {', '.join(f'`{state}`' for state in State if state in row.states)} |"
        )
    lines += [
        "", "The clock does the rest: an offer lapses, a term begins and ends. Terminated stands before superseded, and both before what",
        "pauses. What loosens (resume, a superseded version that may finish) counts only with every proof that it needs; what tightens",
        "counts as it is.", "",
    ]  # fmt: skip
    return "\n".join(lines)


# Commands ---------------------------------------------------------------------------------------------------------------


@cache
def _commands() -> str:
    parts = [
        "# Commands\n\nEvery command answers `--help` as well. Exit codes: 0 done, 1 or 3 refused or wrong, 2 bad input.\n"
    ]
    for name, module in (("convoy-contracts", "convoy_contracts.cli"), ("convoy-audit", "convoy_audit.cli")):
        parts.append(_argparse(name, importlib.import_module(module).main))
    for name, module in (("convoy-node", "convoy_node.cli"), ("convoy-coordinator", "convoy_coordinator.cli")):
        parts.append(_typer(name, importlib.import_module(module).app))
    parts.append(_argparse("convoy-demo", importlib.import_module("convoy_demo.cli").main))
    return "\n".join(parts)


def command_names() -> set[str]:
    """Return every command with its subcommands, as typed."""
    return {
        line.removeprefix("### `").removesuffix("`") for line in _commands().splitlines() if line.startswith("### `")
    }


class _Caught(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _argparse(name: str, main: Callable[..., Any]) -> str:
    """Take the parser that ``main`` builds; nothing is run."""
    original = argparse.ArgumentParser.parse_args

    def caught(self: argparse.ArgumentParser, *_: object, **__: object) -> Any:
        raise _Caught(self)

    argparse.ArgumentParser.parse_args = caught  # type: ignore[method-assign, assignment]
    try:
        main([])
    except _Caught as found:
        parser = found.parser
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
    return f"## {name}\n\n{parser.description or ''}\n\n" + "\n".join(_argparse_commands([name], parser, ""))


def _argparse_commands(path: list[str], parser: argparse.ArgumentParser, about: str) -> Iterator[str]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        rows = [_argparse_row(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        yield _command(path, about or parser.description or "", rows)
    for group in groups:
        helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, child in group.choices.items():
            yield from _argparse_commands([*path, name], child, helps.get(name, ""))


def _argparse_row(action: argparse.Action) -> tuple[str, str, str]:
    if action.option_strings:
        value = action.metavar or (
            "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
        )
        name = ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")
    else:
        name = str(action.metavar or action.dest).upper()
    needed = action.required and action.nargs not in ("?", "*")
    default = "required" if needed else _shown(action.default)
    return name, default, action.help or ""


def _typer(name: str, app: Any) -> str:
    from typer.main import get_command

    command = get_command(app)
    return f"## {name}\n\n{_first(command.help)}\n\n" + "\n".join(_typer_commands([name], command))


def _typer_commands(path: list[str], command: Any) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None or getattr(command, "invoke_without_command", False):
        rows = [
            _typer_row(parameter)
            for parameter in command.params
            if parameter.name != "help" and not getattr(parameter, "hidden", False)
        ]
        yield _command(
            path,
            _first(command.help),
            [row for row in rows if "--install-completion" not in row[0] and "--show-completion" not in row[0]],
        )
    for name, child in sorted((children or {}).items()):
        if not child.hidden:
            yield from _typer_commands([*path, name], child)


def _typer_row(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        name = parameter.name.upper()
    else:
        flag = getattr(parameter, "is_flag", False)
        name = ", ".join([*parameter.opts, *parameter.secondary_opts]) + (
            "" if flag else f" {parameter.type.name.upper()}"
        )
    default = "required" if parameter.required else _shown(None if callable(parameter.default) else parameter.default)
    return name, default, getattr(parameter, "help", None) or ""


def _first(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).replace("``", "`")


def _shown(default: Any) -> str:
    return "" if default in (None, "", False, [], argparse.SUPPRESS) else f"`{default}`"


def _command(path: list[str], about: str, rows: list[tuple[str, str, str]]) -> str:
    lines = [f"### `{' '.join(path)}`", "", about, ""]
    if rows:
        lines += ["| | default | |", "|---|---|---|"]
        lines += [
            f"| `{name.replace('|', chr(92) + '|')}` | {default} | {_cell(what)} |" for name, default, what in rows
        ] + [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("%%", "%")


# Settings ---------------------------------------------------------------------------------------------------------------


def _settings() -> str:
    from convoy_coordinator.settings import Settings

    lines = [
        "# Settings", "",
        "No setting holds a secret, switches a check off, or sets noise, clips or budgets: those follow from the signed contract.", "",
        "## coordinator.toml", "",
        "In the coordinator's home. Each may come from the environment instead, as `CONVOY_COORDINATOR_` and its name in capitals.", "",
        "| setting | default | what it is |", "|---|---|---|",
    ]  # fmt: skip
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        lines.append(f"| `{name}` | {default} | {_cell(field.description or '')} |")
    lines += [
        "",
        "## node.toml and pins.toml",
        "",
        "In the node's folder.",
        "",
        "| setting | what it is |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {what} |" for name, what in NODE_SETTINGS.items()]
    lines += ["", "## Environment", "", "| variable | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in ENVIRONMENT.items()]
    return "\n".join(lines) + "\n"


def undescribed() -> list[str]:
    """Return settings and variables that the programs read and that this module does not describe, or the other way round."""
    elsewhere = {"schema", "asset.fields", "contracts"}
    places, names = _node_places(), environment_names()
    return sorted((places ^ set(NODE_SETTINGS)) - elsewhere) + sorted(names ^ set(ENVIRONMENT))


def _node_places() -> set[str]:
    """Return the places that the node's reader reads, from its source."""
    tree = ast.parse((ROOT / "node/convoy_node/settings.py").read_text(encoding="utf-8"))
    found = set()
    for call in ast.walk(tree):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "value"
            and len(call.args) > 1
        ):
            place = call.args[1]
            if isinstance(place, ast.Constant):
                found.add(str(place.value))
        elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "text":
            found |= {
                f"data.{only.value}" for only in call.args if isinstance(only, ast.Constant) and len(call.args) == 1
            }
    return found


def environment_names() -> set[str]:
    """Return the CONVOY_ variables that the programs read, the coordinator's settings aside."""
    found = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
                found.add(node.value)
    return found


def sources() -> list[Path]:
    """Return every module of the programs that people wrote."""
    packages = ("contracts", "audit", "models", "node", "coordinator", "demo")
    found = [path for package in packages for path in sorted((ROOT / package / f"convoy_{package}").rglob("*.py"))]
    return [path for path in found if "_pb2" not in path.name and "versions" not in path.parts]


# Events -----------------------------------------------------------------------------------------------------------------


def _events() -> str:
    from convoy_audit.events import EVENTS, StatedEvent

    lines = [
        "# Events of the log", "",
        "What can stand in the log, and nothing else. A type is `subject:object:action` and never changes; no event has a place for",
        "free text or personal data. *Stated* events are signed by the party that answers for them. Formats: `audit/SPEC.md`.", "",
    ]  # fmt: skip
    for name, event in sorted(EVENTS.items()):
        stated = " *Stated.*" if issubclass(event, StatedEvent) else ""
        title, title_zh = event.TITLES
        members = ", ".join(
            f"`{field.name}`"
            + ("" if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING else "?")
            for field in dataclasses.fields(event)
        )
        lines += [
            f"## `{name}`",
            "",
            f"{title} · {title_zh}. {_first(event.__doc__)}{stated}",
            "",
            f"Members: {members}",
            "",
        ]
    return "\n".join(lines)


# Interfaces -------------------------------------------------------------------------------------------------------------


@cache
def _openapi() -> list[tuple[str, dict[str, Any]]]:
    """Return title and OpenAPI description of both HTTP services, each built in a folder of its own that is thrown away."""
    from convoy_coordinator.app import create_app
    from convoy_coordinator.settings import read_settings
    from convoy_coordinator.setup import create_home
    from convoy_node.api import create_app as node_app

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "coordinator"
        create_home(home, name="docs", origin="docs.example/log")
        coordinator = create_app(read_settings(home)).openapi()
        node = node_app(Path(folder)).openapi()
    return [("The coordinator over HTTP", coordinator), ("A node's local HTTP, for the party's own app", node)]


def _interfaces() -> str:
    lines = [
        "# Interfaces", "",
        "Members and schemas: `/openapi.json` of a running coordinator; messages of the partner channel:",
        "`contracts/convoy_contracts/wire/partner.proto`. Refusals: [problems](../problems/README.md). Addresses under `/internal` are for",
        "the coordinator's own processes and need their token.", "",
    ]  # fmt: skip
    for title, described in _openapi():
        lines += [f"## {title}", "", "| | | |", "|---|---|---|"]
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                lines.append(f"| {method.upper()} | `{path}` | {_cell(_first(operation.get('description')))} |")
        lines.append("")
    text = (ROOT / "contracts/convoy_contracts/wire/partner.proto").read_text(encoding="utf-8")
    lines += ["## The partner channel over gRPC", "", "| service | call | |", "|---|---|---|"]
    for service, body in re.findall(r"^service (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        for comment, name in re.findall(r"((?:  //[^\n]*\n)*)  rpc (\w+)", body):
            lines.append(f"| {service} | `{name}` | {_cell(comment.replace('  //', ' '))} |")
    return "\n".join(lines) + "\n"


def stale() -> list[str]:
    """Return what is out of date: changed, missing, or a page of a problem that is no more."""
    made = pages()
    wrong = [
        name
        for name, text in made.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != text
    ]
    left = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/problems").glob("*.md")} - set(made)
    return sorted([*wrong, *left])


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only name what is out of date")
    given = parser.parse_args()
    wrong = stale()
    if given.check:
        print(
            "\n".join(
                [*wrong, "mend with: .venv/bin/python docs/generate.py"]
                if wrong
                else ["every generated page is up to date"]
            )
        )
        return 1 if wrong else 0
    made = pages()
    for name in wrong:
        if name in made:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(made[name], encoding="utf-8")
        else:
            (ROOT / name).unlink()
    print(f"{len(wrong)} of {len(made)} pages written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
