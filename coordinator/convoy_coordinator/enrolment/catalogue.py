"""The problems of joining, leaving and the partner channel: code -> status, title, title_zh, fix, fix_zh.

Plain values, so that ``problems`` can take them up; codes never change their meaning. Each has a page in
``docs/problems/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENTRIES: Final[Mapping[str, tuple[int, str, str, str, str]]] = {
    "TICKET_UNKNOWN": (
        403,
        "No such ticket was given out.",
        "没有签发过该邀请票据。",
        "Copy the whole ticket again; if it still fails, ask the coordinator's administrator for a new one.",
        "请重新完整复制票据；若仍失败，请向协调方管理员索取新票据。",
    ),
    "TICKET_EXPIRED": (
        403,
        "The ticket is too old or was withdrawn.",
        "票据已过期或已撤回。",
        "Ask the coordinator's administrator for a new ticket: convoy-coordinator invite.",
        "请向协调方管理员索取新票据：convoy-coordinator invite。",
    ),
    "TICKET_USED": (
        409,
        "The ticket was used already, by a node with other keys.",
        "该票据已被持有其他密钥的节点使用。",
        "If that was not you, somebody else has your ticket: tell the administrator by telephone to deny the request.",
        "若并非您本人操作，说明票据已泄露：请致电管理员拒绝该申请。",
    ),
    "ROLE_NOT_INVITED": (
        403,
        "The node claims another party or role than it was invited as.",
        "节点声称的身份或角色与邀请不符。",
        "Join with the party and role of the ticket, or ask for a ticket of the other role.",
        "请按票据所载身份与角色加入，或索取相应角色的票据。",
    ),
    "PROOF_REFUSED": (
        403,
        "The request is not signed by the identity key on its card.",
        "申请未由其名片上的身份密钥签名。",
        "Run convoy-node join again; never edit what it sends.",
        "请重新运行 convoy-node join；切勿改动其发送内容。",
    ),
    "CSR_REFUSED": (
        422,
        "The certificate request cannot be used.",
        "证书申请无法使用。",
        "Send a PKCS #10 request in DER for a P-256 key, signed with that key; convoy-node join does.",
        "请发送由 P-256 密钥自签的 DER 格式 PKCS #10 申请；convoy-node join 会自动生成。",
    ),
    "REQUEST_UNKNOWN": (
        404,
        "No enrolment request has this fingerprint.",
        "没有该指纹对应的加入申请。",
        "Have the partner read it again; convoy-coordinator requests lists what waits. Approve nothing that differs.",
        "请对方重新朗读指纹；convoy-coordinator requests 列出待批申请。指纹不符时不得批准。",
    ),
    "REQUEST_DENIED": (
        403,
        "The administrator denied this request.",
        "管理员已拒绝该申请。",
        "Call the administrator; a new ticket is needed to ask again.",
        "请联系管理员；再次申请需要新票据。",
    ),
    "CERTIFICATE_UNKNOWN": (
        401,
        "The certificate was not issued to an enrolled party.",
        "证书不属于任何已登记参与方。",
        "Connect with the certificate in the node's keys folder; convoy-node doctor checks it.",
        "请使用节点 keys 文件夹中的证书连接；可用 convoy-node doctor 检查。",
    ),
    "CERTIFICATE_EXPIRED": (
        401,
        "The certificate has ended.",
        "证书已过期。",
        "Ask the administrator for a new ticket and run convoy-node join TICKET --recover.",
        "请向管理员索取新票据并运行 convoy-node join TICKET --recover。",
    ),
    "CERTIFICATE_REVOKED": (
        401,
        "The certificate was revoked.",
        "证书已被吊销。",
        "Stop using this key. Ask the administrator why, and for a new ticket if you go on.",
        "请停止使用该密钥，向管理员了解原因；如需继续请索取新票据。",
    ),
    "PARTY_REVOKED": (
        403,
        "The party was shut out of the federation, or has left it.",
        "该参与方已被移出联盟或已退出。",
        "Ask the administrator why; convoy-coordinator invite with --party lets it in again, with new keys.",
        "请向管理员了解原因；管理员可用 convoy-coordinator invite --party 以新密钥重新接纳。",
    ),
    "ROLE_NOT_ENROLLED": (
        403,
        "The node claims another role than it is enrolled with.",
        "节点声称的角色与登记不符。",
        "Set the role in node.toml back to the enrolled one.",
        "请将 node.toml 中的角色恢复为登记的角色。",
    ),
    "STATEMENT_NOT_YOURS": (
        403,
        "A node brought a statement of another party.",
        "节点提交了其他参与方的声明。",
        "Send only statements that this node signed.",
        "仅可提交本节点签署的声明。",
    ),
    "STATEMENT_GAP": (
        409,
        "A statement was left out.",
        "声明序号不连续。",
        "Send the statements from the number in the cause on; convoy-node up does.",
        "请从原因中给出的序号起重新发送；convoy-node up 会自动处理。",
    ),
    "STATEMENT_FORKED": (
        409,
        "The party has stated two different things under one number.",
        "同一序号下出现两份不同声明。",
        "Stop the node: its memory (node.db) was restored or copied. Keep both and call the auditor.",
        "请停止节点：其记录（node.db）曾被恢复或复制。请保留两份并联系审计方。",
    ),
    "ROTATION_REFUSED": (
        422,
        "The new identity key is not signed by both keys.",
        "新身份密钥未由新旧密钥共同签名。",
        "Run convoy-node rotate again; if the old key is lost or stolen, have the administrator revoke the party first.",
        "请重新运行 convoy-node rotate；若旧密钥丢失或被盗，请先由管理员吊销该参与方。",
    ),
    "FINAL_STATEMENT_MISSING": (
        422,
        "Whoever leaves hands over a final statement.",
        "退出者须提交最终声明。",
        "Run convoy-node leave; it makes and signs one.",
        "请运行 convoy-node leave，它会生成并签署最终声明。",
    ),
    "PROTOCOL_UNSUPPORTED": (
        422,
        "The two sides speak no common version of the channel.",
        "双方没有共同支持的通道版本。",
        "Upgrade the older side; the cause lists the versions of both.",
        "请升级较旧的一方；原因中列出双方版本。",
    ),
    "DEADLINE_MISSING": (
        400,
        "A call without a deadline, or with one that is too far away.",
        "调用未设置截止时间或时限过长。",
        "Set a deadline of at most 60 seconds on every call but the stream of events.",
        "除事件流外，每次调用请设置不超过 60 秒的截止时间。",
    ),
    "MESSAGE_TOO_LARGE": (
        413,
        "The message is too large for the channel.",
        "消息超出通道上限。",
        "Send fewer statements at a time; no message of the channel needs more than 2 MiB.",
        "请减少单次发送的声明数量；通道消息无需超过 2 MiB。",
    ),
    "NOT_A_RECIPIENT": (
        403,
        "The release does not name this party as a recipient.",
        "该发布未将此参与方列为接收方。",
        "Only recipients that the contract lists may fetch a release.",
        "仅合约列出的接收方可获取发布。",
    ),
    "CHANNEL_OFF": (
        409,
        "The coordinator has no partner channel configured.",
        "协调方未配置参与方通道。",
        "Set channel_port and channel_name in coordinator.toml and start again.",
        "请在 coordinator.toml 中设置 channel_port 与 channel_name 后重新启动。",
    ),
    "INVITATION_REFUSED": (
        422,
        "This invitation cannot be made.",
        "无法签发该邀请。",
        "Correct the members that the errors name.",
        "请更正 errors 中列出的成员。",
    ),
}
