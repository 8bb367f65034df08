"""Where the coordinator keeps its things and where it listens.

Settings come, later ones first, from: arguments of the call, the environment
(``CONVOY_COORDINATOR_…``), and ``coordinator.toml`` in the home folder, which ``init`` writes. No
setting holds a secret: tokens and private keys are files (0600) in ``keys/``, and a database URL
with a password is read from ``database_url_file`` or the environment, so nothing secret shows in
a process list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from convoy_audit.retention import FLOOR_DAYS
from convoy_coordinator.errors import SetupError

SETTINGS_FILE = "coordinator.toml"
MEGABYTE = 1024 * 1024


class Settings(BaseSettings):
    """The coordinator's settings; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="CONVOY_COORDINATOR_", extra="forbid", frozen=True)

    home: Path = Field(description="Folder of keys, releases, the SQLite database and coordinator.toml.")
    name: str = Field(
        default="Convoy",
        min_length=1,
        max_length=80,
        description="Name of the federation on the page.",
    )
    origin: str = Field(
        default="convoy.example/log",
        pattern=r"^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)+$",
        description="Origin line of the log; never changes once a checkpoint is signed.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="SQLAlchemy URL; default is SQLite in the home folder.",
    )
    database_url_file: Path | None = Field(default=None, description="File (0600) that holds the database URL.")
    max_body_bytes: int = Field(default=2 * MEGABYTE, ge=1024, description="Largest request body, in bytes.")
    max_release_bytes: int = Field(
        default=256 * MEGABYTE, ge=1024, description="Largest body of a release upload, in bytes."
    )
    log_deadline_s: float = Field(
        default=2.0, gt=0, le=30, description="Seconds after which an append that was not answered counts as refused."
    )
    checkpoint_interval_s: float = Field(
        default=1.0, gt=0, le=60, description="Seconds between two checkpoints while entries come in."
    )
    retention_logs_days: int = Field(
        default=FLOOR_DAYS["log"],
        ge=FLOOR_DAYS["log"],
        description="Days that mere log entries are kept; at least six months.",
    )
    retention_decisions_days: int = Field(
        default=FLOOR_DAYS["decision"],
        ge=FLOOR_DAYS["decision"],
        description="Days that decisions, assessments and contracts are kept; at least three years.",
    )
    archive_folder: Path | None = Field(
        default=None, description="Folder of sealed tiles, written once a day; default is archive/ in the home."
    )
    tsa_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of a time-stamping authority (RFC 3161), asked once a day; none is asked if not given.",
    )
    tsa_root_file: Path | None = Field(
        default=None,
        description="File with the authority's root certificates, PEM; its answers are verified with them.",
    )
    channel_port: int | None = Field(
        default=None, ge=0, le=65534, description="Port of the partner channel (mutual TLS); none leaves it off."
    )
    enrolment_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port where nodes with a ticket ask; the channel's port plus one."
    )
    channel_host: str = Field(default="127.0.0.1", description="Address that the channel's two ports listen on.")
    channel_name: str = Field(
        default="localhost",
        pattern=r"^[A-Za-z0-9.:-]{1,253}$",
        description="DNS name or address under which partners reach the channel; stands in certificates and tickets.",
    )
    link_home: Path | None = Field(
        default=None, description="Folder of the SuperLink; then its membership follows the parties."
    )
    link_address: str | None = Field(
        default=None, description="host:port at which partners reach the SuperLink; what it says itself if not given."
    )
    run_lease_s: int = Field(
        default=30,
        ge=10,
        description="Seconds without a sign of life after which a claimed run counts as failed.",
    )

    @field_validator("home", mode="after")
    @classmethod
    def _home_is_absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @property
    def url(self) -> str:
        """The database URL in force, in SQLAlchemy's spelling with the psycopg driver named."""
        text = self.database_url
        if text is None and self.database_url_file is not None:
            text = self.database_url_file.read_text(encoding="utf-8").strip()
        if text is None:
            return f"sqlite:///{self.home / 'coordinator.db'}"
        for spelling in ("postgresql://", "postgres://"):
            if text.startswith(spelling):
                return "postgresql+psycopg://" + text.removeprefix(spelling)
        return text

    @property
    def keys_folder(self) -> Path:
        """Private keys and tokens, each 0600."""
        return self.home / "keys"

    @property
    def tls_folder(self) -> Path:
        """Public certificates: the CA's."""
        return self.home / "tls"

    @property
    def archive(self) -> Path:
        """Sealed tiles and bundles of the log."""
        return self.archive_folder or self.home / "archive"

    @property
    def stamps_folder(self) -> Path:
        """Time-stamps of checkpoints."""
        return self.home / "timestamps"

    @property
    def enrolment_at(self) -> str | None:
        """host:port of the enrolment listener as tickets name it; None while the channel is off."""
        if self.channel_port is None:
            return None
        port = self.channel_port + 1 if self.enrolment_port is None else self.enrolment_port
        return f"{self.channel_name}:{port}"

    @property
    def releases_folder(self) -> Path:
        """One folder per released run."""
        return self.home / "releases"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the home's ``coordinator.toml`` behind arguments and environment."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        home = init_settings().get("home") or env_settings().get("home")
        if home is not None and (file := Path(home).expanduser() / SETTINGS_FILE).is_file():
            sources += (TomlConfigSettingsSource(settings_cls, toml_file=file),)
        return sources


def read_settings(home: Path | None = None, **changes: Any) -> Settings:
    """Read the settings of a home folder.

    Args:
        home: the home folder; ``None`` takes ``CONVOY_COORDINATOR_HOME``.
        changes: settings that win over environment and file.

    Raises:
        SetupError: a setting is missing, unknown or out of range; all of them are named at once.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if home is not None:
        given["home"] = home
    try:
        return Settings(**given)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise SetupError(
            "SETTINGS_INVALID",
            found,
            fix=f"Correct {SETTINGS_FILE} in the home or the CONVOY_COORDINATOR_… variables; "
            "name the home with --home or CONVOY_COORDINATOR_HOME.",
        ) from None
