"""Listen on an address of this machine, for the local API, the figures and the witness; every refusal says which part does not fit."""

from __future__ import annotations

import errno
import socket
from typing import Final

from convoy_node.errors import NodeError

MAX_PORT: Final = 65_535


def listen(host: str, port: int, backlog: int = 64) -> socket.socket:
    """Return a socket that accepts connections.

    Args:
        host: name or IPv4 address of this machine.
        port: 0 chooses a free one.
        backlog: connections that may wait.

    Raises:
        NodeError: PORT_TAKEN, or INPUT_INVALID for a port or an address that this machine does not have.
    """
    if not 0 <= port <= MAX_PORT:
        raise NodeError(
            f"there is no port {port}.",
            code="INPUT_INVALID",
            fix=f"Choose one of 1 to {MAX_PORT} with --port, or 0 for a free one.",
            fix_zh=f"请用 --port 选择 1 至 {MAX_PORT} 的端口；0 表示任选空闲端口。",
        )
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise _refused(error, host, port) from error
    return listener


def _refused(error: OSError | UnicodeError, host: str, port: int) -> NodeError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return NodeError(f"port {port} of this machine is taken.", code="PORT_TAKEN")
    if number in (errno.EACCES, errno.EPERM):
        return NodeError(
            f"this user may not listen on port {port}.",
            code="INPUT_INVALID",
            fix="Choose a port above 1023 with --port.",
            fix_zh="请用 --port 选择大于 1023 的端口。",
        )
    return NodeError(
        f"{host[:60]!r} is no address of this machine.",
        code="INPUT_INVALID",
        fix="Name one with --host: 127.0.0.1 for this machine only, 0.0.0.0 for every address of it.",
        fix_zh="请用 --host 指定本机地址：127.0.0.1 仅限本机，0.0.0.0 表示全部地址。",
    )
