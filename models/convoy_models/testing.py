"""What tests need and no run may have: noise without privacy, and a federation in one process.

No setting or contract can name anything here; only code can pass it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from convoy_models.fixedpoint import Floats, Words
from convoy_models.masks import PairKeys
from convoy_models.messages import Payload, relay
from convoy_models.noise import NoiseSource
from convoy_models.plan import PlannedQuery
from convoy_models.sums import CHUNK_ROWS, DealerSession, PartySession, Triple

Edge = tuple[str, str]
"""(party, its peer)."""


class NoNoise:
    """Draw zeros: shows that the secure sum equals the plain one. Gives no privacy."""

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Return zeros."""
        return np.zeros(size, dtype=np.int64)


class SeededNoise:
    """Draw repeatable rounded Gaussians. Gives no privacy: whoever knows the seed removes them.

    Args:
        seed: of the generator.
        factor: multiplies every scale; a test plants a defect with 0.8 or 0.
    """

    def __init__(self, seed: int, factor: float = 1.0) -> None:
        self._generator = np.random.default_rng(seed)
        self._factor = factor

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Return rounded Gaussian draws."""
        draws = self._generator.normal(0.0, scale * self._factor, size)
        return np.rint(draws).astype(np.int64)


class MemoryFederation:
    """Data holders, a trustee and a relay in one process: the real sessions, without transport.

    Args:
        noise: a source per data holder.
        pairs: which holders share persons.
        trustee: party id of the dealer.
        run: uid of the run; ``attempt``: number of the try.
        keys: pair keys to go on with (another attempt of the same parties).
        chunk_rows: rows of a matrix in one message.
        triples: (matrix holder, factor holder, third party) of TRILINEAR sums; the first two are a pair.
        lister: the party whose whole list of link ids makes the rows; None for the common ids.
    """

    def __init__(
        self,
        noise: Mapping[str, NoiseSource],
        pairs: Sequence[Edge] = (),
        *,
        trustee: str = "trustee",
        run: str = "run-1",
        attempt: int = 1,
        keys: Mapping[str, PairKeys] | None = None,
        chunk_rows: int = CHUNK_ROWS,
        triples: Sequence[tuple[str, str, str]] = (),
        lister: str | None = None,
    ) -> None:
        self.trustee = trustee
        self.edges = [edge for a, b in pairs for edge in ((a, b), (b, a))]
        self.keys = keys or new_keys([*noise, trustee])
        self.dealer = DealerSession(run, attempt, self.keys[trustee])
        self.sessions = {
            party: PartySession(
                run,
                attempt,
                self.keys[party],
                peers=[peer for own, peer in self.edges if own == party],
                triples=[Triple(*triple) for triple in triples],
                trustee=trustee,
                noise=source,
                lister=lister,
                chunk_rows=chunk_rows,
            )
            for party, source in noise.items()
        }
        self.relayed_bytes = 0

    def deliver(self, replies: Mapping[str, Mapping[str, bytes]]) -> None:
        """Relay every blob to its addressee, as the coordinator does."""
        payloads = {sender: Payload(blobs=dict(blobs)) for sender, blobs in replies.items()}
        for party, blobs in relay(payloads).items():
            self.relayed_bytes += sum(map(len, blobs.values()))
            receiver = self.dealer if party == self.trustee else self.sessions[party]
            receiver.receive(blobs)

    def align(self, ids: Mapping[Edge, Sequence[bytes]]) -> dict[Edge, NDArray[np.int64]]:
        """Exchange link ids; return the joint order of every edge."""
        for party, peer in self.edges:
            self.deliver({party: self.sessions[party].links(peer, ids[party, peer])})
        return {(party, peer): self.sessions[party].align(peer) for party, peer in self.edges}

    def hold(self, matrices: Mapping[Edge, Floats | None]) -> None:
        """Fix all matrices (none where an edge is not named) and exchange them masked."""
        for party, peer in self.edges:
            self.sessions[party].hold(peer, matrices.get((party, peer)))
        involved = {own for own, _ in self.edges}
        for party, session in self.sessions.items():
            if party in involved:
                for chunk in range(session.chunks):
                    self.deliver({party: session.matrix(chunk)})

    def place(self, party: str, ids: Sequence[bytes]) -> dict[str, NDArray[np.int64]]:
        """Have a third party of triples look up the rows it was sent; return its places by factor holder."""
        session = self.sessions[party]
        places = {factor: session.place(factor, ids) for factor in session.orders}
        self.deliver({party: session.matrix(1)})
        return places

    def ask(
        self,
        query: PlannedQuery,
        *,
        values: Mapping[Edge, Floats] | None = None,
        caps: Mapping[str, float] | None = None,
        local: Mapping[str, Floats] | None = None,
    ) -> dict[str, Words]:
        """Take a query through all its steps; return the contributions, by party.

        Args:
            query: any kind.
            values: vectors (DOT, at the vector holder) or factors (WEIGHTED, at both ends) by edge; of a
                TRILINEAR query the factor at (Q, P) and the third party's at (R, Q).
            caps: of these values, by party; 1 where absent.
            local: clipped sums of a LOCAL query, by party.
        """
        own: dict[str, dict[str, Floats]] = {party: {} for party in query.participants}
        for (party, peer), vector in (values or {}).items():
            own[party][peer] = vector
        cap = {party: (caps or {}).get(party, 1.0) for party in own}
        sessions = {party: self.sessions[party] for party in query.participants}
        if query.kind != "LOCAL":
            self.deliver({self.trustee: self.dealer.deal(query)})
        if query.kind in ("WEIGHTED", "TRILINEAR"):
            self.deliver({p: s.open(query, own[p], cap[p]) for p, s in sessions.items()})
        if query.kind != "LOCAL":
            vectors = own if query.kind == "DOT" else dict.fromkeys(own)
            self.deliver({p: s.share(query, vectors[p], cap[p]) for p, s in sessions.items()})
        return {p: s.close(query, (local or {}).get(p)) for p, s in sessions.items()}


def new_keys(parties: Sequence[str], contract_digest: str = "sha256:test") -> dict[str, PairKeys]:
    """Return fresh pair keys of every party towards every other."""
    private = {party: X25519PrivateKey.generate() for party in parties}
    public = {party: key.public_key().public_bytes_raw() for party, key in private.items()}
    return {party: PairKeys(party, private[party], public, contract_digest) for party in parties}
