"""Handing a message to a channel, within a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    import pydantic

    from batch_pipelines.engine.alerts.message import Message

_COURIER = Path(__file__).with_name("courier.py")


class Sender(Protocol):
    """Sends messages to one channel."""

    def send(self, message: Message) -> str | None:
        """Send a message.

        Args:
            message: The message.

        Returns:
            None where the channel took it; else why not, without a secret.
        """


class Courier:
    """A courier's process, from its first message to the end of the block."""

    def __init__(self, url: pydantic.SecretStr, *, seconds: float) -> None:
        """Prepare it.

        Args:
            url: The channel's URL.
            seconds: How long a message may take.
        """
        self._url = url
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Begin the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._end()

    def send(self, message: Message) -> str | None:
        """Send a message; see `Sender.send`."""
        process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101  # both were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(asdict(message)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            ended = process.wait()
            self._end()
            if ended == -signal.SIGALRM:
                return f"it gave no answer within {self._seconds:g} s"
            return f"the process that sends ended with exit code {ended}"
        found: str | None = json.loads(answer)
        return found

    def _start(self) -> subprocess.Popen[str]:
        # -P: the folder of the script, which is ours, is not searched for modules.
        self._process = subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, "-P", str(_COURIER), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps(self._url.get_secret_value()) + "\n")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # Closes the pipes, too, and swallows what could not be written any more.
            process.communicate()
