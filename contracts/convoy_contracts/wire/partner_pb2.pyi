from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("ticket", "protocols")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    ticket: str
    protocols: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ticket: _Optional[str] = ..., protocols: _Optional[_Iterable[int]] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("federation", "protocol", "time", "log_keys", "software")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    LOG_KEYS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    federation: str
    protocol: int
    time: str
    log_keys: _containers.RepeatedScalarFieldContainer[str]
    software: str
    def __init__(self, federation: _Optional[str] = ..., protocol: _Optional[int] = ..., time: _Optional[str] = ..., log_keys: _Optional[_Iterable[str]] = ..., software: _Optional[str] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("ticket", "secret", "card", "csr", "proof")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    ticket: str
    secret: str
    card: bytes
    csr: bytes
    proof: bytes
    def __init__(self, ticket: _Optional[str] = ..., secret: _Optional[str] = ..., card: _Optional[bytes] = ..., csr: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("state", "fingerprint", "certificate", "endpoints")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[EnrolReply.State]
        PENDING: _ClassVar[EnrolReply.State]
        APPROVED: _ClassVar[EnrolReply.State]
    STATE_UNSPECIFIED: EnrolReply.State
    PENDING: EnrolReply.State
    APPROVED: EnrolReply.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    state: EnrolReply.State
    fingerprint: str
    certificate: bytes
    endpoints: Endpoints
    def __init__(self, state: _Optional[_Union[EnrolReply.State, str]] = ..., fingerprint: _Optional[str] = ..., certificate: _Optional[bytes] = ..., endpoints: _Optional[_Union[Endpoints, _Mapping]] = ...) -> None: ...

class Endpoints(_message.Message):
    __slots__ = ("channel", "link", "link_ca", "app_hashes")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    LINK_CA_FIELD_NUMBER: _ClassVar[int]
    APP_HASHES_FIELD_NUMBER: _ClassVar[int]
    channel: str
    link: str
    link_ca: bytes
    app_hashes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, channel: _Optional[str] = ..., link: _Optional[str] = ..., link_ca: _Optional[bytes] = ..., app_hashes: _Optional[_Iterable[str]] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("protocols", "role", "software")
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocols: _containers.RepeatedScalarFieldContainer[int]
    role: str
    software: str
    def __init__(self, protocols: _Optional[_Iterable[int]] = ..., role: _Optional[str] = ..., software: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol", "party", "role", "time", "certificate_not_after", "endpoints", "last_statement", "software", "authority")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    LAST_STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    party: str
    role: str
    time: str
    certificate_not_after: str
    endpoints: Endpoints
    last_statement: int
    software: str
    authority: bytes
    def __init__(self, protocol: _Optional[int] = ..., party: _Optional[str] = ..., role: _Optional[str] = ..., time: _Optional[str] = ..., certificate_not_after: _Optional[str] = ..., endpoints: _Optional[_Union[Endpoints, _Mapping]] = ..., last_statement: _Optional[int] = ..., software: _Optional[str] = ..., authority: _Optional[bytes] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class PartnerEvent(_message.Message):
    __slots__ = ("kind", "index", "entry", "size", "time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[PartnerEvent.Kind]
        HEARTBEAT: _ClassVar[PartnerEvent.Kind]
        LOG_ENTRY: _ClassVar[PartnerEvent.Kind]
        CHECKPOINT: _ClassVar[PartnerEvent.Kind]
    KIND_UNSPECIFIED: PartnerEvent.Kind
    HEARTBEAT: PartnerEvent.Kind
    LOG_ENTRY: PartnerEvent.Kind
    CHECKPOINT: PartnerEvent.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    kind: PartnerEvent.Kind
    index: int
    entry: bytes
    size: int
    time: str
    def __init__(self, kind: _Optional[_Union[PartnerEvent.Kind, str]] = ..., index: _Optional[int] = ..., entry: _Optional[bytes] = ..., size: _Optional[int] = ..., time: _Optional[str] = ...) -> None: ...

class StateRequest(_message.Message):
    __slots__ = ("statements",)
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    statements: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, statements: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StateReply(_message.Message):
    __slots__ = ("indexes",)
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    indexes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, indexes: _Optional[_Iterable[int]] = ...) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ("known_size",)
    KNOWN_SIZE_FIELD_NUMBER: _ClassVar[int]
    known_size: int
    def __init__(self, known_size: _Optional[int] = ...) -> None: ...

class CheckpointReply(_message.Message):
    __slots__ = ("note", "old_size", "proof")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    note: str
    old_size: int
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, note: _Optional[str] = ..., old_size: _Optional[int] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CosignRequest(_message.Message):
    __slots__ = ("note",)
    NOTE_FIELD_NUMBER: _ClassVar[int]
    note: str
    def __init__(self, note: _Optional[str] = ...) -> None: ...

class CosignReply(_message.Message):
    __slots__ = ("size", "cosigned", "needed", "quorum")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    size: int
    cosigned: int
    needed: int
    quorum: bool
    def __init__(self, size: _Optional[int] = ..., cosigned: _Optional[int] = ..., needed: _Optional[int] = ..., quorum: _Optional[bool] = ...) -> None: ...

class ContractsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ContractsReply(_message.Message):
    __slots__ = ("contracts",)
    CONTRACTS_FIELD_NUMBER: _ClassVar[int]
    contracts: _containers.RepeatedCompositeFieldContainer[ContractText]
    def __init__(self, contracts: _Optional[_Iterable[_Union[ContractText, _Mapping]]] = ...) -> None: ...

class ContractText(_message.Message):
    __slots__ = ("digest", "text", "state", "unsigned")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    text: str
    state: str
    unsigned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., text: _Optional[str] = ..., state: _Optional[str] = ..., unsigned: _Optional[_Iterable[str]] = ...) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("digest", "entry")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    digest: str
    entry: bytes
    def __init__(self, digest: _Optional[str] = ..., entry: _Optional[bytes] = ...) -> None: ...

class SignReply(_message.Message):
    __slots__ = ("digest", "unsigned")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    unsigned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., unsigned: _Optional[_Iterable[str]] = ...) -> None: ...

class ReleasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleasesReply(_message.Message):
    __slots__ = ("releases",)
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    releases: _containers.RepeatedCompositeFieldContainer[Release]
    def __init__(self, releases: _Optional[_Iterable[_Union[Release, _Mapping]]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("run", "manifest_digest", "files", "log_index")
    RUN_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    run: str
    manifest_digest: str
    files: _containers.RepeatedCompositeFieldContainer[ReleaseName]
    log_index: int
    def __init__(self, run: _Optional[str] = ..., manifest_digest: _Optional[str] = ..., files: _Optional[_Iterable[_Union[ReleaseName, _Mapping]]] = ..., log_index: _Optional[int] = ...) -> None: ...

class ReleaseName(_message.Message):
    __slots__ = ("name", "digest", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ReleaseFileRequest(_message.Message):
    __slots__ = ("run", "name")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    run: str
    name: str
    def __init__(self, run: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class RotateRequest(_message.Message):
    __slots__ = ("statement", "supernode_key", "supernode_proof", "identity_proof")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SUPERNODE_KEY_FIELD_NUMBER: _ClassVar[int]
    SUPERNODE_PROOF_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_PROOF_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    supernode_key: bytes
    supernode_proof: bytes
    identity_proof: bytes
    def __init__(self, statement: _Optional[bytes] = ..., supernode_key: _Optional[bytes] = ..., supernode_proof: _Optional[bytes] = ..., identity_proof: _Optional[bytes] = ...) -> None: ...

class RotateReply(_message.Message):
    __slots__ = ("index", "old_not_after")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OLD_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    index: int
    old_not_after: str
    def __init__(self, index: _Optional[int] = ..., old_not_after: _Optional[str] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("statements",)
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    statements: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, statements: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ("index", "time")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    index: int
    time: str
    def __init__(self, index: _Optional[int] = ..., time: _Optional[str] = ...) -> None: ...
