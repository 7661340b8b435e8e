"""The channels of alerts, by name. A channel's URL is a secret that only its courier is handed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.written_yaml import WrittenYamlError, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT = "default"
VARIABLE = "BATCH_PIPELINES_ALERTS"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_NAMED = re.compile(rf"(?P<name>{_NAME.pattern})=(?P<value>.+)", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXPECTED = (
    "Expected one URL of Apprise, or NAME=URL and ROLE=NAME,NAME separated by white space, or the path "
    "of a YAML or JSON file with the same"
)


@dataclass(frozen=True)
class Channels:
    """The channels, and the roles that stand for some of them.

    Attributes:
        urls: URL of each channel, by its name.
        roles: Names of the channels of each role.
    """

    urls: Mapping[str, pydantic.SecretStr] = field(default_factory=dict)
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def resolve(self, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Find the channels that names stand for.

        Args:
            names: Names of channels and roles; none stands for the default: what is named `default`,
                or else every channel.

        Returns:
            The channels, each once; and the names that nothing has. Where there are such names, the
            default is among the channels, so that somebody is told.
        """
        wanted = list(names)
        unknown = tuple(
            dict.fromkeys(n for n in wanted if n not in self.urls and n not in self.roles)
        )
        found = [channel for name in wanted for channel in self._of(name)]
        if unknown or not wanted:
            found += self._of(DEFAULT) or list(self.urls)
        return tuple(dict.fromkeys(found)), unknown

    def _of(self, name: str) -> list[str]:
        return [name] if name in self.urls else list(self.roles.get(name, ()))


def read_channels(setting: pydantic.SecretStr | None) -> Channels:
    """Read what the environment says of channels.

    Args:
        setting: The value of BATCH_PIPELINES_ALERTS.

    Returns:
        The channels; none where it is not set.

    Raises:
        SettingsError: It cannot be used; nothing of it is repeated but names.
    """
    text = setting.get_secret_value().strip() if setting else ""
    if not text:
        return Channels()
    if "=" not in text and not _URL.match(text):
        return _channels(_read_file(Path(text).expanduser()))
    given: dict[str, Any] = {}
    for place, word in enumerate(text.split(), start=1):
        named = _NAMED.fullmatch(word)
        if named is None and not _URL.match(word):
            message = f"{VARIABLE}: word {place} is no channel. {_EXPECTED}."
            raise SettingsError(message)
        name, value = (named["name"], named["value"]) if named else (DEFAULT, word)
        if name in given:
            message = (
                f"{VARIABLE}: the name {name} is there twice. Give each channel a name of its own, and "
                "a role to both: ROLE=NAME,NAME."
            )
            raise SettingsError(message)
        given[name] = value if _URL.match(value) else value.split(",")
    return _channels(given)


def _read_file(path: Path) -> dict[str, Any]:
    where = f"{VARIABLE} is taken for the path of a file"
    try:
        found = read_yaml(path.read_text(encoding="utf-8")).data
    except (OSError, UnicodeError, ValueError):
        # The name is not repeated: what was meant for a URL would be a secret.
        message = f"{where}, and no file of text can be read there. {_EXPECTED}."
        raise SettingsError(message) from None
    except WrittenYamlError as error:
        line = f", line {error.line}" if error.line is not None else ""
        message = f"{where}; the file{line} is no YAML or JSON. Expected NAME: URL on each line."
        raise SettingsError(message) from None
    if not isinstance(found, dict):
        message = f"{where}; the file has no names. Expected NAME: URL on each line."
        raise SettingsError(message)
    return found


def _channels(given: Mapping[Any, Any]) -> Channels:
    urls: dict[str, pydantic.SecretStr] = {}
    roles: dict[str, tuple[str, ...]] = {}
    for place, (name, value) in enumerate(given.items(), start=1):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = (
                f"{VARIABLE}: name {place} cannot be one of a channel. A name begins with a letter and "
                "has letters, digits, _ and -, 63 at most."
            )
            raise SettingsError(message)
        if isinstance(value, str) and _URL.match(value):
            urls[name] = pydantic.SecretStr(value)
        elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            roles[name] = tuple(value)
        else:
            message = (
                f"{VARIABLE}: {name} is neither a URL (slack://..., mailto://..., json://...) nor a "
                "list of channels."
            )
            raise SettingsError(message)
    for role, members in roles.items():
        if strange := [member for member in members if member not in urls]:
            # A member may be a URL that was mistyped: only what looks like a name is repeated.
            shown = ", ".join(one for one in strange if one in roles) or "one of its names"
            message = (
                f"{VARIABLE}: the role {role} lists {shown}, which is no channel. Channels are: "
                f"{', '.join(urls) or 'none'}."
            )
            raise SettingsError(message)
    return Channels(urls, roles)
