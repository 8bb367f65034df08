"""node.toml and pins.toml: what a node believes, every fault told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_contracts.canonical import b64u
from convoy_node.errors import HomeRefused, SettingsRefused
from convoy_node.settings import Settings

LOG = Signer.generate("log.example/convoy", SignatureType.ED25519).vkey
NODE = f"""
schema = "convoy-node/1"
[party]
id = "did:web:oem.example"
role = "oem"
region = "CN-SH"
name = "Longhe 龙河"
[log]
keys = ["{LOG}"]
[data]
source = "data/data.parquet"
[asset]
id = "urn:convoy:asset:oem:drive:1"
year_cap_micro = 9_000_000
[asset.fields]
km_1000 = "L3"
[contracts]
risk = "urn:convoy:contract:risk"
"""
PIN = f"""
[[pin]]
party = "did:web:insurer-a.example"
kid = "did:web:insurer-a.example#1"
key = "{b64u(bytes(range(32)))}"
not_before = "2026-01-01T00:00:00Z"
not_after = "2028-01-01T00:00:00Z"
"""


def home(folder: Path, node: str = NODE, pins: str = PIN) -> Path:
    (folder / "node.toml").write_text(node, encoding="utf-8")
    (folder / "pins.toml").write_text(pins, encoding="utf-8")
    return folder


def test_settings_say_what_the_files_say(tmp_path: Path) -> None:
    """Catalogue and keys come out as the world of a decision wants them."""
    settings = Settings.load(home(tmp_path))
    assert (settings.party, settings.role, settings.log_origin) == ("did:web:oem.example", "oem", "log.example/convoy")
    assert settings.data is not None
    assert (settings.data.file, settings.person_column) == (tmp_path / "data/data.parquet", "person_id")
    assert settings.asset_year_cap_micro == 9_000_000
    assert settings.catalogue() == {
        "urn:convoy:asset:oem:drive:1": {"owner": "did:web:oem.example", "fields": {"km_1000": {"grade": "L3"}}}
    }
    key = settings.world_keys()["did:web:insurer-a.example#1"]
    assert (key["party"], key["kty"], key["crv"]) == ("did:web:insurer-a.example", "OKP", "Ed25519")
    assert "revokedAt" not in key


def test_a_revoked_key_says_when_and_why(tmp_path: Path) -> None:
    """The decision engine judges by both."""
    pins = PIN + 'revoked_at = "2026-06-01T00:00:00Z"\nrevoked_reason = "keyCompromise"\n'
    key = Settings.load(home(tmp_path, pins=pins)).world_keys()["did:web:insurer-a.example#1"]
    assert (key["revokedAt"], key["revokedReason"]) == ("2026-06-01T00:00:00Z", "keyCompromise")


def test_a_trustee_needs_no_data_and_no_asset(tmp_path: Path) -> None:
    """It holds no persons."""
    node = NODE[: NODE.index("[data]")].replace('"oem"', '"trustee"')
    settings = Settings.load(home(tmp_path, node))
    assert (settings.data, settings.asset, settings.catalogue()) == (None, "", {})


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """Each with its place, and none as anything but SettingsRefused."""
    node = (
        NODE.replace('"convoy-node/1"', '"convoy-node/9"')
        .replace('"oem"', '"dealer"')
        .replace('"CN-SH"', "7")
        .replace(LOG, "log+00+zz")
        .replace('source = "data/data.parquet"', "")
        .replace('"L3"', '"secret"')
        .replace("9_000_000", "-1")
        .replace('"urn:convoy:contract:risk"', "3")
    )
    pins = PIN.replace("2026-01-01T00:00:00Z", "then") + PIN.replace(b64u(bytes(range(32))), "AAAA")
    with pytest.raises(SettingsRefused) as refused:
        Settings.load(home(tmp_path, node, pins))
    places = [reason.split(":")[0] for reason in refused.value.reasons]
    assert set(places) == {
        "schema", "party.role", "party.region", "log.keys[0]", "data.source", "asset.fields.km_1000",
        "asset.year_cap_micro", "contracts.risk", "pin[0].not_before", "pin[1].key", "pin",
    }  # fmt: skip
    assert refused.value.refusal()["code"] == "SETTINGS_REFUSED"


@pytest.mark.parametrize("name", ["node.toml", "pins.toml"])
@pytest.mark.parametrize("content", [b"= 1", b"\xff\xfe", b"party = 3\nlog = 4\npin = 5\nasset = []", b""])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Whatever the bytes are; an empty list of pins is fine."""
    home(tmp_path)
    (tmp_path / name).write_bytes(content)
    if (name, content) == ("pins.toml", b""):
        assert Settings.load(tmp_path).pins == ()
        return
    with pytest.raises(SettingsRefused):
        Settings.load(tmp_path)


def test_a_folder_without_a_node_is_refused(tmp_path: Path) -> None:
    """With its name and without its path."""
    with pytest.raises(HomeRefused) as refused:
        Settings.load(tmp_path)
    assert str(tmp_path.parent) not in str(refused.value)


def test_keys_of_two_logs_are_refused(tmp_path: Path) -> None:
    """A node believes one log."""
    other = Signer.generate("other.example", SignatureType.ED25519).vkey
    with pytest.raises(SettingsRefused, match="several logs"):
        Settings.load(home(tmp_path, NODE.replace(f'"{LOG}"', f'"{LOG}", "{other}"')))
