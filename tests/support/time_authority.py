"""A time-stamping authority of our own, run by OpenSSL, and an HTTP server that speaks for it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TSA = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ext]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
"""


class TimeAuthority:
    """Keys and certificates in a folder; ``root`` is the certificate that an auditor trusts.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        assert shutil.which("openssl"), "install openssl"
        self.folder = folder
        (folder / "tsa.cnf").write_text(TSA.format(folder=folder))
        (folder / "serial").write_text("01\n")
        for name in ("root", "tsa"):
            self.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", f"{name}.key")
        self.openssl("req", "-x509", "-new", "-key", "root.key", "-subj", "/CN=Test TSA root", "-days", "3650",
                     "-out", "root.pem", "-config", "tsa.cnf", "-extensions", "root")  # fmt: skip
        self.openssl("req", "-new", "-key", "tsa.key", "-subj", "/CN=Test TSA", "-out", "tsa.csr", "-config", "tsa.cnf")
        self.openssl("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "2",
                     "-days", "3650", "-extfile", "tsa.cnf", "-extensions", "ext", "-out", "tsa.pem")  # fmt: skip

    @property
    def root(self) -> bytes:
        """The root certificate, PEM."""
        return (self.folder / "root.pem").read_bytes()

    def openssl(self, *arguments: str) -> None:
        """Run OpenSSL in the folder."""
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def reply(self, query: bytes) -> bytes:
        """Answer a request."""
        (self.folder / "request.tsq").write_bytes(query)
        self.openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "request.tsq", "-out", "reply.tsr")
        return (self.folder / "reply.tsr").read_bytes()


class Listening:
    """How the server answers: with ``status``, and with ``spoil`` instead of the authority's answer if it is set."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.spoil: bytes | None = None
        self.asked = 0


@contextmanager
def listening(authority: TimeAuthority) -> Iterator[Listening]:
    """Serve an authority over HTTP on the loopback."""
    state = Listening("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer a request for a stamp."""
            assert self.headers["Content-Type"] == "application/timestamp-query"
            state.asked += 1
            content = authority.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(content if state.spoil is None else state.spoil)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/tsa"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
