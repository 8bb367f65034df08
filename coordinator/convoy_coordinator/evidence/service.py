"""Gather an evidence pack from what the other services keep; ``convoy_audit`` builds and verifies
it.

The pack covers exactly the entries under the last checkpoint that has the quorum, with the cosignatures that were
kept. What is not in the log is not in the pack, but for the documents whose digests the log
names: contracts, manifests and model cards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from convoy_audit.archive import write_pack
from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError
from convoy_audit.pack import Parts, SignedContract
from convoy_coordinator.contracts.service import ContractService
from convoy_coordinator.errors import Problem
from convoy_coordinator.journal import Clock
from convoy_coordinator.log import LogService
from convoy_coordinator.releases.service import MANIFEST, ReleaseService

MAX_CHECKPOINTS: Final = 1000
"""How many earlier checkpoints a pack takes; a busy log signs one a second."""


def chosen(sizes: Sequence[int], stamped: Collection[int]) -> list[int]:
    """Return which checkpoints go into a pack: the last half of ``MAX_CHECKPOINTS``, as many spread over those before, and each
    that has a time-stamp. All of them prove the same history; more of them would not prove it better.
    """
    half = MAX_CHECKPOINTS // 2
    early, late = sizes[:-half], sizes[-half:]
    spread = early[:: max(1, -(-len(early) // half))]
    return sorted({*spread, *late, *(size for size in early if size in stamped)})


class EvidenceService:
    """Makes evidence packs.

    Args:
        log: entries, checkpoints, policy.
        contracts: documents with signatures.
        releases: manifests.
        clock: the present instant.
        stamps: time-stamps of checkpoints (RFC 3161), by size.
    """

    def __init__(
        self,
        log: LogService,
        contracts: ContractService,
        releases: ReleaseService,
        clock: Clock,
        stamps: Callable[[], Mapping[int, bytes]] = dict,
    ) -> None:
        self._log = log
        self._stamps = stamps
        self._contracts = contracts
        self._releases = releases
        self._clock = clock

    def write(self, path: Path) -> Path:
        """Write a pack: a zip file if the name ends so, else a folder.

        Raises:
            Problem: NOT_FOUND before the first checkpoint; LOG_REFUSED if there is something at
                ``path``.
        """
        try:
            return write_pack(path, self._parts())
        except AuditError as error:
            raise Problem("LOG_REFUSED", error.cause, party=error.party) from None

    def _parts(self) -> Parts:
        note = self._log.latest()
        if note is None:
            raise Problem("NOT_FOUND", "the log has no checkpoint yet")
        size = peek(note.encode()).size
        stamps = {at: stamp for at, stamp in self._stamps().items() if at <= size}
        return Parts(
            policy=self._log.policy().text,
            checkpoint=note.encode(),
            entries=self._log.entries(0, size),
            made_at=self._clock(),
            checkpoints=[
                other.encode()
                for at in chosen([at for at in self._log.checkpoint_sizes() if at <= size], stamps)
                if (other := self._log.at(at)) is not None
            ],
            timestamps=stamps,
            contracts=[
                SignedContract(view.contract.text.encode(), view.signatures)
                for view in self._contracts.all()
                if view.contract.log_index < size
            ],
            manifests={
                release.run: self._releases.file(release.run, MANIFEST).read_bytes()
                for release in self._releases.all()
                if release.log_index < size
            },
            release_files={
                release.run: {
                    name: self._releases.file(release.run, name).read_bytes()
                    for name in release.files
                    if name.startswith("card.")
                }
                for release in self._releases.all()
                if release.log_index < size
            },
        )
