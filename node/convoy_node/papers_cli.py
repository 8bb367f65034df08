"""``convoy-node contract`` and ``convoy-node release list|get``: contracts and releases over the partner channel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoy_node.release_cli import release
from convoy_node.terminal import AsJson, Home, check_new, show, write_new

contract = typer.Typer(help="Contracts over the partner channel: list, read, give the signature.", no_args_is_help=True)
Digest = Annotated[str, typer.Argument(help="Digest of the contract, sha256:….")]
To = Annotated[Path, typer.Option("--to", help="Where to put it; nothing may be there.")]


def add(app: typer.Typer) -> None:
    """Add these commands to ``convoy-node``."""
    app.add_typer(contract, name="contract")


@contract.command("list")
def list_(home: Home, as_json: AsJson = False) -> None:
    """List the contracts at the coordinator that name this party, and whose signatures are missing."""
    from convoy_node.channel_papers import offered

    found = [{"digest": o.digest, "state": o.state, "unsigned": list(o.unsigned)} for o in offered(home)]
    lines = [f"{o['state']:<10} {o['digest']}  unsigned: {', '.join(o['unsigned']) or 'nobody'}" for o in found]
    show(
        {"contracts": found}, as_json, lines or ["No contract names this party."],
        f"convoy-node contract get DIGEST --to FILE --home {home}",
    )  # fmt: skip


@contract.command()
def get(digest: Digest, home: Home, to: To, as_json: AsJson = False) -> None:
    """Put a contract's text into a file, to be read before it is signed; its digest is computed here."""
    from convoy_node.channel_papers import text_of

    check_new(to)
    write_new(to, text_of(home, digest))
    show(
        {"digest": digest, "file": str(to)}, as_json, [f"{digest} is in {to}."], f"convoy-node sign {to} --home {home}"
    )


@contract.command()
def send(digest: Digest, home: Home, as_json: AsJson = False) -> None:
    """Give the coordinator the signature that ``sign`` has kept. Repeat as often as you like."""
    from convoy_node.channel_papers import send_signature

    missing = send_signature(home, digest)
    lines = [f"The signature is in. Missing: {', '.join(missing) or 'none'}."]
    show({"digest": digest, "unsigned": list(missing)}, as_json, lines, f"convoy-node contract list --home {home}")


@release.command("list")
def releases(home: Home, as_json: AsJson = False) -> None:
    """List the releases at the coordinator that name this party as a recipient."""
    from convoy_node.channel_papers import released

    found = [
        {
            "run": one.run,
            "manifestDigest": one.manifest_digest,
            "logIndex": one.log_index,
            "bytes": sum(size for _, _, size in one.files),
        }
        for one in released(home)
    ]
    lines = [f"{one['run']}  {one['bytes']:>12,} bytes  {one['manifestDigest']}" for one in found]
    show(
        {"releases": found}, as_json, lines or ["No release names this party."],
        f"convoy-node release get RUN --to FOLDER --home {home}",
    )  # fmt: skip


@release.command("get")
def fetched(
    run: Annotated[str, typer.Argument(help="The run whose release it is.")],
    home: Home,
    to: To,
    as_json: AsJson = False,
) -> None:
    """Fetch a release into a folder; every file must have the digest that the release lists."""
    from convoy_node.channel_papers import fetch

    digest = fetch(home, run, to)
    show(
        {"run": run, "manifestDigest": digest, "folder": str(to)}, as_json, [f"The release of {run} is in {to}."],
        f"convoy-node release show {to} --home {home} --key RELEASE_KEY",
    )  # fmt: skip
