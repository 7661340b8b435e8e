"""Settings come from the environment, with defaults; what is wrong is said without the value."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.settings import Settings, load_settings

URL = "postgresql://loader:geheim@db.example.org/target"


def test_without_any_variable_everything_is_below_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.database_url is None
    assert settings.dagster_url is None
    assert settings.home == tmp_path / ".batch-pipelines"
    assert settings.feeds == tmp_path / "feeds"
    assert settings.root == tmp_path
    assert settings.staging == settings.home / "staging"
    assert settings.archive_address == str(settings.home / "archive")
    assert settings.dagster_home == settings.home / "dagster"
    assert settings.lease_seconds == 60
    assert 2 <= settings.runs_at_once <= 64


def test_every_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", URL)
    monkeypatch.setenv("BATCH_PIPELINES_DAGSTER_URL", "postgres:///dagster")
    monkeypatch.setenv("BATCH_PIPELINES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BATCH_PIPELINES_FEEDS", str(tmp_path / "shop" / "feeds"))
    monkeypatch.setenv("BATCH_PIPELINES_LEASE_SECONDS", "2.5")
    monkeypatch.setenv("BATCH_PIPELINES_RUNS_AT_ONCE", "7")
    monkeypatch.setenv("BATCH_PIPELINES_ALERTS", "slack://geheim")
    monkeypatch.setenv("BATCH_PIPELINES_MONITOR", str(tmp_path / "monitor.yaml"))
    settings = load_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == URL
    assert settings.dagster_url is not None
    assert settings.dagster_url.get_secret_value() == "postgres:///dagster"
    assert settings.home == tmp_path / "home"
    assert settings.root == tmp_path / "shop"
    assert settings.lease_seconds == 2.5
    assert settings.alerts is not None
    assert settings.alerts.get_secret_value() == "slack://geheim"
    assert settings.monitor == tmp_path / "monitor.yaml"
    assert "geheim" not in repr(settings)


def test_an_empty_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", "")
    assert load_settings().database_url is None


def test_paths_do_not_move_with_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings(home=Path("~/home"), feeds=Path("there/../feeds"))
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "home"
    assert settings.feeds == tmp_path / "feeds"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DATABASE_URL", "mysql://loader:geheim@db/target", "must start with postgresql://"),
        ("DAGSTER_URL", "loader:geheim@db", "must start with postgresql://"),
        ("LEASE_SECONDS", "geheim", "valid number"),
        ("LEASE_SECONDS", "0", "greater than 0"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"BATCH_PIPELINES_{variable}", value)
    with pytest.raises(SettingsError, match=f"BATCH_PIPELINES_{variable}: .*{reason}") as error:
        load_settings()
    assert "geheim" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert "Unset it to use the default, or correct it" in str(error.value)


def test_every_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", "x")
    monkeypatch.setenv("BATCH_PIPELINES_LEASE_SECONDS", "x")
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*LEASE_SECONDS: "):
        load_settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", URL)
    monkeypatch.setenv("BATCH_PIPELINES_DAGSTER_URL", URL)
    settings = load_settings()
    for shown in (repr(settings), str(settings), str(settings.model_dump()), f"{settings}"):
        assert "geheim" not in shown
    assert "geheim" not in settings.model_dump_json()


def test_settings_do_not_change() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.lease_seconds = 1  # type: ignore[misc]


def test_a_url_that_cannot_be_parsed_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", "postgresql://u:s3%zzcret@h/db")
    with pytest.raises(SettingsError, match="cannot be parsed") as refused:
        load_settings()
    assert "zzcret" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("/vault/bags/", "/vault/bags"),
        ("s3://bags", "s3://bags"),
        ("s3://bags/a/b/", "s3://bags/a/b"),
    ],
)
def test_bags_stand_in_a_folder_or_a_bucket(
    monkeypatch: pytest.MonkeyPatch, said: str, address: str
) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_ARCHIVE", said)
    assert load_settings().archive_address == address


def test_another_place_for_bags_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_ARCHIVE", "ftp://me:secret@vault")
    with pytest.raises(
        SettingsError, match=r"BATCH_PIPELINES_ARCHIVE: .*must be a folder or"
    ) as error:
        load_settings()
    assert "secret" not in str(error.value)
