"""The node's end of the partner channel: gRPC with mutual TLS, outwards only, through an HTTPS proxy where there is one.

    Line.enrolment(at, ca, proxy)              before the node has a certificate
    Line.partner(at, ca, key, certificate, proxy)
    .enrol.Describe(...)  .partner.Hello(...)  the stubs; ``ask`` calls one with a deadline and turns errors around

A refusal of the other side arrives as ``ChannelRefused`` with the other side's code, cause and fix. What TLS itself
refuses tells nothing, by design, so ``ask`` says what it means: the coordinator is not the one of the ticket, or this
node's certificate is not taken. The CA is the ticket's and no other is ever believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import grpc

from convoy_contracts.wire import partner_pb2_grpc
from convoy_contracts.wire.statuses import unpack
from convoy_node.errors import NodeError

DEADLINE_S: Final = 20.0
WIRE_LIMIT: Final = 4 * 1024 * 1024
_OPTIONS: Final[Mapping[str, int]] = {
    "grpc.max_receive_message_length": WIRE_LIMIT,
    "grpc.max_send_message_length": WIRE_LIMIT,
    "grpc.keepalive_time_ms": 15_000,
    "grpc.keepalive_timeout_ms": 8_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_reconnect_backoff_ms": 5_000,
    "grpc.initial_reconnect_backoff_ms": 300,
    "grpc.use_local_subchannel_pool": 1,
}


class ChannelRefused(NodeError):
    """The coordinator refused a call; code, cause and fix are its own."""

    code = "CHANNEL_REFUSED"


class ChannelUnreachable(NodeError):
    """The coordinator does not answer; nothing was sent or it can be sent again."""

    code = "COORDINATOR_UNREACHABLE"
    fix = (
        "Check address, proxy and firewall with convoy-node doctor; the node needs outgoing HTTPS only. "
        "It goes on trying by itself."
    )
    fix_zh = "请用 convoy-node doctor 检查地址、代理与防火墙；节点只需出站 HTTPS，并会自动重试。"


class CoordinatorUntrusted(NodeError):
    """Whoever answers is not the coordinator of the ticket, or signs with other keys."""

    code = "COORDINATOR_UNTRUSTED"
    fix = (
        "Send nothing more. Call the coordinator's administrator: either somebody is in between, or its keys were "
        "replaced, and then every partner needs a new ticket."
    )
    fix_zh = "请停止发送，并致电协调方管理员：要么有人中间截听，要么其密钥已更换，届时各方均需新票据。"


@dataclass(frozen=True, slots=True)
class Door:
    """Where to connect: ``at`` is host:port, ``ca`` PEM, ``proxy`` http://host:port or empty."""

    at: str
    ca: bytes
    proxy: str = ""


class Line:
    """One connection; reconnects by itself until it is closed."""

    def __init__(self, channel: grpc.Channel, party: str) -> None:
        self._channel = channel
        self._party = party
        self.enrol: Any = partner_pb2_grpc.EnrolmentStub(channel)  # type: ignore[no-untyped-call]
        self.partner: Any = partner_pb2_grpc.PartnerStub(channel)  # type: ignore[no-untyped-call]

    @classmethod
    def enrolment(cls, door: Door, party: str) -> Self:
        """Connect without a certificate of one's own."""
        return cls(_channel(door, grpc.ssl_channel_credentials(root_certificates=door.ca)), party)

    @classmethod
    def mutual(cls, door: Door, party: str, key: bytes, certificate: bytes) -> Self:
        """Connect as the party that the certificate names."""
        credentials = grpc.ssl_channel_credentials(
            root_certificates=door.ca, private_key=key, certificate_chain=certificate
        )
        return cls(_channel(door, credentials), party)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def ask(self, method: Callable[..., Any], request: Any, *, deadline_s: float = DEADLINE_S) -> Any:
        """Call one method.

        Raises:
            ChannelRefused: the coordinator said no.
            ChannelUnreachable: it did not answer in time.
            CoordinatorUntrusted: it is not the coordinator of the ticket.
        """
        try:
            return method(request, timeout=deadline_s)
        except grpc.RpcError as error:
            raise refusal(error, self._party) from None


def refusal(error: Any, party: str) -> NodeError:
    """Return a gRPC error as one of this package."""
    told = unpack([(str(name), value) for name, value in error.trailing_metadata() or ()])
    if told is not None:
        made = ChannelRefused(
            told.facts.get("cause", ""),
            party=told.facts.get("party") or party,
            fix=told.facts.get("fix_en", ""),
            code=told.code,
            reasons=told.faults,
        )
        made.fix_zh = told.facts.get("fix_zh", made.fix_zh)
        return made
    details, code = str(error.details() or ""), error.code()
    if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verification" in details:
        return CoordinatorUntrusted("whoever answers has no certificate of the ticket's CA.", party=party)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ChannelRefused("the message is larger than the channel takes.", party=party, code="MESSAGE_TOO_LARGE")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        if any(word in details.lower() for word in ("reset", "closed", "broken pipe", "alert", "eof")):
            return ChannelUnreachable(
                "the connection was ended by the other side; if this stays, it does not take this node's certificate.",
                party=party,
            )
        return ChannelUnreachable("the coordinator does not answer.", party=party)
    return ChannelRefused(f"the coordinator answered {code.name}.", party=party)


def is_proxy(text: str) -> bool:
    """Whether a text is the address of an HTTP proxy, http://host:port, with or without user and password."""
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port is not None
    except ValueError:  # a port that is no number, or brackets that do not close
        return False
    return is_whole and parts.scheme == "http" and parts.path in ("", "/") and not parts.query and not parts.fragment


def proxy_of(at: str, given: str = "") -> str:
    """Return the HTTP proxy to go through: the one given, or that of the environment, unless ``no_proxy`` names the host."""
    if given:
        return given
    host = urlsplit(f"//{at}").hostname or ""
    found = getproxies_environment()
    proxy = found.get("grpc") or found.get("https") or found.get("http") or ""
    return "" if not proxy or proxy_bypass_environment(host, found) else proxy


def _channel(door: Door, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    options: list[tuple[str, int | str]] = list(_OPTIONS.items())
    proxy = proxy_of(door.at, door.proxy)
    options.append(("grpc.http_proxy", proxy) if proxy else ("grpc.enable_http_proxy", 0))
    return grpc.secure_channel(door.at, credentials, options)
