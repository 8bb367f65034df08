"""Somebody in between: answers TLS on a port with a certificate of another CA."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from convoy_coordinator.enrolment.ca import Authority


@contextmanager
def stranger_at(folder: Path) -> Iterator[int]:
    """Run the stranger on a free port of ``localhost``."""
    keys = folder / "stranger"
    keys.mkdir()
    key, chain = Authority.open(keys, keys / "tls", "Stranger", datetime.now(UTC)).serve(
        ["localhost"], datetime.now(UTC)
    )
    pair = keys / "pair.pem"
    pair.write_bytes(key + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                context.wrap_socket(plain, server_side=True).close()
            plain.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
