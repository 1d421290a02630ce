"""The errors of Gatewatch, typed by what the caller can do about them."""

from __future__ import annotations

from collections.abc import Sequence

from gatewatch.collector.text import describe_exception, one_line


class GatewatchError(Exception):
    """The base of every error that Gatewatch raises on purpose.

    Its text becomes one legible line of bounded length, whatever the names and answers that it quotes.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ConfigError(GatewatchError, ValueError):
    """Mend the configuration: an argument, an environment variable or a file is wrong.

    Raised at construction or when training begins, never later.
    """


class TooLargeError(ConfigError):
    """A module holds too much to be copied at each capture."""


class ReadRefused(ConfigError):  # noqa: N818 - named like the two below
    """The store cannot be read with these settings: the token may only write, or the bucket is missing."""


class WriteRejected(GatewatchError):  # noqa: N818 - a public name of the design
    """These points are wrong: writing them again cannot succeed. Whatever else was in the batch is stored.

    Attributes:
        reasons: one line for each point or group of points that was refused.
        count: how many points were refused; at least one.
        lines: of each refused point its line of line protocol, without the newline that ends it, and the reason, which
            is that of one of them where several were refused together; none of those that have no line, such as one
            with a field that is not finite.
    """

    def __init__(
        self, reasons: Sequence[str], count: int | None = None, lines: Sequence[tuple[bytes, str]] = ()
    ) -> None:
        self.reasons = list(reasons) or ["points were refused"]
        self.count = max(1, len(self.reasons) if count is None else count)
        self.lines = list(lines)
        more = f" (and {len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
        super().__init__(f"{self.reasons[0]}{more}")


class WriteUnavailable(GatewatchError):  # noqa: N818 - a public name of the design
    """The store cannot take or give points now: try again.

    Attributes:
        retry_after: seconds to wait as the store asked for, or None.
        slow: nothing will change by itself: someone must mend the token, the bucket, the address, the folder or the
            file. Try again at long intervals.
        answered: a server answered, so that what was sent may be the reason, and not the moment.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, slow: bool = False, *, answered: bool = False
    ) -> None:
        self.retry_after = retry_after
        self.slow = slow
        self.answered = answered
        super().__init__(message)


def reason_of(error: BaseException) -> str:
    """Return why something failed, in one line: an error of Gatewatch by its text alone, any other with its type."""
    return one_line(error) if isinstance(error, GatewatchError) else describe_exception(error)
