"""What the environment sets. The one place that reads it; everybody else is handed a `Settings`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import psycopg
import pydantic
from psycopg import conninfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.feed_parts.archiving import checked_place
from batch_pipelines.engine.feed_parts.partitions import known_timezone
from batch_pipelines.engine.feed_parts.retention import Regulation  # noqa: TC001  # pydantic reads it

_REMEDY = "Unset it to use the default, or correct it; README.md lists the settings."


class Settings(BaseSettings):
    """Settings of one process, each from the variable `BATCH_PIPELINES_<NAME>`.

    URLs are secrets (they may hold a password): they print as stars and never reach a log.

    Attributes:
        database_url: The target and ledger; None stands for the embedded server.
        dagster_url: Dagster's own storage; None puts it beside the target (see `database`).
        home: Folder of embedded data, staging, Dagster home, and by default of the archive.
        feeds: Folder of the feed files. Its parent is where a feed's relative paths start.
        lease_seconds: How long a batch stays ours without a sign of life, in seconds.
        runs_at_once: How many runs are in progress at once; the others wait in Dagster's queue.
        alerts: The channels that alerts are sent to; see `engine.alerts.channels`.
        monitor: File that says how all batches together are watched; None stands for the default.
        retention: File that says how long the audit trail is kept; None keeps it for ever.
        archive: Where bags stand: a folder, or `s3://BUCKET/PREFIX`; None for one below `home`.
        anchors: Folder for anchors of the audit trail; None for one below `home`.
        user_header: Header in which a proxy before Dagster's web server says who made a request.
        archive_key: The secret keys of age by which feeds that ask for it are encrypted.
        regulations: Regulations that every feed is under, parted by commas; see `engine.retention`.
        report_timezone: Whose days and months compliance reports go by, by a name of the IANA.
        report_start: The first month that is a partition of the asset `compliance_report`.
        reports_url: Where a web server shows the folder of reports; None where none does.
        openlineage_url: Catalog that is told of lineage; None tells nobody.
        openlineage_api_key: What opens it, None where it is open.
        openlineage_namespace: Namespace of the feeds there.
        bulk: Whether many rows are inserted by one statement; `off` inserts each by itself, to debug.
    """

    model_config = SettingsConfigDict(
        env_prefix="BATCH_PIPELINES_", frozen=True, extra="ignore", populate_by_name=True
    )

    database_url: pydantic.SecretStr | None = None
    dagster_url: pydantic.SecretStr | None = None
    alerts: pydantic.SecretStr | None = None
    home: Path = Path(".batch-pipelines")
    feeds: Path = Path("feeds")
    lease_seconds: float = pydantic.Field(default=60.0, gt=0)
    # A run is a process of about 300 MB and one busy core; more at once only wait for each other.
    runs_at_once: int = pydantic.Field(default=max(2, os.cpu_count() or 2), ge=1)
    monitor: Path | None = None
    retention: Path | None = None
    archive: str | None = None
    anchors: Path | None = None
    user_header: str | None = None
    archive_key: pydantic.SecretStr | None = None
    regulations: Annotated[tuple[Regulation, ...], NoDecode] = ()
    report_timezone: str = "UTC"
    report_start: str = pydantic.Field(default="2026-01", pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    reports_url: str | None = None
    # The client's own variables count, too.
    openlineage_url: pydantic.SecretStr | None = pydantic.Field(
        default=None,
        validation_alias=pydantic.AliasChoices(
            "BATCH_PIPELINES_OPENLINEAGE_URL", "OPENLINEAGE_URL"
        ),
    )
    openlineage_api_key: pydantic.SecretStr | None = pydantic.Field(
        default=None,
        validation_alias=pydantic.AliasChoices(
            "BATCH_PIPELINES_OPENLINEAGE_API_KEY", "OPENLINEAGE_API_KEY"
        ),
    )
    openlineage_namespace: str = pydantic.Field(
        default="batch-pipelines",
        validation_alias=pydantic.AliasChoices(
            "BATCH_PIPELINES_OPENLINEAGE_NAMESPACE", "OPENLINEAGE_NAMESPACE"
        ),
    )
    bulk: bool = True

    @pydantic.field_validator(
        *("database_url", "dagster_url", "alerts", "monitor", "archive", "anchors", "archive_key"),
        *("reports_url", "retention", "user_header"),
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @pydantic.field_validator("regulations", mode="before")
    @classmethod
    def _parted_by_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(word.strip().lower() for word in value.split(",") if word.strip())
        return value

    @pydantic.field_validator("database_url", "dagster_url")
    @classmethod
    def _is_postgresql(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            message = "it must start with postgresql://"
            raise ValueError(message)
        try:
            conninfo.conninfo_to_dict(value.get_secret_value() if value else "")
        except psycopg.ProgrammingError:
            # The driver's own message repeats the URL, password and all.
            message = "it cannot be parsed; special characters of a password are written %XX"
            raise ValueError(message) from None
        return value

    @pydantic.field_validator("report_timezone")
    @classmethod
    def _is_a_time_zone(cls, value: str) -> str:
        return known_timezone(value)

    @pydantic.field_validator("reports_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            message = "it must start with http:// or https://"
            raise ValueError(message)
        return value

    @pydantic.field_validator("archive")
    @classmethod
    def _folder_or_bucket(cls, value: str | None) -> str | None:
        if value is None or "://" in value:
            return value if value is None else checked_place(value)
        return str(Path(value).expanduser().resolve())

    @pydantic.field_validator("home", "feeds", "monitor", "anchors", "retention")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @property
    def root(self) -> Path:
        """The folder where a feed's relative paths start: the one that holds the feeds folder."""
        return self.feeds.parent

    @property
    def staging(self) -> Path:
        """Where deliveries are copied to, one folder a batch."""
        return self.home / "staging"

    @property
    def reports(self) -> Path:
        """Where reports are written that nobody wants elsewhere."""
        return self.home / "reports"

    @property
    def archive_address(self) -> str:
        """Where the bags of finished batches stand, unless their feed says otherwise."""
        return self.archive or str(self.home / "archive")

    @property
    def anchors_folder(self) -> Path:
        """Where anchors of the audit trail are kept."""
        return self.anchors or self.home / "anchors"

    @property
    def dagster_home(self) -> Path:
        """Dagster's folder (instance configuration, logs of runs)."""
        return self.home / "dagster"


def load_settings() -> Settings:
    """Read the environment.

    Returns:
        The settings, paths made absolute.

    Raises:
        SettingsError: A variable has a value that cannot be used; its value is not repeated.
    """
    try:
        return Settings()
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"BATCH_PIPELINES_{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        message = f"The environment cannot be used: {problems}. {_REMEDY}"
        raise SettingsError(message) from None


def read_secret(variable: str) -> pydantic.SecretStr | None:
    """Read a variable that a feed names, which holds a secret.

    Args:
        variable: Its name.

    Returns:
        Its value, which prints as stars; None where it is not set, or empty.
    """
    value = os.environ.get(variable)
    return pydantic.SecretStr(value) if value else None
