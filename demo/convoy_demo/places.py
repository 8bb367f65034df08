"""Where the demo keeps things, and who takes part.

<home>/summary.json                 the last run's figures
<home>/<runtime>/coordinator/       the coordinator's folder
<home>/<runtime>/nodes/<short>/     one folder a party: data, keys, ledger, consents, witness; nobody else's
<home>/<runtime>/link/              the SuperLink's folder (deployed runtime)
<home>/<runtime>/evidence.zip       what an auditor gets
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convoy_demo.party_data import party_id

OEM, CHARGING, AUDITOR = "oem", "charging", "auditor"


@dataclass(frozen=True, slots=True)
class Member:
    """A party of the demo. ``cap_micro``: epsilon that a year may cost a person of its asset."""

    short: str
    name: str
    role: str
    region: str
    asset: str = ""
    cap_micro: int = 0

    @property
    def id(self) -> str:
        """The party id."""
        return party_id(self.short)


MEMBERS = (
    Member(OEM, "Morgenrot Motors 晨光汽车", "oem", "CN-SH", "urn:convoy:asset:oem:drive:1", 9_000_000),
    Member("insurer-a", "Insurer A 甲保险", "insurer", "CN-SH", "urn:convoy:asset:insurer-a:policy:1", 6_000_000),
    Member("insurer-b", "Insurer B 乙保险", "insurer", "CN-BJ", "urn:convoy:asset:insurer-b:policy:1", 6_000_000),
    Member("insurer-c", "Insurer C 丙保险", "insurer", "CN-GD", "urn:convoy:asset:insurer-c:policy:1", 6_000_000),
    Member(CHARGING, "Charging operator 充电运营商", "charging", "CN-SH", "urn:convoy:asset:charging:use:1", 6_000_000),
    Member(AUDITOR, "Auditor 审计方", "trustee", "CN-BJ"),
)
INSURER_SHORTS = tuple(member.short for member in MEMBERS if member.role == "insurer")


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one runtime's demo."""

    home: Path
    runtime: str

    @property
    def root(self) -> Path:
        """Everything of this runtime."""
        return self.home / self.runtime

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.root / "coordinator"

    @property
    def link(self) -> Path:
        """The SuperLink's folder."""
        return self.root / "link"

    @property
    def evidence(self) -> Path:
        """The evidence pack of the last run."""
        return self.root / "evidence.zip"

    @property
    def ready(self) -> Path:
        """Written when the federation has been set up whole."""
        return self.root / "ready.json"

    def node(self, short: str) -> Path:
        """A party's folder."""
        return self.root / "nodes" / short
