"""The door to a running SuperLink: SuperNode keys registered, membership written, as the coordinator's parties stand.

Loaded by name from ``convoy_coordinator.enrolment.gate``. A party that is withdrawn drops out of ``membership.json``
first (no delivery any more, within the file's next reading), then its key is unregistered (401 at its next request, and
its SuperNode ends).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from convoy_coordinator.enrolment.gate import LinkEndpoint
from convoy_coordinator.errors import SetupError
from convoy_coordinator.federation.errors import FederationError
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome, read_json


class LinkGate:
    """The gate of the SuperLink in a folder.

    Args:
        link_home: the link's folder.
        address: host:port that partners reach; what the SuperLink itself says if not given.
    """

    def __init__(self, link_home: Path, address: str | None) -> None:
        self._home = LinkHome(link_home)
        self._address = address

    def settle(self, parties: Mapping[str, str]) -> None:
        """Let in exactly these parties, by SuperNode key in PEM.

        Raises:
            SetupError: the SuperLink does not answer, or its folder cannot be used.
        """
        from convoy_coordinator.federation.flower.control import LinkControl

        try:
            self._write_membership(parties)
            with LinkControl.of(self._home) as control:
                for number, party, key in control.registered():
                    if parties.get(party, "").encode() != key:  # shut out, or its key was followed by another
                        control.unregister(number)
                for party, text in parties.items():
                    control.register(party, text.encode())
        except FederationError as error:
            raise SetupError(error.code, error.cause, party=error.party, fix=error.fix) from None

    def endpoint(self) -> LinkEndpoint | None:
        """Return where partners connect, while the SuperLink runs."""
        try:
            ready = self._home.read_ready()
            return LinkEndpoint(self._address or ready.public, self._home.ca_file.read_bytes(), (ready.app_hash,))
        except (FederationError, OSError):
            return None

    def incarnation(self) -> str:
        """Return the process that serves the folder; empty while none does."""
        try:
            return f"{self._home.read_ready().pid} {self._home.ready_file.stat().st_mtime_ns}"
        except (FederationError, OSError):
            return ""

    def turned_away(self) -> Mapping[str, int]:
        """Return what the SuperLink has counted at its public door."""
        return self._home.read_turned()

    def begin(self, run: str) -> None:
        """Start a Flower run for a queued run.

        Raises:
            SetupError: the SuperLink does not answer, or its folder cannot be used.
        """
        from convoy_coordinator.federation.flower.control import LinkControl

        try:
            app_hash = self._home.read_ready().app_hash
            with LinkControl.of(self._home) as control:
                control.start_run(app_hash, run=run)
        except FederationError as error:
            raise SetupError(error.code, error.cause, party=error.party, fix=error.fix) from None

    def _write_membership(self, parties: Mapping[str, str]) -> None:
        federations = {DEFAULT_FEDERATION: sorted(parties)}
        if self._home.membership_file.exists():
            known = read_json(self._home.membership_file)
            if isinstance(known, dict):
                for name, members in known.items():
                    if name != DEFAULT_FEDERATION and isinstance(members, list):
                        federations[name] = [party for party in members if party in parties]
            if known == federations:
                return
        self._home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.write_membership(federations)
