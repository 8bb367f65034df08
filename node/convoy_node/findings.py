"""What ``convoy-node doctor`` can find, and what to do about it: code -> sentence and fix, in English and Chinese.

Plain values; codes never change their meaning. Placeholders are filled with short facts, never with a row value or a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from convoy_node.errors import NodeError


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: what is wrong and what to do, in both languages."""

    code: str
    cause: str
    fix: str
    cause_zh: str
    fix_zh: str

    @property
    def text(self) -> str:
        """Both sentences, in English."""
        return f"{self.cause} {self.fix}"

    @property
    def text_zh(self) -> str:
        """Both sentences, in Chinese."""
        return f"{self.cause_zh}{self.fix_zh}"


def found(code: str, **facts: object) -> Finding:
    """Return a finding of the catalogue."""
    return Finding(code, *(text.format(**facts) for text in CATALOGUE[code]))


def of_error(error: NodeError) -> tuple[Finding, ...]:
    """Return an error of this package as findings: itself, then each of its reasons."""
    first = Finding(error.code, error.cause, error.fix, f"{error.code}：{error.cause}", error.fix_zh)
    return (first, *(found("REASON", what=reason) for reason in error.reasons))


CATALOGUE: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "REASON": ("{what}", "", "{what}", ""),
    "FILE_UNREADABLE": (
        "a file cannot be read ({why}).", "See the file's owner and the disk.",
        "文件无法读取（{why}）。", "请检查文件所有者与磁盘。",
    ),
    "FOLDER_MISSING": (
        "there is no folder {folder!r}.", "Name the node's folder with --home.",
        "没有文件夹 {folder!r}。", "请用 --home 指定节点文件夹。",
    ),
    "FOLDER_OPEN": (
        "others can look into the node's folder.", "Run: chmod 700 on it.",
        "其他用户可以查看节点文件夹。", "请对其执行 chmod 700。",
    ),
    "DISK_FULL": (
        "less than {megabytes} MB are free.", "Free some: a node that cannot write its ledger answers nothing.",
        "可用磁盘空间不足 {megabytes} MB。", "请释放空间：无法写入账本的节点不会作答。",
    ),
    "RANDOMNESS_REPEATS": (
        "the system's randomness repeats.", "Do not run a node here.",
        "系统随机数重复。", "请勿在此机器上运行节点。",
    ),
    "RANDOMNESS_NOT_READY": (
        "the system's randomness is not ready yet.", "Wait until the machine has booted; give a virtual machine virtio-rng.",
        "系统随机数尚未就绪。", "请等待系统启动完成；虚拟机请启用 virtio-rng。",
    ),
    "OWN_KEY_NOT_PINNED": (
        "pins.toml does not hold this node's own key.", "Add it from card.json.",
        "pins.toml 中没有本节点自己的密钥。", "请从 card.json 添加。",
    ),
    "OWN_KEY_EXPIRED": (
        "this node's identity key has expired.", "Run: convoy-node rotate; or make a new one and enrol it.",
        "本节点的身份密钥已过期。", "请运行 convoy-node rotate，或生成新密钥并登记。",
    ),
    "LOG_CAUGHT": (
        "the log was caught ({finding}).", "Keep the folder witness/alarms and call the auditor.",
        "日志被查出问题（{finding}）。", "请保留 witness/alarms 文件夹并联系审计方。",
    ),
    "PARTNER_NOT_PINNED": (
        "no key is pinned for {party}.", "Compare its fingerprint and run: convoy-node pin CARD.",
        "尚未信任 {party} 的密钥。", "请核对其指纹后运行 convoy-node pin CARD。",
    ),
    "CONTRACT_ENDED": (
        "it ended at {at}.", "Agree a new version.",
        "合约已于 {at} 结束。", "请商定新版本。",
    ),
    "DATA_NOT_NAMED": (
        "node.toml names no data.", "Set data.source.",
        "node.toml 未指定数据。", "请设置 data.source。",
    ),
    "FIELD_NOT_IN_DATA": (
        "the data have no column {field}, which node.toml names.", "Name it in a mapping (convoy-node data map), or correct node.toml.",
        "数据中没有 node.toml 所列的列 {field}。", "请在映射中指定（convoy-node data map），或更正 node.toml。",
    ),
    "NOBODY_CONSENTS": (
        "nobody's consent counts under it.", "Run: convoy-node consent import FILE.",
        "该合约下没有有效的同意。", "请运行 convoy-node consent import FILE。",
    ),
    "PYTHON_OLD": (
        "Python {version} is too old.", "Install Python 3.11 or newer.",
        "Python {version} 版本过低。", "请安装 Python 3.11 或更高版本。",
    ),
    "PACKAGE_WRONG": (
        "{package} {version} is installed, {wanted} is needed.", "Install with constraints.txt of this release.",
        "已安装 {package} {version}，需要 {wanted}。", "请按本版本的 constraints.txt 安装。",
    ),
    "PROXY_MALFORMED": (
        "the proxy {proxy!r} is no http://host:port.", "Correct HTTPS_PROXY, or join with --proxy http://host:port.",
        "代理 {proxy!r} 不是 http://host:port 形式。", "请更正 HTTPS_PROXY，或以 --proxy http://host:port 加入。",
    ),
    "PROXY_UNREACHABLE": (
        "the proxy {proxy} does not answer ({why}).", "Correct its address, or have the network team allow it.",
        "代理 {proxy} 无响应（{why}）。", "请更正地址，或请网络团队放行。",
    ),
    "PROXY_REFUSES": (
        "the proxy {proxy} does not let this node through to {at} ({why}).",
        "Have the network team allow CONNECT to {at}, without TLS inspection.",
        "代理 {proxy} 不允许连接 {at}（{why}）。", "请网络团队放行到 {at} 的 CONNECT，且不做 TLS 解密。",
    ),
    "UNREACHABLE": (
        "{at} does not answer ({why}).", "Allow outgoing TCP to it in the firewall, or set a proxy; ask the coordinator whether it is up.",
        "{at} 无响应（{why}）。", "请在防火墙放行出站 TCP 或设置代理；并向协调方确认其是否在线。",
    ),
    "TLS_INTERCEPTED": (
        "whoever answers at {at} has no certificate of the ticket's CA ({why}).",
        "Have TLS inspection switched off for {at}; if there is none, call the coordinator's administrator.",
        "{at} 的应答者没有邀请票据所载 CA 的证书（{why}）。", "请对 {at} 关闭 TLS 解密；若没有，请致电协调方管理员。",
    ),
    "TLS_FAILED": (
        "TLS with {at} fails ({why}).", "Check that nothing between changes the connection; TLS 1.3 is needed.",
        "与 {at} 的 TLS 握手失败（{why}）。", "请检查中间设备是否改动连接；需要 TLS 1.3。",
    ),
    "CERTIFICATE_MISSING": (
        "the node has no certificate yet.", "Have the administrator approve its fingerprint; convoy-node up fetches it.",
        "本节点尚无证书。", "请管理员核准其指纹；convoy-node up 会取回证书。",
    ),
    "CERTIFICATE_OVER": (
        "the certificate ended {days} days ago.", "Ask for a new ticket and run: convoy-node join TICKET --recover.",
        "证书已过期 {days} 天。", "请索取新票据并运行 convoy-node join TICKET --recover。",
    ),
    "CERTIFICATE_OLD": (
        "the certificate ends in {days} days and was not renewed.", "Run convoy-node up: it renews by itself.",
        "证书将在 {days} 天后到期且未更新。", "请运行 convoy-node up，它会自动更新。",
    ),
    "CLOCK_WRONG": (
        "this machine's clock is {seconds} s {way} the coordinator's.", "Switch on NTP (timedatectl set-ntp true).",
        "本机时钟比协调方{way_zh} {seconds} 秒。", "请启用 NTP（timedatectl set-ntp true）。",
    ),
    "APP_NOT_APPROVED": (
        "the coordinator runs an app bundle that no contract of this node names ({app}).",
        "Upgrade the older side, or agree a contract that names it.",
        "协调方运行的应用包未被本节点任何合约列明（{app}）。", "请升级较旧一方，或商定列明该应用包的合约。",
    ),
}  # fmt: skip
