"""A relay in front of a port, as an HTTP proxy or as a bare wire: real sockets, and what was said on them."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager


class Tap:
    """A relay on a port of its own that keeps what each side said first; optionally it speaks CONNECT."""

    def __init__(self, port: int, *, is_proxy: bool = False, login: str = "") -> None:
        self._target = port
        self._login = f"Basic {b64encode(login.encode()).decode()}".encode() if login else b""
        self._is_proxy = is_proxy
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.from_server = b""
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop taking connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        port = self._target
        if self._is_proxy:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            method, target, _ = head.split(b" ", 2)
            assert method == b"CONNECT"
            if self._login and self._login not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                client.close()
                return
            self.asked.append(target.decode())
            port = int(target.rpartition(b":")[2])
            client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
        self._copy(server, client, True)

    def _copy(self, source: socket.socket, sink: socket.socket, is_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_server and len(self.from_server) < 4096:
                    self.from_server += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def tapped(port: int, *, is_proxy: bool = False, login: str = "") -> Iterator[Tap]:
    """Run a tap in front of a port; ``login`` is the ``name:password`` that a proxy asks for."""
    tap = Tap(port, is_proxy=is_proxy, login=login)
    try:
        yield tap
    finally:
        tap.close()
