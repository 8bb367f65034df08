"""A partner's side of a contract's life: one process, its own folder, its own private keys; only the CLI and HTTP.

    python contract_partner.py FOLDER COORDINATOR_URL PARTY...

Makes an identity key for each party it stands for (PEM, 0600), prints their public cards, then carries out one JSON command a
line from standard input and answers with one JSON line. It reads no file outside its folder but those a command names.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typed import typed

from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_contracts.cli import main as convoy_contracts

Json = dict[str, Any]


class Partner:
    """The process's own state: folder, address of the coordinator, keys."""

    def __init__(self, folder: Path, url: str, parties: list[str]) -> None:
        self.folder = folder
        self.url = url
        folder.mkdir(mode=0o700, parents=True)
        self.cards = {party: self._found(party) for party in parties}

    def key_file(self, party: str) -> Path:
        """Return where a party's private key lies."""
        return self.folder / f"{party.rpartition(':')[2]}.pem"

    def _found(self, party: str) -> Json:
        identity, mask = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        pem = identity.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.key_file(party)
        path.touch(mode=0o600)
        path.write_bytes(pem)
        witness = Signer.from_seed(party.removeprefix("did:web:"), SignatureType.COSIGNATURE_ED25519, os.urandom(32))
        supernode = generate_ec(SECP384R1()).public_key()
        return {
            "id": party,
            "identityKey": _b64(identity.public_key().public_bytes_raw()),
            "maskKey": _b64(mask.public_key().public_bytes_raw()),
            "witnessKey": witness.vkey,
            "supernodeKey": supernode.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        }

    def signer(self, party: str) -> list[str]:
        """Return the options with which the CLI signs as a party."""
        return ["--party", party, "--kid", f"{party}#1", "--key", str(self.key_file(party))]

    def cli(self, *arguments: str) -> Json:
        """Type ``convoy-contracts`` in the partner's folder."""
        with contextlib.chdir(self.folder):
            done = typed(convoy_contracts, *arguments)
        return {"rc": done.returncode, "out": done.stdout, "err": done.stderr}

    def http(self, method: str, path: str, body: Any = None, headers: Json | None = None) -> Json:
        """Send one request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data, {"Content-Type": "application/json", **(headers or {})}
        )
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return {"status": answer.status, "json": json.loads(answer.read())}
        except urllib.error.HTTPError as error:
            return {"status": error.code, "json": json.loads(error.read())}

    def offer(self, party: str, document: str) -> Json:
        """Sign an offer and make it."""
        made = self.cli("offer", document, *self.signer(party))
        return made if made["rc"] else self.http("POST", "/v1/contracts", json.loads(made["out"]))

    def sign(self, party: str, digest: str) -> Json:
        """Fetch a contract, sign it, send the signature."""
        text = self.http("GET", f"/v1/contracts/{digest}")["json"]["text"]
        path = self.folder / "contract.json"
        path.write_text(text, encoding="utf-8")
        made = self.cli("sign", str(path), *self.signer(party))
        if made["rc"]:
            return made
        return self.http("POST", f"/v1/contracts/{digest}/signatures", {"entry": json.loads(made["out"])})

    def event(self, party: str, uid: str, kind: str, options: list[str], if_match: str | None = None) -> Json:
        """Read the chain, make an event after its head, send it."""
        chain = self.http("GET", f"/v1/contracts/{uid}/events")["json"]
        made = self.cli(
            "event", "--uid", uid, "--seq", str(chain["nextSeq"]), "--prev", chain["head"], "--type", kind, *options,
            *self.signer(party),
        )  # fmt: skip
        if made["rc"]:
            return made
        return self._post(uid, json.loads(made["out"]), if_match or chain["head"])

    def cosign(self, party: str, uid: str) -> Json:
        """Sign the oldest event that waits for signatures."""
        chain = self.http("GET", f"/v1/contracts/{uid}/events")["json"]
        path = self.folder / "waiting.json"
        path.write_text(json.dumps(chain["waiting"][0]), encoding="utf-8")
        made = self.cli("event", "--cosign", str(path), *self.signer(party))
        return made if made["rc"] else self._post(uid, json.loads(made["out"]), chain["head"])

    def again(self, uid: str) -> Json:
        """Send the last accepted event of the chain once more, with an old head."""
        chain = self.http("GET", f"/v1/contracts/{uid}/events")["json"]
        last = chain["events"][-1]
        event = {name: value for name, value in last.items() if name != "proof"}
        return self._post(uid, {"event": event, "proof": last["proof"]}, event["prev"])

    def catalogue(self, party: str, file: str, path: str) -> Json:
        """Sign a catalogue entry or a tier grant and send it."""
        made = self.cli("catalogue", "sign", file, *self.signer(party))
        return made if made["rc"] else self.http("POST", path, json.loads(made["out"]))

    def _post(self, uid: str, body: Json, head: str) -> Json:
        return self.http("POST", f"/v1/contracts/{uid}/events", body, {"If-Match": f'"{head}"'})


def _b64(key: bytes) -> str:
    return urlsafe_b64encode(key).decode().rstrip("=")


def main() -> None:
    """Serve standard input."""
    partner = Partner(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    print(json.dumps(list(partner.cards.values())), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        act = getattr(partner, command.pop("do"))
        print(json.dumps(act(*command.pop("with", ()), **command)), flush=True)


if __name__ == "__main__":
    main()
