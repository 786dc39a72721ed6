"""One settings object, read from LETHE_* environment variables (nested with `__`, e.g. LETHE_JOBS__LEASE_SECONDS)."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PLACEHOLDERS = {"changeme", "secret", "password", "placeholder", "change-me"}


class ApiSettings(BaseModel):
    """The HTTP service."""

    host: str = "127.0.0.1"
    port: int = 8000
    body_limit_bytes: int = Field(1 << 20, description="bodies over this answer 413")
    batch_limit: int = Field(1000, description="requests in one batch call")
    pool_size: int = Field(20, description="database connections kept open; callers beyond it wait, they do not fail")
    idempotency_hours: int = 24


class JobSettings(BaseModel):
    """Leases and the sweeper."""

    lease_seconds: float = Field(30.0, description="a job whose lease is older than this may be taken over")
    tick_seconds: float = Field(0.25, description="pause between two rounds of the scheduler")
    resend_seconds: float = Field(5.0, description="a message not picked up after this is sent again, with back-off")
    max_claims: int = Field(5, description="claims of one stage before the job fails")
    time_limit_seconds: int = Field(6 * 3600, description="hard limit of one stage")


class WebhookSettings(BaseModel):
    """Outgoing callbacks."""

    allow_private: bool = Field(False, description="permit loopback and private addresses (tests, closed networks)")
    timeout_seconds: float = 15.0
    max_attempts: int = 8


class Settings(BaseSettings):
    """All of it. Secrets left empty are made once under `home/keys`, except in production, where they are required."""

    model_config = SettingsConfigDict(env_prefix="LETHE_", env_nested_delimiter="__", extra="ignore")

    environment: Literal["development", "production"] = "development"
    home: Path = Path(".lethe")
    database_url: str = ""
    broker_url: str = ""
    url: str = "http://127.0.0.1:8000"
    api_key: SecretStr = SecretStr("")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    threads: int = Field(1, description="CPU threads of one training process; part of reproducibility")
    master_key: SecretStr = Field(SecretStr(""), description="64 hex digits; pseudonyms and key wrapping hang on it")
    log_level: str = "INFO"
    api: ApiSettings = ApiSettings()
    jobs: JobSettings = JobSettings()
    webhooks: WebhookSettings = WebhookSettings()

    @model_validator(mode="after")
    def _complete(self) -> "Settings":
        self.home = self.home.expanduser().absolute()
        if not self.database_url:
            self.database_url = f"sqlite:///{self.home / 'lethe.db'}"
        secret = self.master_key.get_secret_value()
        if self.environment == "production" and (not secret or secret.lower() in PLACEHOLDERS):
            raise ValueError("LETHE_MASTER_KEY must be set to 64 hex digits outside development")
        return self


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process; tests clear the cache with `get_settings.cache_clear()`."""
    return Settings()
