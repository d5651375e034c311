"""How a failed call is named: short, and in few enough ways to be counted by kind.

The first ones of each kind are kept as examples: with the request, what was expected and what came.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from capnp_rig.client.reasons import reason_line
from capnp_rig.rigcli import printable

_MAX_CHARS = 120
# A server may put a number of its own into each reason; a table of millions helps nobody.
_MAX_REASONS = 16
# By which a service ties each failure to a line of its log, or says that there is no such line.
_ID = re.compile(r"\s*\[(?:id |not logged)[^\]]{0,80}\]")
# Examples of wrong replies, of all kinds together, and of other failures, one of each kind.
_WRONG_REPLIES, _OTHERS = 3, 8
_SHOWN_CHARS = 200
_BEFORE_DIFFERENCE = 40


class WrongReply(Exception):
    """A reply came, but not the right one. The text has no payload, so that kinds stay few."""


def check_reply(reply: bytes | memoryview, expected: bytes) -> None:
    """Compare a reply with what it must be.

    Raises:
        WrongReply: They differ.
    """
    if reply != expected:
        what = "other bytes" if len(reply) == len(expected) else "another length"
        raise WrongReply(f"the reply has {what} than expected")


class FailureNames:
    """Shortens exceptions to one line, and their reasons to a bounded number per type."""

    def __init__(self) -> None:
        self._reasons: defaultdict[str, set[str]] = defaultdict(set)

    def reason(self, error: BaseException) -> str:
        """Return the line of an exception that says why, without its id, or "(other reasons)"."""
        reason = _ID.sub("", reason_line(error))[:_MAX_CHARS]
        known = self._reasons[type(error).__name__]
        if reason in known:
            return reason
        if len(known) >= _MAX_REASONS:
            return "(other reasons)"
        known.add(reason)
        return reason

    def shorten(self, error: Exception) -> Exception:
        """Return an exception of the same type whose text is that of `reason`.

        The type must be one that takes its text as the only argument.
        """
        reason = self.reason(error)
        return error if reason == str(error) else type(error)(reason)


def kind_of(error: BaseException) -> str:
    """Return the kind of a failure, as ``Type: reason``."""
    return f"{type(error).__name__}: {error}"


# --- examples --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallTexts:
    """A call that failed, in full: its request, what was expected, and what came."""

    request: str = ""
    expected: str = ""
    came: str = ""


def with_call(error: Exception, texts: Callable[[], CallTexts]) -> Exception:
    """Return `error`, which can tell of its call; `texts` is asked for few of them, at once."""
    vars(error)["call_texts"] = texts
    return error


@dataclass(frozen=True, slots=True)
class FailedCall:
    """An example of a kind of failure, its texts cut and without what steers a terminal.

    `text` is that of the failure, with the id that its kind leaves out. Where `is_wrong`, a reply
    came that was not the right one.
    """

    kind: str
    text: str
    is_wrong: bool = False
    request: str = ""
    expected: str = ""
    came: str = ""

    @classmethod
    def of(cls, kind: str, error: Exception) -> Self:
        """Return the example that a failure of this kind makes."""
        texts: CallTexts = vars(error).get("call_texts", CallTexts)()
        expected, came = _around_difference(texts.expected, texts.came)
        text, is_wrong = shown(kind_of(error)), isinstance(error, WrongReply)
        return cls(kind, text, is_wrong, shown(texts.request), expected, came)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `to_json` made.

        Raises:
            TypeError: A value is missing, unknown, or of another type.
        """
        for each in fields(cls):
            if not isinstance(plain.get(each.name), bool if each.type is bool else str):
                raise TypeError(f"the example's {each.name} is {plain.get(each.name)!r}")
        return cls(**plain)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def lines(self) -> list[str]:
        """What is known of the call, a line each."""
        named = {"request": self.request, "expected": self.expected, "came": self.came}
        return [f"{name}: {text}" for name, text in named.items() if text]


def first_examples(examples: Iterable[FailedCall]) -> tuple[FailedCall, ...]:
    """Return the first three wrong replies, and the first of each other kind of failure."""
    wrong, others = [], dict[str, FailedCall]()
    for each in examples:
        if each.is_wrong:
            wrong.append(each)
        else:
            others.setdefault(each.kind, each)
    return (*wrong[:_WRONG_REPLIES], *list(others.values())[:_OTHERS])


class Examples:
    """The examples of one process; making them costs only the first failures of a kind."""

    def __init__(self) -> None:
        self._kept: list[FailedCall] = []
        self._new: list[FailedCall] = []

    def add(self, kind: str, error: Exception) -> None:
        """Keep the failure if it is one of the first."""
        is_wrong = isinstance(error, WrongReply)
        alike = [each for each in self._kept if each.is_wrong is is_wrong]
        if len(alike) >= (_WRONG_REPLIES if is_wrong else _OTHERS):
            return
        if not is_wrong and any(each.kind == kind for each in alike):
            return
        example = FailedCall.of(kind, error)
        self._kept.append(example)
        self._new.append(example)

    def take(self) -> tuple[FailedCall, ...]:
        """Return what is new since the last time."""
        new, self._new = tuple(self._new), []
        return new


def shown(text: str, most: int = _SHOWN_CHARS) -> str:
    """Return a text in one line, cut, and escaped where it does not print."""
    return printable(text[:most]) + (f"… ({len(text):,} characters)" if len(text) > most else "")


def _around_difference(expected: str, came: str) -> tuple[str, str]:
    """Return both from shortly before where they differ, if that is not in what is shown."""
    start = _common_prefix(expected, came) - _BEFORE_DIFFERENCE
    if start < _SHOWN_CHARS // 2 or not expected or not came:
        return shown(expected), shown(came)
    return _from(start, expected), _from(start, came)


def _from(start: int, text: str) -> str:
    return f"(from character {start:,}) …{shown(text[start:])}"


def _common_prefix(one: str, other: str) -> int:
    """Return how many characters the beginnings have in common, in few comparisons."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
