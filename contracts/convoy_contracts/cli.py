"""``convoy-contracts``: the commands. Only the ``*cli`` modules of this package open files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convoy_contracts import authoring_cli, life_cli
from convoy_contracts.errors import ContractsError, FileUnreadable

EXIT_OK, EXIT_REFUSED, EXIT_FAULT = 0, 3, 2
MAX_INTEGER_DIGITS = 400


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 bad input, 3 refused or not verified)."""
    parser = argparse.ArgumentParser(
        prog="convoy-contracts",
        description="Contracts: what was agreed, and whether a request is allowed.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    decide = commands.add_parser("decide", help="decide on a world (FORMAT.md §2) and print the decision as JSON")
    decide.add_argument("world", type=Path, help="a JSON file with one world, or with --batch an array of worlds")
    decide.add_argument("--batch", action="store_true", help="read an array of worlds, print an array of decisions")
    decide.add_argument("--exit-code", action="store_true", help="exit 3 for a refusal (with --batch: for any)")
    decide.add_argument(
        "--explain", choices=("zh", "en"), nargs="?", const="en",
        help="print each gate with the clause it rests on instead; English if no language is named",
    )  # fmt: skip
    decide.set_defaults(run=_decide)

    reasons = commands.add_parser("reasons", help="print every clause, gate and reason code as a Markdown table")
    reasons.add_argument("--lang", choices=("zh", "en"), default="en", help="language of the table")
    reasons.set_defaults(run=_reasons)

    problem = commands.add_parser("problem", help="print what a code means: cause, fix, who acts")
    problem.add_argument("code", nargs="?", help="such as TICKET_EXPIRED")
    problem.add_argument("--list", action="store_true", help="print every code with its title")
    problem.add_argument("--language", choices=("zh", "en"), default="en", help="language of the page")
    problem.set_defaults(run=_problem)

    digest = commands.add_parser("digest", help="print the digest of a contract")
    digest.add_argument("contract", type=Path)
    digest.set_defaults(run=_digest)

    lint = commands.add_parser("lint", help="list every fault of a contract at once; exit 2 if there are any")
    lint.add_argument("contract", type=Path)
    lint.add_argument("--json", action="store_true", help="print the faults as a JSON array")
    lint.add_argument("--language", choices=("zh", "en"), default="en", help="language of the text")
    lint.set_defaults(run=_lint)

    sign = commands.add_parser("sign", help="sign a contract; prints the signature entry as JSON")
    sign.add_argument("contract", type=Path)
    life_cli.add_signer(sign)
    sign.set_defaults(run=_sign)

    verify = commands.add_parser("verify", help="check that every party has a good signature; exit 3 if not")
    verify.add_argument("contract", type=Path)
    verify.add_argument("--signatures", type=Path, required=True, help="JSON array of signature entries")
    verify.add_argument("--keys", type=Path, required=True, help="JSON object of keys by kid (FORMAT.md §2)")
    verify.set_defaults(run=_verify)

    authoring_cli.register(commands)
    life_cli.register(commands)
    given = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        return run(given)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (ContractsError, OSError) as error:
        from convoy_contracts.problems.telling import told

        refused = error if isinstance(error, ContractsError) else _unreadable(error)
        print(told(refused), file=sys.stderr)
    return EXIT_FAULT


def _unreadable(error: OSError) -> FileUnreadable:
    return FileUnreadable(f"{error.filename}: {error.strerror}.", fix="Check name, place and rights of the file.")


def _load(path: Path) -> tuple[Any, bool]:
    """Read JSON leniently and say whether it is JSON; what is wrong with a world is for ``decide`` to say."""
    try:
        return json.loads(path.read_bytes(), parse_int=_bounded_integer), True
    except ValueError:
        return None, False
    except RecursionError:  # JSON, and deeper than any world
        return None, True


def _bounded_integer(text: str) -> int | float:
    return int(text) if len(text) <= MAX_INTEGER_DIGITS else float("inf")


def _decide(given: argparse.Namespace) -> int:
    """Print decisions. Every JSON value gets one, as FORMAT.md says; a file that is no JSON gets one as well, and exit code 2."""
    from convoy_contracts.decide import decide
    from convoy_contracts.decide.explain import explain

    loaded, is_json = _load(given.world)
    worlds = loaded if given.batch and isinstance(loaded, list) else [loaded]
    decisions = [decide(world) for world in worlds]
    if given.explain:
        for world, decision in zip(worlds, decisions, strict=True):
            print(explain(decision, given.explain, now=world.get("now") if isinstance(world, dict) else None))
    else:
        values = [decision.as_json() for decision in decisions]
        print(json.dumps(values if given.batch else values[0]))
    fault = _fault(given, worlds, is_json, is_list=isinstance(loaded, list))
    if fault:
        from convoy_contracts.errors import InputMalformed
        from convoy_contracts.problems.telling import told

        print(told(InputMalformed(f"{given.world.name}: {fault}")), file=sys.stderr)
        return EXIT_FAULT
    refused = any(not decision.allow for decision in decisions)
    return EXIT_REFUSED if given.exit_code and refused else EXIT_OK


def _fault(given: argparse.Namespace, worlds: Sequence[Any], is_json: bool, *, is_list: bool) -> str:
    """Return what is wrong with the file itself; for FORMAT.md any JSON value is a world, and only ``--explain`` minds."""
    if not is_json:
        return "it is not JSON"
    if given.batch and not is_list:
        return "it is no array of worlds"
    if given.explain and not all(isinstance(world, dict) and world.get("now") is not None for world in worlds):
        return "it is no world: an object with `now` and the other members of FORMAT.md §2"
    return ""


def _reasons(given: argparse.Namespace) -> int:
    from convoy_contracts.decide.clauses import table

    print(table(given.lang), end="")
    return EXIT_OK


def _problem(given: argparse.Namespace) -> int:
    from convoy_contracts.errors import ArgumentRefused
    from convoy_contracts.problems import PROBLEMS, find

    if given.list:
        for code, entry in sorted(PROBLEMS.items()):
            print(f"{code:<36} {entry.title_zh if given.language == 'zh' else entry.title}")
        return EXIT_OK
    if given.code is None:
        raise ArgumentRefused("no code is named", fix="convoy-contracts problem CODE, or --list.")
    found = find(given.code)
    print(f"{found.code}\n{found.page(given.language)}", end="")
    return EXIT_OK


def _digest(given: argparse.Namespace) -> int:
    print(life_cli.read_contract(given.contract).digest)
    return EXIT_OK


def _lint(given: argparse.Namespace) -> int:
    from convoy_contracts.lint import lint

    faults = lint(given.contract.read_bytes())
    if given.json:
        print(json.dumps([fault.as_json() for fault in faults], ensure_ascii=False))
    elif given.language == "zh":
        from convoy_contracts.problems import PROBLEMS

        for fault in faults:
            known = PROBLEMS[fault.code]
            print(f"{fault.code}  {fault.where}：{known.title_zh}（{fault.cause}）\n    处理：{known.fix_zh}")
        print(f"共 {len(faults)} 处问题" if faults else "没有问题；下一步：convoy-contracts sign")
    else:
        for fault in faults:
            print(f"{fault.code}  {fault.where}: {fault.cause}\n    fix: {fault.fix}")
        print(f"{len(faults)} fault(s)" if faults else "no faults; next: convoy-contracts sign")
    return EXIT_FAULT if faults else EXIT_OK


def _sign(given: argparse.Namespace) -> int:
    from convoy_contracts.signatures import sign

    contract = life_cli.read_contract(given.contract)
    entry = sign(
        contract,
        party=given.party,
        kid=given.kid,
        sig_t=life_cli.now_text(),
        private_key=life_cli.load_key(given.key),
    )
    print(json.dumps(entry))
    return EXIT_OK


def _verify(given: argparse.Namespace) -> int:
    from convoy_contracts.decide.world import WorldMalformed, read_keys
    from convoy_contracts.errors import ArgumentRefused
    from convoy_contracts.signatures import faults

    contract = life_cli.read_contract(given.contract)
    entries, raw = life_cli.read_json(given.signatures), life_cli.read_json(given.keys)
    try:
        found = faults(contract, entries if isinstance(entries, list) else [], read_keys({"keys": raw}))
    except WorldMalformed as error:
        raise ArgumentRefused(
            f"{given.keys.name}: {error}", fix="Keys are an object of kid to key (FORMAT.md §2)."
        ) from error
    for party, codes in found.items():
        print(f"{party}: {', '.join(codes)}")
    if not found:
        print(f"signed by all {len(contract.parties)} parties: {contract.uid} version {contract.version}")
    return EXIT_REFUSED if found else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
