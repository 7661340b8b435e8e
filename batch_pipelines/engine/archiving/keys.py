"""Keys by which bags are encrypted: age's (age-encryption.org), from the environment.

The secret key stays in the environment. A bag and the ledger say which key it was by the public one,
to which any tool that knows age can encrypt, and which opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyrage

from batch_pipelines.engine.errors import ArchiveError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.settings import Settings

VARIABLE = "BATCH_PIPELINES_ARCHIVE_KEY"
_NEW = "`batch-pipelines archive key` makes one"


@dataclass(frozen=True)
class Keys:
    """The keys that the environment holds.

    Attributes:
        newest: Id of the one that encrypts; None where there is none.
        secrets: The keys by their ids: those beside the newest open older bags.
    """

    newest: str | None
    secrets: Mapping[str, pyrage.x25519.Identity]

    def secret(self, key_id: str, what: str) -> pyrage.x25519.Identity:
        """Give the key that opens a bag.

        Args:
            key_id: Its id.
            what: What is to be opened, for the error.

        Returns:
            The key.

        Raises:
            ArchiveError: It is not in the environment.
        """
        if key_id in self.secrets:
            return self.secrets[key_id]
        message = (
            f"{what}: it is encrypted for {key_id}, and {VARIABLE} does not hold the key to that. Add "
            "it there; several are parted by commas."
        )
        raise ArchiveError(message)


def read_keys(setting: SecretStr | None) -> Keys:
    """Read the keys of a setting.

    Args:
        setting: `AGE-SECRET-KEY-1...`, several parted by commas or spaces, the newest first; or None.

    Returns:
        The keys.

    Raises:
        SettingsError: One is no key; it is not repeated.
    """
    typed = setting.get_secret_value().replace(",", " ").split() if setting else []
    secrets = {}
    for number, text in enumerate(typed, 1):
        try:
            secret = pyrage.x25519.Identity.from_str(text)
        except pyrage.IdentityError:
            message = (
                f"{VARIABLE}: its key {number} of {len(typed)} is no secret key of age, which begins "
                f"with AGE-SECRET-KEY-1. Correct it; {_NEW}."
            )
            raise SettingsError(message) from None
        secrets[str(secret.to_public())] = secret
    return Keys(next(iter(secrets), None), secrets)


def new_key() -> str:
    """Make a secret key.

    Returns:
        What the variable is set to.
    """
    return str(pyrage.x25519.Identity.generate())


def require_keys(settings: Settings, feed: Feed) -> None:
    """Refuse to load what could not be archived.

    Args:
        settings: Hold the keys.
        feed: The feed.

    Raises:
        SettingsError: The feed asks for encryption and there is no key, or one that cannot be used.
    """
    if feed.archive.encrypt and read_keys(settings.archive_key).newest is None:
        message = (
            f"{feed.feed}: `archive: encrypt` needs a key, and {VARIABLE} is not set. Set it, so that "
            f"its bags can be written and read; {_NEW}. Nothing was loaded."
        )
        raise SettingsError(message)
