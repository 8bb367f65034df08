"""One data holder in one attempt of one run: the steps of the protocol in bytes and arrays.

The order of steps per query is a table; a step taken twice or out of turn is refused
(``TagReused``, ``MessageMissing``), so no pad and no mask of an attempt is used twice. A node
that restarts makes a new session: its pads have a fresh salt, its masks are protected by the
node's ledger, which refuses a (run, query, attempt) it has spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import (
    MessageMissing,
    MessageUnexpected,
    ShapeMismatch,
    TagReused,
)
from convoy_models.fixedpoint import LOCAL_BITS, Floats, Words, check_headroom, encode
from convoy_models.masks import PairKeys
from convoy_models.messages import parse_name, to_party
from convoy_models.noise import NoiseSource, share_scale
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums.bilinear import CHUNK_ROWS, Attempt
from convoy_models.sums.dealer import vector_side
from convoy_models.sums.opening import fraction_bits
from convoy_models.sums.pair import Allocate, Pair, allocate
from convoy_models.sums.triple import (
    Triple,
    at,
    needed,
    open_factors,
    pair_names,
    share_of_sum,
    share_products,
    triples_of,
)

_STEPS: Final[dict[str, tuple[str, ...]]] = {
    "LOCAL": ("close",),
    "DOT": ("share", "close"),
    "WEIGHTED": ("open", "share", "close"),
    "TRILINEAR": ("open", "share", "close"),
}


class PartySession:
    """A data holder's state machine; see the package docstring for a complete query.

    Args:
        run: uid of the run.
        attempt: number of the try; never repeated for a run.
        keys: own keys under the contract.
        peers: data holders this party shares persons with (empty where all its sums are LOCAL).
        triples: those of TRILINEAR sums that this party is in (``triple.triples_of``).
        trustee: who deals; needed with peers.
        noise: the node's source of noise.
        lister: the party whose whole list of link ids makes the rows of its pairs (``align``); None for the common ids.
        store: where a peer's masked matrix is kept (an array by default, or a memory map).
        chunk_rows: rows of a matrix in one message; the protocol's constant, smaller in tests.
    """

    opens_dot = False
    """Whether a DOT query takes its vector at ``open`` already."""

    def __init__(
        self,
        run: str,
        attempt: int,
        keys: PairKeys,
        *,
        peers: Sequence[str] = (),
        triples: Sequence[Triple] = (),
        trustee: str | None = None,
        noise: NoiseSource,
        lister: str | None = None,
        store: Allocate = allocate,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        if (peers or triples) and trustee is None:
            raise MessageMissing("sums over two parties need a trustee.", party=keys.party)
        self.party = keys.party
        self._attempt = Attempt(run, attempt)
        self._keys = keys
        self._noise = noise
        self._trustee = trustee or ""
        self._triples = tuple(t for t in triples if self.party in t.parties)
        names = {peer: peer for peer in sorted(peers)} | pair_names(self.party, self._triples)
        self._pairs = {
            name: Pair(
                self._attempt,
                keys,
                peer,
                self._trustee,
                store,
                chunk_rows,
                name,
                lister if lister in (self.party, peer) else None,
            )
            for name, peer in names.items()
        }
        self._senders = set(names.values())
        self._inbox: dict[tuple[str, str], bytes] = {}
        self._early: dict[str, dict[int, bytes]] = {}
        self._shaped: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._done: dict[str, tuple[PlannedQuery, str]] = {}

    # --- set-up -----------------------------------------------------------------------------

    def links(self, peer: str, ids: Sequence[bytes]) -> dict[str, bytes]:
        """Return ``to|peer|align``: own 16-byte link ids for this peer, sorted, padded, sealed; nothing if only the peer lists."""
        listed = self._pair(peer).links(ids)
        return {} if listed is None else self._blob(peer, "align", listed)

    def align(self, peer: str) -> NDArray[np.int64]:
        """Return which of the ids given to ``links`` are in the common rows, in the order both use.

        Raises:
            LinksRefused: repeated ids, or nobody in common.
            MessageMissing: the peer's list has not arrived.
        """
        pair = self._pair(peer)
        return pair.align(self._take(peer, "align") if pair.awaits_list else b"")

    def hold(self, peer: str, matrix: Floats | None) -> None:
        """Fix own matrix towards a peer: (aligned rows, columns) in [-1, 1]; None for no matrix."""
        self._pair(peer).hold(matrix)
        for t in self._triples:
            if (self.party, peer) == (t.matrix, t.factor):
                self._pair(at(t.third, t.factor)).hold_as(self._pair(peer))
            elif (self.party, peer) == (t.factor, t.matrix):
                other = self._pair(at(t.third, t.matrix))
                other.hold_as(self._pair(peer))

    @property
    def orders(self) -> tuple[str, ...]:
        """The factor holders of triples whose rows have arrived here, at the third party, and are not placed."""
        return tuple(
            t.factor for t in self._triples if (t.matrix, f"order@{t.factor}") in self._inbox and self.party == t.third
        )

    def place(self, factor: str, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """Return each row's place in own link ids, -1 for a row of nobody known, and hold these rows.

        Args:
            factor: whose rows, of ``orders``.
            ids: own link ids towards the matrix holder.

        Raises:
            LinksRefused: ids that repeat, or nobody in common.
        """
        t = next((t for t in self._triples if (t.third, t.factor) == (self.party, factor)), None)
        if t is None:
            raise MessageUnexpected(f"there is no triple with {factor}.", party=factor)
        towards, other = self._pair(at(t.matrix, t.factor)), self._pair(at(t.factor, t.matrix))
        places = towards.place(self._take(t.matrix, f"order@{factor}"), ids)
        towards.hold(None)
        other.fix_rows(len(places))
        other.hold(None)
        for chunk, plain in sorted(self._early.pop(at(t.matrix, t.factor), {}).items()):
            towards.take_chunk(chunk, plain)
        return places

    @property
    def chunks(self) -> int:
        """How many ``matrix`` exchanges this party needs (at least one, for the shapes; two for a third party's)."""
        least = 2 if any(t.third == self.party for t in self._triples) else 1
        return max([least, *(pair.chunks for pair in self._pairs.values() if pair.has_rows)])

    def rows(self, peer: str) -> int:
        """Return the rows shared with a peer, padded to a multiple of 50."""
        return self._pair(peer).rows

    def matrix(self, chunk: int) -> dict[str, bytes]:
        """Return one chunk of every masked matrix; with chunk 0 also the shapes for the trustee."""
        blobs: dict[str, bytes] = {}
        for name, pair in self._pairs.items():
            if not pair.has_rows:
                continue  # of a triple whose rows have not arrived at its third party
            if name not in self._shaped:
                self._shaped.add(name)
                blobs |= self._blob(self._trustee, f"shape.{name}", pair.shape())
            if chunk < pair.chunks and self._sends_matrix(name):
                _, third, context = name.partition("@")
                blobs |= self._blob(pair.peer, f"matrix.{chunk}{third}{context}", pair.masked_chunk(chunk))
                if third and chunk == 0:
                    blobs |= self._blob(pair.peer, f"order@{context}", self._pair(context).order())
        return blobs

    def _sends_matrix(self, name: str) -> bool:
        """Whether a pair's matrix travels: in triples only the matrix holder's does."""
        return "@" not in name or any(self.party == t.matrix and name == at(t.third, t.factor) for t in self._triples)

    def receive(self, blobs: Mapping[str, bytes]) -> None:
        """Open and keep relayed blobs (``from|sender|tag``), whatever step they belong to.

        Raises:
            SealBroken: not sealed by that sender, for this party, tag and attempt.
            TagReused: a blob for the second time.
            MessageUnexpected: a sender or tag that has no place in this protocol.
        """
        for name, blob in blobs.items():
            direction, sender, tag = parse_name(name)
            kind, _, rest = tag.partition(".")
            kind, _, factor = kind.partition("@")
            expected = ("deal",) if sender == self._trustee else ("align", "order", "matrix", "open", "share")
            known = sender in self._senders or (sender == self._trustee and sender)
            if direction != "from" or not known or kind not in expected or bool(factor) != (kind == "order"):
                raise MessageUnexpected(f"a blob {kind!r} has no place here.", party=sender)
            plain = self._keys.unseal(sender, self._attempt.aad(tag, sender, self.party), blob)
            if (sender, tag) in self._seen:
                raise TagReused(f"the blob {tag} arrived before.", party=sender)
            if kind == "matrix":
                self._take_chunk(sender, rest, plain)
            else:
                self._inbox[sender, tag] = plain
            self._seen.add((sender, tag))

    def _take_chunk(self, sender: str, rest: str, plain: bytes) -> None:
        number, _, factor = rest.partition("@")
        if not number.isdecimal():
            raise MessageUnexpected("a matrix chunk has no number.", party=sender)
        name = at(sender, factor) if factor else sender
        if factor and not self._pair(name).has_rows:
            self._early.setdefault(name, {})[int(number)] = plain  # rows come first: ``place``
        else:
            self._pair(name).take_chunk(int(number), plain)

    # --- steps of a query -------------------------------------------------------------------

    def open(self, query: PlannedQuery, factors: Mapping[str, Floats], cap: float) -> dict[str, bytes]:
        """Step ``open`` of a WEIGHTED or TRILINEAR query: send own masked factor to every peer.

        Args:
            query: from the plan.
            factors: own factor per peer, (aligned rows,), in [-cap, cap]; of a TRILINEAR query as in
                ``triple.open_factors``, and nothing at the matrix holder.
            cap: the contract's cap of own factor.
        """
        self._step(query, "open")
        if query.kind == "TRILINEAR":
            made = open_factors(self, self.party, query, factors, cap)
            self._mark(query, "open")
            return made
        vectors = self._encode(query, factors, cap)
        self._mark(query, "open")
        blobs: dict[str, bytes] = {}
        for peer, vector in vectors.items():
            blobs |= self._blob(peer, f"open.{query.id}", self._pairs[peer].open(query, vector))
        return blobs

    def share(
        self, query: PlannedQuery, vectors: Mapping[str, Floats] | None = None, cap: float = 1.0
    ) -> dict[str, bytes]:
        """Step ``share``: the vector holder sends its masked vector, the matrix holder nothing.

        Args:
            query: DOT or WEIGHTED, from the plan. vectors: of a DOT query at the vector holder,
            per peer: (aligned rows,) or (aligned rows, J). cap: the contract's cap of one entry
            of these vectors.
        """
        self._step(query, "share")
        if query.kind == "TRILINEAR":
            self._side(query)
            made = share_products(self, self.party, query, self._trustee)
            self._mark(query, "share")
            return made
        if self._holds_matrix(query):
            self._mark(query, "share")
            return {}
        encoded = self._encode(query, vectors or {}, cap) if query.kind == "DOT" else self._products(query)
        self._mark(query, "share")
        blobs: dict[str, bytes] = {}
        for peer, vector in encoded.items():
            plain = self._pairs[peer].share_vector(query, vector)
            blobs |= self._blob(peer, f"share.{query.id}", plain)
        return blobs

    def check_ready(self, query: PlannedQuery, bound: float | None = None) -> None:
        """Refuse, before anything is spent, a ``close`` that could not be completed.

        Args:
            query: from the plan.
            bound: the largest size of one coordinate of one person's part where that is known to
                be less than ``query.clip`` (the product of the caps); decides head-room only.

        Raises:
            MessageMissing: a blob or matrix of a peer has not arrived.
            RingOverflow: the sum could leave the ring.
        """
        self._step(query, "close")
        self._side(query)
        if query.kind == "LOCAL":
            return
        for name, holds, sender, tag in self._all_needed(query):
            self._pair(name).check_ready(query, holds)
            self._peek(sender, tag)
        self._check_rows(query, bound)

    def _check_rows(self, query: PlannedQuery, bound: float | None) -> None:
        rows = sum(self._pair(name).rows for name in self._row_pairs(query))
        largest = min(value for value in (query.clip, query.peak, bound) if value is not None)
        check_headroom(rows, largest, fraction_bits(query), query.noise_sd)

    def close(self, query: PlannedQuery, local: Floats | None = None, bound: float | None = None) -> Words:
        """Step ``close``: return own share + own noise + masks: uint64, flat, ``query.size``.

        The caller has called ``check_ready`` and has written the spend to its ledger *before*
        this call. If the process dies after the spend, the query counts as spent and nothing was
        released.

        Args:
            query: from the plan.
            local: own clipped sum, for LOCAL queries: ``query.size`` numbers.
            bound: as in ``check_ready``.
        """
        self.check_ready(query, bound)
        side, bits = self._side(query), fraction_bits(query)
        total = self._local(query, local) if query.kind == "LOCAL" else self._own_part(query)
        self._mark(query, "close")
        scale = share_scale(query.sigma, len(side.parties)) * 2.0**bits
        noise = self._noise.draw(scale, query.size).astype(np.int64, copy=False).view(np.uint64)
        return total + noise + self._mask(query)

    def keep(self, query: PlannedQuery) -> Words:
        """Step ``close`` for a sum that this party opens itself: own share + masks, without noise, never to be sent.

        The others' shares alone are uniform; with this one the sum carries the others' noise only, which is what protects
        their persons from this party.
        """
        self.check_ready(query)
        total = self._own_part(query)
        self._mark(query, "close")
        return total + self._mask(query)

    # --- inside -----------------------------------------------------------------------------

    def _own_part(self, query: PlannedQuery) -> Words:
        if query.kind == "TRILINEAR":
            return share_of_sum(self, self.party, query, self._trustee)
        total = np.zeros(query.size, dtype=np.uint64)
        for peer in self._peers(query):
            total = total + self._share_of(query, peer).ravel()
        return total

    def _mask(self, query: PlannedQuery) -> Words:
        run, number = self._attempt.run, self._attempt.number
        return self._keys.mask(run, query.id, number, query.size, query.participants)

    def _local(self, query: PlannedQuery, local: Floats | None) -> Words:
        if local is None or np.size(local) != query.size:
            raise ShapeMismatch(f"query {query.id} needs {query.size} numbers.", party=self.party)
        flat = np.asarray(local, dtype=np.float64).ravel()
        words = encode(flat, LOCAL_BITS)
        largest = float(np.abs(flat).max()) if flat.size else 0.0
        check_headroom(len(query.participants), largest, LOCAL_BITS, query.noise_sd)
        return words

    def _share_of(self, query: PlannedQuery, peer: str) -> Words:
        pair = self._pairs[peer]
        if self._holds_matrix(query):
            opened = self._take(peer, f"open.{query.id}") if query.kind == "WEIGHTED" else None
            return pair.matrix_share(query, opened, self._take(peer, f"share.{query.id}"))
        return pair.vector_share(query, self._take(self._trustee, f"deal.{query.id}.{peer}"))

    def _products(self, query: PlannedQuery) -> dict[str, Words]:
        """Return p_Q per peer; the deal stays in the inbox, ``close`` needs its second part."""
        deals = {p: (self._trustee, f"deal.{query.id}.{p}") for p in self._peers(query)}
        for peer, key in deals.items():
            for sender, tag in (key, (peer, f"open.{query.id}")):
                if (sender, tag) not in self._inbox:
                    raise MessageMissing(f"{tag} has not arrived.", party=sender)
        return {
            peer: self._pairs[peer].product_share(query, self._take(peer, f"open.{query.id}"), self._inbox[key])
            for peer, key in deals.items()
        }

    def _needed(self, query: PlannedQuery, peer: str, holds_matrix: bool) -> list[tuple[str, str]]:
        if not holds_matrix:
            return [(self._trustee, f"deal.{query.id}.{peer}")]
        steps = ("open", "share") if query.kind == "WEIGHTED" else ("share",)
        return [(peer, f"{step}.{query.id}") for step in steps]

    def _all_needed(self, query: PlannedQuery) -> list[tuple[str, bool, str, str]]:
        """Return pair, whether own matrix is asked, sender and tag of everything that ``close`` needs."""
        holds = self._holds_matrix(query)
        if query.kind == "TRILINEAR":
            return [(name, holds, sender, tag) for name, sender, tag in needed(self.party, query, self._trustee)]
        return [
            (peer, holds, sender, tag)
            for peer in self._peers(query)
            for sender, tag in self._needed(query, peer, holds)
        ]

    def _row_pairs(self, query: PlannedQuery) -> set[str]:
        """Return the pairs whose rows a query sums, each person once."""
        if query.kind != "TRILINEAR":
            return set(self._peers(query))
        mine = [t for t in triples_of(query) if self.party in t.parties]
        if self.party in query.matrix.parties:
            return {t.factor for t in mine}
        return {t.matrix if self.party == t.factor else at(t.matrix, t.factor) for t in mine}

    def _encode(self, query: PlannedQuery, values: Mapping[str, Floats], cap: float) -> dict[str, Words]:
        peers = self._peers(query)
        if set(values) != set(peers):
            raise ShapeMismatch(f"query {query.id} needs one vector per peer.", party=self.party)
        return {p: self._pairs[p].encode_vector(query, values[p], cap) for p in peers}

    def _step(self, query: PlannedQuery, step: str) -> None:
        """Refuse a step that is taken twice, out of turn, or for another query of the same id."""
        steps = self._steps_of(query)
        if step not in steps:
            raise MessageUnexpected(f"a {query.kind} query has no step {step}.", party=self.party)
        before, last = self._done.get(query.id, (query, ""))
        done = steps.index(last) + 1 if last else 0
        if before != query or steps.index(step) < done:
            raise TagReused(f"step {step} of query {query.id} was taken before.", party=self.party)
        if steps.index(step) > done:
            raise MessageMissing(f"step {steps[done]} of query {query.id} comes first.", party=self.party)

    def _steps_of(self, query: PlannedQuery) -> tuple[str, ...]:
        return _STEPS[query.kind]

    def _mark(self, query: PlannedQuery, step: str) -> None:
        self._done[query.id] = (query, step)

    def _side(self, query: PlannedQuery) -> Side:
        for side in query.sides:
            if self.party in side.parties:
                return side
        raise MessageUnexpected(f"{self.party} takes no part in query {query.id}.", party=self.party)

    def _holds_matrix(self, query: PlannedQuery) -> bool:
        self._side(query)
        return self.party in query.matrix.parties

    def _peers(self, query: PlannedQuery) -> tuple[str, ...]:
        others = vector_side(query) if self._holds_matrix(query) else query.matrix.parties
        for peer in others:
            self._pair(peer)
        return others

    def _pair(self, peer: str) -> Pair:
        if peer not in self._pairs:
            raise MessageUnexpected(f"{peer} is no peer of this session.", party=peer)
        return self._pairs[peer]

    def _peek(self, sender: str, tag: str) -> bytes:
        if (sender, tag) not in self._inbox:
            raise MessageMissing(f"{tag} has not arrived.", party=sender)
        return self._inbox[sender, tag]

    def _take(self, sender: str, tag: str) -> bytes:
        self._peek(sender, tag)
        return self._inbox.pop((sender, tag))

    def _blob(self, party: str, tag: str, plain: bytes) -> dict[str, bytes]:
        aad = self._attempt.aad(tag, self.party, party)
        return {to_party(party, tag): self._keys.seal(party, aad, plain)}
