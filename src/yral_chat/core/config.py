"""Settings: environment variables (or `.env`), checked once at start. The list for people is docs/configuration.md."""

import ipaddress
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Environment = Literal["development", "test", "staging", "production"]
LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
Algorithm = Literal["RS256", "ES256", "EdDSA"]

# A comma list in the environment, a tuple in the code.
CommaList = Annotated[tuple[str, ...], NoDecode]


class Issuer(BaseModel):
    """One issuer of tokens, with exactly one source of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1)
    jwks_url: str | None = None
    jwks_file: Path | None = None
    public_keys: tuple[str, ...] = ()  # PEM
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    audience: str | None = None

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        if sum((self.jwks_url is not None, self.jwks_file is not None, bool(self.public_keys))) != 1:
            raise ValueError(f"issuer {self.issuer}: give exactly one of jwks_url, jwks_file, public_keys")
        return self


class Settings(BaseSettings):
    """Everything that can be set. Contract section 18; durations in seconds, sizes in the unit of their name."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    # the process
    environment: Environment = "development"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    public_base_url: str | None = None
    data_dir: Path = Path("data")
    docs_enabled: bool = True
    log_level: LogLevel = "INFO"
    log_format: Literal["json", "text"] | None = None
    log_users: Literal["hashed", "plain", "none"] = "hashed"
    otel_enabled: bool = False
    sentry_dsn: SecretStr | None = None
    shutdown_grace_seconds: float = Field(25, ge=0, le=600)

    # how much at once
    max_connections: int = Field(4096, ge=1, le=1_000_000)
    max_turns: int = Field(1000, ge=1, le=100_000)
    max_requests_per_user: int = Field(20, ge=1, le=10_000)
    overload_seconds: float = Field(1, gt=0, le=600)
    slow_client_seconds: float = Field(20, gt=0, le=600)

    # the database
    database_url: SecretStr | None = None
    database_pool_size: int = Field(10, ge=1, le=20)
    database_max_waiting: int = Field(1000, ge=1, le=1_000_000)
    database_cache_mb: int = Field(32, ge=1, le=4096)
    database_silence_seconds: float = Field(15, gt=0, le=600)
    redis_url: SecretStr | None = None
    broker_url: SecretStr | None = None

    # language models
    gemini_api_key: SecretStr | None = None
    gemini_base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    gemini_models: CommaList = ("gemini-2.5-flash", "gemini-3.5-flash-lite")
    gemini_thinking_budget: int | None = Field(None, ge=-1, le=32768)
    gemini_safety_threshold: (
        Literal["OFF", "BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"] | None
    ) = None
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    openai_models: CommaList = ()
    nsfw_provider: Literal["gemini", "openai"] | None = None
    allow_offline_model: bool | None = None
    offline_words_per_second: float = Field(14, ge=0, le=10_000)
    model_max_output_tokens: int = Field(2048, ge=1, le=65536)
    model_temperature: float = Field(0.7, ge=0, le=2)
    model_timeout_seconds: float = Field(60, gt=0, le=600)
    history_messages: int = Field(30, ge=0, le=500)
    image_history_window: int = Field(3, ge=0, le=100)
    breaker_failures: int = Field(5, ge=1, le=1000)
    breaker_open_seconds: float = Field(30, gt=0, le=600)

    # what may be used in a day; 0: as much as anybody likes
    quota_tokens_per_user_day: int = Field(0, ge=0, le=10**15)
    quota_cost_per_user_day: Decimal = Field(Decimal(0), ge=0, le=1_000_000, max_digits=13, decimal_places=6)
    quota_tokens_per_influencer_day: int = Field(0, ge=0, le=10**15)
    model_prices_file: Path | None = None

    # personas and memory
    influencer_require_ownership_claim: bool = False
    generation_timeout_seconds: float = Field(28, gt=0, le=600)
    memories_enabled: bool = True
    moderation_judge: bool = True

    # people who are told
    push_url: str | None = Field(None, repr=False)  # whoever knows the address of a webhook can often write to it
    push_secret: SecretStr | None = None
    operator_webhook_url: str | None = Field(None, repr=False)

    # recordings and pictures
    openai_transcription_model: str | None = None
    openai_image_model: str | None = None
    replicate_api_token: SecretStr | None = None
    replicate_base_url: str = "https://api.replicate.com/v1"
    image_models: CommaList = ("black-forest-labs/flux-dev", "black-forest-labs/flux-kontext-dev")
    image_timeout_seconds: float = Field(60, gt=0, le=600)

    # media
    media_backend: Literal["local", "s3"] = "local"
    media_signing_key: SecretStr | None = None
    media_url_expires_seconds: int = Field(900, ge=60, le=86400)
    media_allowed_hosts: CommaList = ()
    max_image_size_mb: int = Field(10, ge=1, le=100)
    max_audio_size_mb: int = Field(20, ge=1, le=200)
    max_image_megapixels: int = Field(50, ge=1, le=200)
    max_audio_duration_seconds: int = Field(300, ge=1, le=3600)
    upload_retention_hours: float = Field(24, gt=0, le=24 * 365)
    s3_endpoint_url: str | None = None
    s3_bucket: str | None = None
    s3_region: str = "us-east-1"
    s3_addressing: Literal["path", "virtual"] = "path"
    s3_public_url_base: str | None = None
    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None

    # backups
    backup_url: str | None = None
    backup_endpoint_url: str | None = None
    backup_region: str | None = None
    backup_access_key_id: SecretStr | None = None
    backup_secret_access_key: SecretStr | None = None
    backup_lease_seconds: float = Field(15, ge=1, le=600)
    backup_retention_days: int = Field(30, ge=1, le=3650)
    backup_drill_hours: float = Field(6, ge=0, le=24 * 30)
    litestream_enabled: bool = False
    litestream_path: Path | None = None
    media_backup_url: str | None = None
    backup_dump_hours: float = Field(12, ge=0, le=24 * 30)
    backup_drill_database_url: SecretStr | None = None
    backup_drill_command: str | None = None

    # turns and streams
    send_timeout_seconds: float = Field(28, gt=0, le=600)
    stream_idle_limit_seconds: float = Field(28, gt=0, le=600)
    turn_max_seconds: float = Field(120, gt=0, le=3600)
    turn_stale_seconds: float = Field(60, gt=0, le=3600)
    max_turns_per_conversation: int = Field(5, ge=1, le=1000)
    max_turns_per_user: int = Field(10, ge=1, le=10_000)
    duplicate_window_seconds: float = Field(120, ge=0, le=86400)
    duplicate_grace_seconds: float = Field(10, ge=0, le=86400)
    stream_coalesce_ms: float = Field(30, ge=0, le=1000)
    stream_heartbeat_seconds: float = Field(10, gt=0, le=600)

    # sockets
    ws_max_connections_per_user: int = Field(10, ge=1, le=1000)
    ws_ping_seconds: float = Field(20, gt=0, le=600)
    ws_replay_events: int = Field(500, ge=1, le=100_000)
    ws_replay_hours: float = Field(24, gt=0, le=24 * 365)

    # how often somebody may ask
    rate_limit_enabled: bool = True
    rate_limit_per_minute: int = Field(60, ge=1, le=1_000_000)
    rate_limit_per_hour: int = Field(1000, ge=1, le=10_000_000)
    rate_limit_light_per_minute: int = Field(300, ge=1, le=1_000_000)
    rate_limit_light_per_hour: int = Field(5000, ge=1, le=10_000_000)

    # cache
    cache_max_items: int = Field(1000, ge=1)
    cache_max_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    cache_ttl_seconds: float = Field(300, gt=0)

    # who may come in
    auth_issuers: tuple[Issuer, ...] = ()
    auth_dev_issuer: str = "yral-ai-chat-dev"
    auth_dev_secret: SecretStr | None = None
    jwt_leeway_seconds: float = Field(30, ge=0, le=60)
    admin_api_key: SecretStr | None = None
    metrics_token: SecretStr | None = None
    cors_origins: CommaList | None = None
    trusted_proxies: CommaList = ()
    profile_url: str | None = None

    @field_validator(
        "gemini_models", "openai_models", "image_models", "media_allowed_hosts", "cors_origins", "trusted_proxies",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in (item.strip() for item in value.split(",")) if part)
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "public_base_url", "gemini_base_url", "openai_base_url", "replicate_base_url", "profile_url", "push_url",
        "operator_webhook_url", "s3_endpoint_url",
        "s3_public_url_base", "backup_endpoint_url",
    )  # fmt: skip
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in value):
                raise ValueError("not an address: it has to look like https://host/path")
        return value

    @field_validator("backup_url", "media_backup_url")
    @classmethod
    def _target(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            # Nothing but a name: with keys before it, they would be printed wherever the place is named.
            is_bucket = parts.scheme == "s3" and re.fullmatch(r"[\w.-]+", parts.netloc)
            is_folder = parts.scheme == "file" and not parts.netloc and len(parts.path) > 1
            # What follows these characters is no part of the path, and would be left off without a word.
            if not (is_bucket or is_folder) or "?" in value or "#" in value:
                raise ValueError(
                    "it has to look like s3://bucket/prefix, or file:///folder, without keys; # is %23 and ? is %3F"
                )
        return value

    @field_validator("gemini_api_key", "openai_api_key", "replicate_api_token")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().isprintable():
            raise ValueError("it has a character that no key has, such as a line break at its end")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @field_validator("media_allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if urlsplit(f"//{host}").hostname != host:
                raise ValueError(f"{host} is not the exact name of a host, in lower case and without a port")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, value in (("REDIS_URL", self.redis_url), ("BROKER_URL", self.broker_url)):
            if value is not None:
                raise ValueError(f"{name} is not supported yet: this version runs in one process. Unset it.")
        if self.auth_dev_secret and not self.is_local:
            raise ValueError("AUTH_DEV_SECRET is for development and test only: who has it can be anyone. Unset it.")
        if self.auth_dev_secret and len(self.auth_dev_secret.get_secret_value().encode()) < 32:
            raise ValueError("AUTH_DEV_SECRET needs at least 32 bytes")
        if not self.auth_issuers and not self.is_local:
            raise ValueError("AUTH_ISSUERS is empty: nobody could sign in. Set the issuers of your users' tokens.")
        if not self.has_model_provider and not self.is_offline_model_allowed:
            raise ValueError(
                "no language model is configured: set GEMINI_API_KEY, or OPENAI_BASE_URL with OPENAI_MODELS, "
                "or ALLOW_OFFLINE_MODEL=true to run with the offline demo persona"
            )
        if (self.push_url or self.operator_webhook_url) and self.push_secret is None and not self.is_local:
            raise ValueError("PUSH_URL or OPERATOR_WEBHOOK_URL is set: set PUSH_SECRET too, with which it is signed")
        if (self.openai_base_url or self.openai_api_key) and not self.openai_models:
            raise ValueError("OPENAI_BASE_URL or OPENAI_API_KEY is set: name the models to ask in OPENAI_MODELS")
        return self

    @model_validator(mode="after")
    def _media_fits_together(self) -> Self:
        if self.media_backend == "s3":
            missing = [name for name in ("s3_bucket", "aws_access_key_id", "aws_secret_access_key")
                       if getattr(self, name) is None]  # fmt: skip
            if missing:
                raise ValueError(f"MEDIA_BACKEND is s3: set {', '.join(name.upper() for name in missing)} too")
        elif self.media_signing_key is None and not self.is_local:
            raise ValueError("MEDIA_SIGNING_KEY is missing: addresses of local media are signed with it")
        if self.media_signing_key and len(self.media_signing_key.get_secret_value().encode()) < 32:
            raise ValueError("MEDIA_SIGNING_KEY needs at least 32 bytes")
        if not self.image_models:
            raise ValueError("IMAGE_MODELS is empty: name one model, or two: for text, and for text with a picture")
        return self

    @model_validator(mode="after")
    def _backups_fit_together(self) -> Self:
        if self.litestream_enabled and self.backup_url is None:
            raise ValueError("Litestream needs BACKUP_URL: s3://bucket/prefix, or file:///folder")
        if self.litestream_enabled and not self.resolved_database_url.startswith("sqlite"):
            raise ValueError("Litestream is for SQLite; for PostgreSQL see docs/operations/postgres.md")
        key = self.backup_access_key_id or self.aws_access_key_id
        secret = self.backup_secret_access_key or self.aws_secret_access_key
        for name, url in (("BACKUP_URL", self.backup_url), ("MEDIA_BACKUP_URL", self.media_backup_url)):
            if url is not None and url.startswith("s3:") and (key is None or secret is None):
                raise ValueError(
                    f"{name} is a bucket: set BACKUP_ACCESS_KEY_ID and BACKUP_SECRET_ACCESS_KEY, or those of AWS"
                )
        return self

    @model_validator(mode="after")
    def _media_backup_is_apart(self) -> Self:
        if self.media_backup_url is None:
            return self
        if self.backup_url is not None and _is_around(self.backup_url, self.media_backup_url):
            raise ValueError("MEDIA_BACKUP_URL and BACKUP_URL are one inside the other: give each a place of its own")
        is_same_server = self.backup_endpoint_url in (None, self.s3_endpoint_url)
        if self.media_backend == "s3" and is_same_server and urlsplit(self.media_backup_url).netloc == self.s3_bucket:
            raise ValueError("MEDIA_BACKUP_URL is the bucket of the media themselves: a copy has to be somewhere else")
        media = (self.data_dir / "media").resolve().as_uri()
        if self.media_backend == "local" and _is_around(media, self.media_backup_url):
            raise ValueError("MEDIA_BACKUP_URL is the folder of the media themselves: a copy has to be somewhere else")
        return self

    @property
    def is_local(self) -> bool:
        """Development and test: the service issues tokens itself and keeps its doors open."""
        return self.environment in ("development", "test")

    @property
    def has_model_provider(self) -> bool:
        return self.gemini_api_key is not None or self.openai_base_url is not None or self.openai_api_key is not None

    @property
    def has_quotas(self) -> bool:
        return bool(
            self.quota_tokens_per_user_day or self.quota_cost_per_user_day or self.quota_tokens_per_influencer_day
        )

    @property
    def is_offline_model_allowed(self) -> bool:
        return self.is_local if self.allow_offline_model is None else self.allow_offline_model

    @property
    def resolved_database_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{quote(str(self.data_dir.resolve() / 'yral_chat.db'))}"

    @property
    def resolved_cors_origins(self) -> tuple[str, ...]:
        if self.cors_origins is not None:
            return self.cors_origins
        return ("*",) if self.is_local else ()

    @property
    def resolved_log_format(self) -> Literal["json", "text"]:
        return self.log_format or ("text" if self.is_local else "json")

    @property
    def base_url(self) -> str:
        """The base of absolute URLs, without a trailing slash. `serve` sets PUBLIC_BASE_URL to the bound address."""
        return (self.public_base_url or f"http://{self.host}:{self.port}").rstrip("/")


def _is_around(one: str, other: str) -> bool:
    """Whether one of these places lies in the other, or is it."""
    first, second = (f"{url.rstrip('/')}/" for url in (one, other))
    return first.startswith(second) or second.startswith(first)
