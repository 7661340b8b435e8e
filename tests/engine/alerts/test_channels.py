"""Channels are set in the environment: a URL, names, or a file; feeds know their names alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pydantic
import pytest

from batch_pipelines.engine.alerts.channels import Channels, read_channels
from batch_pipelines.engine.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops"
MAIL = "mailto://robot:geheim@example.org?to=ops@example.org&name=a=b"


def read(text: str) -> Channels:
    return read_channels(pydantic.SecretStr(text))


def plain(channels: Channels) -> dict[str, str]:
    return {name: url.get_secret_value() for name, url in channels.urls.items()}


def test_nothing_set_is_no_channel() -> None:
    assert read_channels(None) == read(" \n") == Channels()


def test_one_url_is_the_default() -> None:
    assert plain(read(SLACK)) == {"default": SLACK}
    assert plain(read(MAIL)) == {"default": MAIL}


def test_channels_and_roles_have_names() -> None:
    channels = read(f"ops={SLACK}\n  mail={MAIL} lab_leads=ops,mail")
    assert plain(channels) == {"ops": SLACK, "mail": MAIL}
    assert channels.roles == {"lab_leads": ("ops", "mail")}


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_file_says_the_same(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"channels.{ending}"
    said = {"ops": SLACK, "mail": MAIL, "lab_leads": ["ops", "mail"]}
    text = "ops: {ops}\nmail: {mail}\nlab_leads: [ops, mail]\n".format_map(said)
    path.write_text(text if ending == "yaml" else json.dumps(said), encoding="utf-8")
    assert read(str(path)) == read(f"ops={SLACK} mail={MAIL} lab_leads=ops,mail")


@pytest.mark.parametrize(
    ("names", "told", "unknown"),
    [
        ((), ("default",), ()),
        (("mail",), ("mail",), ()),
        (("duty", "mail", "lab"), ("lab", "mail"), ()),
        (("nurse",), ("default",), ("nurse",)),
        (("lab", "nurse"), ("lab", "default"), ("nurse",)),
    ],
)
def test_names_stand_for_channels(
    channels: Channels, names: tuple[str, ...], told: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    assert channels.resolve(names) == (told, unknown)


def test_without_a_default_everybody_is_told() -> None:
    assert read(f"ops={SLACK} mail={MAIL}").resolve(()) == (("ops", "mail"), ())
    assert read(f"ops={SLACK} mail={MAIL} default=ops").resolve(()) == (("ops",), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"ops={SLACK} geheim", "word 2 is no channel. Expected one URL of Apprise, or NAME=URL"),
        (f"1geheim={SLACK}", "word 1 is no channel"),
        (f"ops={SLACK} ops={MAIL}", "the name ops is there twice"),
        (f"ops={SLACK} lab=ops,geheim", "the role lab lists one of its names, which is no channel"),
        (f"ops={SLACK} lab=ops all=lab", "the role all lists lab, which is no channel"),
        ("geheim/no/such/file", "taken for the path of a file, and no file of text can be read"),
    ],
)
def test_what_cannot_be_used_is_said_without_a_secret(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as error:
        read(text)
    assert "BATCH_PIPELINES_ALERTS" in str(error.value)
    assert "geheim" not in str(error.value)
    assert "T1JJ3T3L2" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ops: [geheim", "the file, line 1 is no YAML or JSON"),
        ("all: &all [*all]", "the file, line 1 is no YAML or JSON"),
        ("ops: " + "[" * 5000, "the file is no YAML or JSON"),
        ("- geheim", "the file has no names"),
        ("ops: geheim", "ops is neither a URL"),
        ("ops: {geheim: 1}", "ops is neither a URL"),
        ("geheim geheim: x", "name 1 cannot be one of a channel"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "channels.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=said) as error:
        read(str(path))
    assert "geheim" not in str(error.value)


def test_no_secret_prints(channels: Channels) -> None:
    assert "GEHEIM" not in repr(channels)
