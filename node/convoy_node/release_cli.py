"""``convoy-node release``: look at a released model before it prices anything, and at what changed since the last one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoy_node.errors import NodeError
from convoy_node.terminal import AsJson, Home, show

if TYPE_CHECKING:
    from convoy_models.bundle import Bundle

release = typer.Typer(
    help="Releases that this node may use: their price curves, and what changed.", no_args_is_help=True
)
Folder = Annotated[Path, typer.Argument(help="Folder of a release.")]
Key = Annotated[
    str, typer.Option("--key", help="The coordinator's release key: 64 hex digits that init printed there.")
]


def add(app: typer.Typer) -> None:
    """Add these commands to ``convoy-node``."""
    app.add_typer(release, name="release")


@release.command("show")
def show_(folder: Folder, home: Home, key: Key, as_json: AsJson = False) -> None:
    """Verify a release and print every factor that a price can depend on."""
    from convoy_models import curves

    bundle = opened(folder, home, key)
    rows = curves.factors(bundle.specification, bundle.arrays)
    head = f"Run {bundle.facts.run}, {len(rows)} numbers; factor 1 is average."
    show(
        {"run": bundle.facts.run, "manifestDigest": bundle.manifest_digest, "factors": curves.as_json(rows)}, as_json,
        [head, "", *curves.show(rows)], f"convoy-node release diff OLD {folder} --home {home} --key {key}",
    )  # fmt: skip


@release.command()
def diff(
    old: Folder,
    new: Folder,
    home: Home,
    key: Key,
    least: Annotated[float, typer.Option(help="Smallest relative change that is shown.")] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Verify two releases and print what changed, the largest change first."""
    from convoy_models import curves

    first, second = opened(old, home, key), opened(new, home, key)
    made = [curves.factors(bundle.specification, bundle.arrays) for bundle in (first, second)]
    changes = curves.diff(made[0], made[1], least)
    facts = {
        "old": first.facts.run,
        "new": second.facts.run,
        "changes": [{"where": list(c.key), "old": c.old, "new": c.new} for c in changes],
    }
    head = f"{first.facts.run} -> {second.facts.run}: {len(changes)} of {len(made[1])} numbers changed by more than {least:.1%}."
    show(
        facts, as_json, [head, *curves.show_diff(changes)], f"convoy-node release show {new} --home {home} --key {key}"
    )


def opened(folder: Path, home: Path, key: str) -> Bundle:
    """Return a verified release of a contract that this node has signed, for this party."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from convoy_models.bundle import MANIFEST, read_bundle
    from convoy_node.settings import Settings
    from convoy_node.setup import contracts

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except ValueError as error:
        raise NodeError(
            "the release key is not 32 bytes in hex.",
            code="KEY_REFUSED",
            fix="Copy the line 'Release key' of the coordinator.",
            fix_zh="请复制协调方显示的 Release key 一行。",
        ) from error
    try:
        named = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("contractDigest")
    except (OSError, ValueError, AttributeError) as error:
        raise NodeError(
            f"{folder.name} is no release.",
            code="FILE_UNREADABLE",
            fix="Name the folder that holds manifest.json.",
            fix_zh="请指定含有 manifest.json 的文件夹。",
        ) from error
    if named not in contracts(home):
        raise NodeError(
            "the release belongs to a contract that this node has not signed.", code="CONTRACT_UNKNOWN",
            fix="convoy-node status shows the signed contracts.", fix_zh="convoy-node status 会列出已签署的合约。",
        )  # fmt: skip
    party = Settings.load(home).party
    return read_bundle(folder, public, recipient=party, contract_digest=str(named), recalled=()).value
