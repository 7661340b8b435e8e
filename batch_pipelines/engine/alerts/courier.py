"""A process that hands messages to one channel, by Apprise. Run as a script; see `sending`.

It is a process of its own because Apprise's plugins may hang for ever and write secrets to logs: this
one is ended by an alarm of the system, and nothing it writes is read but its answers. Its argument is
how many seconds a message may take. It reads lines of JSON from standard input: first the channel's
URL, then messages. It answers each message by a line: what went wrong, or null. No module of this
project is imported, so that it starts fast.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys

import apprise

# Of what a plugin says only a status of HTTP is repeated: all else may hold a part of the URL.
_STATUS = re.compile(r"\berror=([1-5][0-9][0-9])\b")
_UNKNOWN_URL = "Apprise knows no such URL: its scheme or a part of it is wrong"
_NOT_TAKEN = "it could not be reached, or did not take the message"


class _Statuses(logging.Handler):
    """Keeps the last status of HTTP that a plugin complains of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line of a plugin's log."""
        if found := _STATUS.search(record.getMessage()):
            self.last = found[1]


def main() -> None:
    """Send each message that comes, until there are no more."""
    # SIGALRM ends a process that says nothing else, whatever it hangs in.
    seconds = float(sys.argv[1])
    statuses = _Statuses()
    log = logging.getLogger("apprise")
    log.handlers, log.propagate = [statuses], False
    channel = apprise.Apprise.instantiate(json.loads(sys.stdin.readline()))
    if channel is not None and channel.socket_read_timeout == apprise.URLBase.socket_read_timeout:
        # Apprise's 4 s would send again and again what a slow service takes. `rto=` in a URL stands.
        channel.socket_read_timeout = seconds
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        message = json.loads(line)
        statuses.last = None
        if channel is None:
            answer: str | None = _UNKNOWN_URL
        elif _sent(channel, message):
            answer = None
        else:
            answer = f"it answered {statuses.last}" if statuses.last else _NOT_TAKEN
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _sent(channel: apprise.NotifyBase, message: dict[str, str]) -> bool:
    try:
        return bool(
            channel.notify(
                title=message["title"],
                body=message["body"],
                notify_type=apprise.NotifyType(message["type"]),
                body_format=apprise.NotifyFormat.TEXT,
            )
        )
    except Exception:  # noqa: BLE001  # whatever a plugin raises, the message was not taken
        return False


if __name__ == "__main__":
    main()
