"""Keys between two parties: sealed blobs, shared streams, and masks that cancel in the sum.

Each pair of parties derives one secret from their X25519 keys, which the signed contract pins,
and from the contract's digest: keys of one contract say nothing about another's. From it come,
under separate labels, a sealing key for each direction, streams, and masks. The coordinator holds
none of these and relays ciphertext.

Guarantees: a mask is uniform for everyone outside its pair, and the masks of all participants sum
to zero. Does not guarantee: freshness across restarts of a node. Whoever calls ``mask`` must
never repeat (run, query, attempt); ``sums.PartySession`` refuses a repetition in memory and the
node's ledger refuses it durably.

Source: pairwise masks of Bonawitz et al. 2017 (CCS), §4, without drop-out recovery: a missing
    party ends the attempt.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from convoy_models.errors import KeyUnknown, MessageUnexpected, SealBroken
from convoy_models.fixedpoint import Words
from convoy_models.streams import PROTOCOL, derive, expand, label

_NONCE = 12


class PairKeys:
    """One party's keys towards its peers under one contract.

    Args:
        party: own party id.
        private: own X25519 key, born on this machine.
        peers: raw 32-byte X25519 public keys by party id, as the signed contract pins them.
        contract_digest: ``sha256:...`` of the contract.
    """

    def __init__(
        self,
        party: str,
        private: X25519PrivateKey,
        peers: Mapping[str, bytes],
        contract_digest: str,
    ) -> None:
        self.party = party
        self.contract_digest = contract_digest
        self._private = private
        self._peers = {name: bytes(key) for name, key in peers.items() if name != party}
        self._secrets: dict[str, bytes] = {}

    @property
    def peers(self) -> frozenset[str]:
        """Parties with a pinned key."""
        return frozenset(self._peers)

    def seal(self, peer: str, aad: bytes, plain: bytes | memoryview) -> bytes:
        """Return ``plain`` sealed for ``peer`` in context ``aad`` (ChaCha20-Poly1305, RFC 8439)."""
        nonce = secrets.token_bytes(_NONCE)
        key = derive(self._secret(peer), "seal", self.party, peer)
        return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, aad)

    def unseal(self, peer: str, aad: bytes, blob: bytes) -> bytes:
        """Open a blob that ``peer`` sealed for this party in the same context.

        Raises:
            SealBroken: another key, another context, or any altered byte.
        """
        key = derive(self._secret(peer), "seal", peer, self.party)
        try:
            return ChaCha20Poly1305(key).decrypt(blob[:_NONCE], blob[_NONCE:], aad)
        except (InvalidTag, ValueError) as error:
            raise SealBroken("a sealed blob does not open in its context.", party=peer) from error

    def stream(self, peer: str, name: bytes, words: int, offset: int = 0) -> Words:
        """Return words of the stream shared with ``peer`` under a label of ``streams.label``."""
        return expand(self._stream_key(peer, name), words, offset)

    def mask(self, run: str, query: str, attempt: int, size: int, participants: Collection[str]) -> Words:
        """Return this party's mask; over all participants the masks sum to zero mod 2^64.

        With this party as the only participant there is nobody to hide among: the mask is zero,
        and only the noise protects what is opened.

        Raises:
            MessageUnexpected: this party is not among the participants.
            KeyUnknown: a participant without a pinned key.
        """
        names = sorted(set(participants))
        if self.party not in names:
            raise MessageUnexpected(f"{self.party} is not a participant of query {query}.", party=self.party)
        total = np.zeros(size, dtype=np.uint64)
        for peer in names:
            if peer != self.party:
                key = derive(self._secret(peer), "mask", run, query, attempt, size, *names)
                pad = expand(key, size)
                total = total + pad if self.party < peer else total - pad
        return total

    def _stream_key(self, peer: str, name: bytes) -> bytes:
        return derive(self._secret(peer), "stream", name.hex())

    def _secret(self, peer: str) -> bytes:
        """Return the pair secret: HKDF over X25519, bound to contract, both names and keys."""
        if peer not in self._secrets:
            if peer not in self._peers:
                raise KeyUnknown(f"no mask key is pinned for {peer}.", party=peer)
            own = self._private.public_key().public_bytes_raw()
            try:
                public = X25519PublicKey.from_public_bytes(self._peers[peer])
                shared = self._private.exchange(public)
            except ValueError as error:
                raise KeyUnknown(f"the pinned mask key of {peer} is not usable.", party=peer) from error
            ends = sorted([(self.party, own.hex()), (peer, self._peers[peer].hex())])
            info = label(PROTOCOL, "pair", *(text for end in ends for text in end))
            kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=self.contract_digest.encode(), info=info)
            self._secrets[peer] = kdf.derive(shared)
        return self._secrets[peer]
