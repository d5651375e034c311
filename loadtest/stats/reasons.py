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
from typing import Any, Self

Value = float | str


class ReasonCode(StrEnum):
    """What is to be said of a figure, or of a run as a whole: a code, and its words."""

    template: str

    def __new__(cls, code: str, template: str = "") -> Self:
        """Make the member whose value is `code`."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.template = template
        return member

    # The load.
    ENGINE_LOST = ("engine-lost", "lost in the run: {cause}")
    INTERRUPTED = ("interrupted", "interrupted after {seconds:.1f} s")
    ENDED_EARLY = ("ended-early", "ended early")
    CALLS_FAILED = ("calls-failed", "{count:,} calls failed")
    CALLS_FAILED_MOSTLY = (
        "calls-failed-mostly",
        "{count:,} calls failed, {most:,} of them: {kind}",
    )
    CRITERION_MISSED = ("criterion-missed", "{bound} {limit:g} was asked for")
    NO_CALLS = ("no-calls", "no call was answered rightly")
    EMPTY_ROUND = ("empty-round", "a round had no calls")
    SCHEDULE_MISSED = ("schedule-missed", "{share:.1%} of the schedule was answered")
    GENERATOR_BUSY = (
        "generator-busy",
        "the generator was {busy:.0%} busy: the rate is a lower bound",
    )
    GENERATOR_LIMITED = (
        "generator-limited",
        "the generator was {busy:.0%} busy, the server {server:.0%}",
    )
    GENERATOR_LATE = (
        "generator-late",
        (
            "the generator was late: p99 {late_us:,.0f} µs, over a tenth of the median response, "
            "{median_us:,.0f} µs"
        ),
    )
    LATE_FOR_IT = (
        "late-for-it",
        "calls left late: p99 {late_us:,.0f} µs, over a tenth of it, {value_us:,.0f} µs",
    )
    GENERATOR_LATE_OR_BUSY = ("generator-late-or-busy", "the generator was late or busy")
    SERVER_BUSY = ("server-busy", "the server was {busy:.0%} busy")
    LOWER_BOUND = ("lower-bound", "a lower bound")
    FEW_SAMPLES = ("few-samples", "too few samples: under {least:g} calls beyond p99")
    FEW_BEYOND = ("few-beyond", "under {least:g} calls beyond it")
    TOO_SHORT = (
        "too-short",
        "under {least:g} calls beyond it: that takes about {seconds:,.0f} s at this rate",
    )
    STEAL = ("steal", "{share:.1%} of the CPU time was stolen by other machines")
    CPU_WAIT = (
        "cpu-wait",
        "{process} waited {share:.1%} of the time for a CPU, over {limit:.0%}: {culprit}",
    )
    THROTTLED = (
        "cpu-throttled",
        "{process} was throttled by its cgroup {count:,} times, for {seconds:.2f} s",
    )
    NEITHER_BUSY = (
        "neither-busy",
        (
            "neither the server ({server:.0%} busy) nor the generator ({generator:.0%}) was busy, "
            "and for {paused:.0%} of the time none of {in_flight:,} calls in flight was answered: "
            "a process was stopped, or the service stops all at once"
        ),
    )
    DRIFTED = (
        "drifted",
        "the run drifted by {change:.0%}: {first:,.0f} {unit} at first, {last:,.0f} at the end",
    )
    CPU_NOT_READABLE = (
        "cpu-not-readable",
        "not readable: the server is elsewhere, or a worker came or went",
    )
    LITTLE_CPU = ("little-cpu", "under {least_s:g} s of server CPU")
    OFF_LITTLES_LAW = (
        "off-littles-law",
        "over {margin:.0%} from the {asked:,} that were asked for",
    )
    NO_VERIFIED_RATE = ("no-verified-rate", "no rate was verified")
    REPORTS_MISSING = ("reports-missing", "{count:,} worker(s) did not send their last report")
    # Ratios and intervals.
    NO_PAIRS = ("no-pairs", "no pairs")
    FEW_PAIRS = ("few-pairs", "under {least:g} pairs")
    NO_FLOOR = ("no-floor", "no A/A pairs")
    WIDER_THAN_MARGIN = (
        "wider-than-margin",
        "the interval holds 1 and reaches beyond the margin of {margin:.1%}",
    )
    WITHIN_FLOOR = ("within-floor", "the ratio lies within the A/A floor of {floor:.1%}")
    MORE_NEEDED = ("more-needed", "some {count:,d} more {unit} would tell, with {power:.0%} power")
    # Those of earlier versions, whose margin grew with the noise.
    NEAR_MARGIN = ("near-margin", "within or too near the margin of {margin:.1%}")
    NOISY = ("noisy", "too noisy: A/A differs by {floor:.0%}")
    NOISE_FLOOR = ("noise-floor", "noise floor")
    PLAIN_RANGE = ("plain-range", "interval is the plain range")
    FEW_PROCESSES = ("few-processes", "too few processes for an interval")
    # Where a ratio crosses 1.
    AHEAD = ("ahead", "ahead throughout")
    AHEAD_BY_ESTIMATE = ("ahead-by-estimate", "ahead throughout, by the estimate alone")
    BEHIND = ("behind", "behind throughout")
    BEHIND_BY_ESTIMATE = ("behind-by-estimate", "behind throughout, by the estimate alone")
    BELOW_MEASURED = ("below-measured", "the interval reaches below what was measured")
    BEYOND_MEASURED = ("beyond-measured", "the interval reaches beyond what was measured")
    # One result against another.
    NOT_MEASURED = ("not-measured", "not measured everywhere")
    FEW_UNITS = ("few-units", "{count:d} measured, at least {least:d}")
    FEW_SECONDS = ("few-seconds", "too few seconds: {count:d}, at least {least:d}")
    CPU_NOT_KNOWN = ("cpu-not-known", "the server's CPU time is not known")
    CPU_NOT_SAMPLED = (
        "cpu-not-sampled",
        "the server's CPU time was not sampled all the time",
    )
    NO_HIGHER_RATE = ("no-higher-rate", "no higher rate was allowed")
    GENERATOR_WAS_LIMIT = ("generator-was-limit", "the limit was the generator")
    MACHINE_WAS_LIMIT = ("machine-was-limit", "the limit was a disturbed machine")
    VALUE_OF_ZERO = ("value-of-zero", "a value of zero")
    # What of the replies nobody compared.
    CHECK_ID = ("check-id", "content not checked: --check id")
    NO_EXPECT = ("no-expect", "content not checked: no --expect for {what}")
    EMPTY_EXPECT = ("empty-expect", "content not checked: --expect names no field")
    NO_VALUES = ("no-values", "content not checked: the results have no value to compare")
    FIELDS_LEFT_OUT = ("fields-left-out", "content not checked of {fields}, which --expect lacks")
    CAPABILITIES = ("capabilities", "content not checked of {fields}: no value to compare")
    NO_CHECK = ("no-check", "content not checked: {label} has neither check nor expect")
    # The rest.
    NOT_READABLE = ("not-readable", "not readable")
    OTHER = ("other", "{text}")


# What the service did wrong, which takes no trust from the figures.
FAILURES = frozenset({ReasonCode.CALLS_FAILED, ReasonCode.CALLS_FAILED_MOSTLY, ReasonCode.NO_CALLS})

# Why nobody can tell whether a ratio is other than 1.
OF_VERDICTS = frozenset(
    {
        ReasonCode.WIDER_THAN_MARGIN,
        ReasonCode.WITHIN_FLOOR,
        ReasonCode.MORE_NEEDED,
        ReasonCode.NEAR_MARGIN,
        ReasonCode.NOISY,
    }
)
# Words that results of earlier versions have for the same.
_EARLIER_TEXTS: tuple[tuple[ReasonCode, str], ...] = (
    (ReasonCode.GENERATOR_BUSY, "the generator was {busy:.0%} busy"),
    (
        ReasonCode.GENERATOR_LATE,
        "lateness p99 {late_us:,.0f} µs, over a tenth of p50 {median_us:,.0f} µs",
    ),
    (ReasonCode.NO_CALLS, "no call was answered"),
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
        words = self.code.template.format(**dict(self.values))
        return f"{self.subject}{_SUBJECT_END}{words}" if self.subject else words

    @property
    def is_failure(self) -> bool:
        """Whether it is a failure of the service, and no doubt about the figures."""
        return self.code in FAILURES

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


def doubts_of(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return the reasons to doubt the figures: those that are no failures of the service."""
    return tuple(reason for reason in reasons if not reason.is_failure)


def codes_of(reasons: Iterable[Reason]) -> frozenset[ReasonCode]:
    """Return the codes of some reasons."""
    return frozenset(reason.code for reason in reasons)


def likeness(reason: Reason) -> str:
    """Return what reasons that differ in their numbers alone have in common."""
    return reason.text if reason.code is ReasonCode.OTHER else f"{reason.code} {reason.subject}"


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
    if colon and subject == ReasonCode.LOWER_BOUND.template:
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
    texts = [(code, code.template) for code in ReasonCode if code is not ReasonCode.OTHER]
    return tuple((code, _pattern(text)) for code, text in (*texts, *_EARLIER_TEXTS))


def _pattern(template: str) -> re.Pattern[str]:
    pattern = ""
    for literal, name, spec, _ in Formatter().parse(template):
        pattern += re.escape(literal)
        if name:
            percent = "%" if spec and spec.endswith("%") else ""
            pattern += f"(?P<{name}>{f'[0-9][0-9.,]*{percent}' if spec else '.+'})"
    return re.compile(pattern)


def _value(shown: str) -> Value:
    number = shown.removesuffix("%").replace(",", "")
    try:
        value = float(number)
    except ValueError:
        return shown
    if shown.endswith("%"):
        return value / 100
    return int(value) if value.is_integer() else value
