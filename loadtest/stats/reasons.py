"""Why a figure is void, a lower bound or not plain: codes and their only words (no I/O).

Code decides on a `ReasonCode`; `Reason.text` makes the words for people and for ``reason`` in a
result. Results from before the codes have only these words: `reasons_of_text` reads them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from string import Formatter
from typing import Any

Value = float | str


class ReasonCode(StrEnum):
    """What is to be said of a figure, or of a run as a whole."""

    # The load.
    INTERRUPTED = "interrupted"
    CALLS_FAILED = "calls-failed"
    CALLS_FAILED_MOSTLY = "calls-failed-mostly"
    NO_CALLS = "no-calls"
    EMPTY_ROUND = "empty-round"
    SCHEDULE_MISSED = "schedule-missed"
    GENERATOR_BUSY = "generator-busy"
    GENERATOR_LIMITED = "generator-limited"
    GENERATOR_LATE = "generator-late"
    GENERATOR_LATE_OR_BUSY = "generator-late-or-busy"
    SERVER_BUSY = "server-busy"
    LOWER_BOUND = "lower-bound"
    FEW_SAMPLES = "few-samples"
    FEW_BEYOND = "few-beyond"
    STEAL = "steal"
    DRIFTED = "drifted"
    CPU_NOT_READABLE = "cpu-not-readable"
    LITTLE_CPU = "little-cpu"
    OFF_LITTLES_LAW = "off-littles-law"
    NO_VERIFIED_RATE = "no-verified-rate"
    REPORTS_MISSING = "reports-missing"
    # Ratios and intervals.
    NO_PAIRS = "no-pairs"
    FEW_PAIRS = "few-pairs"
    NO_FLOOR = "no-floor"
    NEAR_MARGIN = "near-margin"
    NOISY = "noisy"
    NOISE_FLOOR = "noise-floor"
    PLAIN_RANGE = "plain-range"
    FEW_PROCESSES = "few-processes"
    # Where a ratio crosses 1.
    AHEAD = "ahead"
    AHEAD_BY_ESTIMATE = "ahead-by-estimate"
    BEHIND = "behind"
    BEHIND_BY_ESTIMATE = "behind-by-estimate"
    BELOW_MEASURED = "below-measured"
    BEYOND_MEASURED = "beyond-measured"
    # The rest.
    NOT_READABLE = "not-readable"
    OTHER = "other"


_TEXTS: Mapping[ReasonCode, str] = {
    ReasonCode.INTERRUPTED: "interrupted after {seconds:.1f} s",
    ReasonCode.CALLS_FAILED: "{count:,} calls failed",
    ReasonCode.CALLS_FAILED_MOSTLY: "{count:,} calls failed, {most:,} of them: {kind}",
    ReasonCode.NO_CALLS: "no call was answered",
    ReasonCode.EMPTY_ROUND: "a round had no calls",
    ReasonCode.SCHEDULE_MISSED: "{share:.1%} of the schedule was answered",
    ReasonCode.GENERATOR_BUSY: "the generator was {busy:.0%} busy: the rate is a lower bound",
    ReasonCode.GENERATOR_LIMITED: "the generator was {busy:.0%} busy, the server {server:.0%}",
    ReasonCode.GENERATOR_LATE: (
        "the generator was late: p99 {late_us:,.0f} µs, over a tenth of the median response, "
        "{median_us:,.0f} µs"
    ),
    ReasonCode.GENERATOR_LATE_OR_BUSY: "the generator was late or busy",
    ReasonCode.SERVER_BUSY: "the server was {busy:.0%} busy",
    ReasonCode.LOWER_BOUND: "a lower bound",
    ReasonCode.FEW_SAMPLES: "too few samples: under {least:g} calls beyond p99",
    ReasonCode.FEW_BEYOND: "under {least:g} calls beyond it",
    ReasonCode.STEAL: "{share:.1%} of the CPU time was stolen by other machines",
    ReasonCode.DRIFTED: (
        "the run drifted by {change:.0%}: {first:,.0f} {unit} at first, {last:,.0f} at the end"
    ),
    ReasonCode.CPU_NOT_READABLE: "not readable: the server is elsewhere, or a worker came or went",
    ReasonCode.LITTLE_CPU: "under {least_s:g} s of server CPU",
    ReasonCode.OFF_LITTLES_LAW: "over {margin:.0%} from the {asked:,} that were asked for",
    ReasonCode.NO_VERIFIED_RATE: "no rate was verified",
    ReasonCode.REPORTS_MISSING: "{count:,} worker(s) did not send their last report",
    ReasonCode.NO_PAIRS: "no pairs",
    ReasonCode.FEW_PAIRS: "under {least:g} pairs",
    ReasonCode.NO_FLOOR: "no A/A pairs",
    ReasonCode.NEAR_MARGIN: "within or too near the margin of {margin:.1%}",
    ReasonCode.NOISY: "too noisy: A/A differs by {floor:.0%}",
    ReasonCode.NOISE_FLOOR: "noise floor",
    ReasonCode.PLAIN_RANGE: "interval is the plain range",
    ReasonCode.FEW_PROCESSES: "too few processes for an interval",
    ReasonCode.AHEAD: "ahead throughout",
    ReasonCode.AHEAD_BY_ESTIMATE: "ahead throughout, by the estimate alone",
    ReasonCode.BEHIND: "behind throughout",
    ReasonCode.BEHIND_BY_ESTIMATE: "behind throughout, by the estimate alone",
    ReasonCode.BELOW_MEASURED: "the interval reaches below what was measured",
    ReasonCode.BEYOND_MEASURED: "the interval reaches beyond what was measured",
    ReasonCode.NOT_READABLE: "not readable",
    ReasonCode.OTHER: "{text}",
}
# Words that results of earlier versions have for the same.
_EARLIER_TEXTS: tuple[tuple[ReasonCode, str], ...] = (
    (ReasonCode.GENERATOR_BUSY, "the generator was {busy:.0%} busy"),
    (
        ReasonCode.GENERATOR_LATE,
        "lateness p99 {late_us:,.0f} µs, over a tenth of p50 {median_us:,.0f} µs",
    ),
    (ReasonCode.CPU_NOT_READABLE, "not readable: a process of the server came or went"),
)
_SEPARATOR, _SUBJECT_END = "; ", ": "


@dataclass(frozen=True, slots=True)
class Reason:
    """A code with its numbers; `subject` is what it is of, where that is not the figure itself."""

    code: ReasonCode
    values: tuple[tuple[str, Value], ...] = ()
    subject: str = ""

    @classmethod
    def of(cls, code: ReasonCode, *, subject: str = "", **values: Value) -> "Reason":
        """Return a reason with the numbers that its text needs."""
        return cls(code, tuple(values.items()), subject)

    @property
    def text(self) -> str:
        """The reason in words."""
        words = _TEXTS[self.code].format(**dict(self.values))
        return f"{self.subject}{_SUBJECT_END}{words}" if self.subject else words

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        subject = {"subject": self.subject} if self.subject else {}
        return {"code": str(self.code), **subject, **dict(self.values)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Reason":
        """Return what `to_json` made.

        Raises:
            ValueError: The code is unknown.
            KeyError: A number is missing that its text needs.
        """
        values = {name: value for name, value in plain.items() if name not in {"code", "subject"}}
        subject = str(plain.get("subject", ""))
        reason = cls(ReasonCode(plain["code"]), tuple(values.items()), subject)
        reason.text  # noqa: B018 - shows that every number is there
        return reason


def text_of(reasons: Iterable[Reason]) -> str:
    """Return reasons in one line, each once; empty without any."""
    return _SEPARATOR.join(dict.fromkeys(reason.text for reason in reasons))


def codes_of(reasons: Iterable[Reason]) -> frozenset[ReasonCode]:
    """Return the codes of some reasons."""
    return frozenset(reason.code for reason in reasons)


def likeness(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """Return what reasons that differ in their numbers alone have in common."""
    return tuple(
        reason.text if reason.code is ReasonCode.OTHER else f"{reason.code} {reason.subject}"
        for reason in reasons
    )


def reasons_of_text(text: str) -> tuple[Reason, ...]:
    """Return the reasons that `text_of` has put into words, in this version or an earlier one."""
    return tuple(
        reason for part in text.split(_SEPARATOR) if part for reason in _reasons_of_part(part)
    )


def _reasons_of_part(text: str) -> list[Reason]:
    reason = _known(text)
    if reason is not None:
        return [reason]
    subject, colon, rest = text.partition(_SUBJECT_END)
    if colon and subject == _TEXTS[ReasonCode.LOWER_BOUND]:
        # Earlier versions joined the two by a colon.
        return [Reason(ReasonCode.LOWER_BOUND), *_reasons_of_part(rest)]
    reason = _known(rest) if colon else None
    if reason is None:
        return [Reason.of(ReasonCode.OTHER, text=text)]
    return [Reason(reason.code, reason.values, subject)]


def _known(text: str) -> Reason | None:
    for code, pattern in _patterns():
        match = pattern.fullmatch(text)
        if match is not None:
            values = {name: _value(shown) for name, shown in match.groupdict().items()}
            return Reason(code, tuple(values.items()))
    return None


@cache
def _patterns() -> tuple[tuple[ReasonCode, re.Pattern[str]], ...]:
    texts = [(code, text) for code, text in _TEXTS.items() if code is not ReasonCode.OTHER]
    return tuple((code, _pattern(text)) for code, text in (*texts, *_EARLIER_TEXTS))


def _pattern(template: str) -> re.Pattern[str]:
    found = ""
    for literal, name, spec, _ in Formatter().parse(template):
        found += re.escape(literal)
        if name:
            percent = "%" if spec and spec.endswith("%") else ""
            found += f"(?P<{name}>{f'[0-9][0-9.,]*{percent}' if spec else '.+'})"
    return re.compile(found)


def _value(shown: str) -> Value:
    number = shown.removesuffix("%").replace(",", "")
    try:
        value = float(number)
    except ValueError:
        return shown
    if shown.endswith("%"):
        return value / 100
    return int(value) if value.is_integer() else value
