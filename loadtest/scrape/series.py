"""What a Prometheus endpoint says, as plain numbers by series (no I/O).

A series is named as Prometheus writes it: ``http_requests_total{code="200"}``. Of histograms and
summaries the sums and counts are kept: their buckets and quantiles would be most of all that is
read, and what a load run shows of them, the mean between two scrapes, needs neither.

The format is that of https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from sys import intern
from typing import Any

# Of one endpoint: a run of an hour with more would fill the disk before it tells anybody anything.
MOST_SERIES = 500
_DROPPED = ("_bucket", "_created")
_COUNTED = frozenset({"counter", "histogram", "summary"})


class ScrapeError(Exception):
    """What was read is no page of metrics; the message says why."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """One reading: the values by series, and which of them count up."""

    values: Mapping[str, float]
    counters: frozenset[str]
    # Series beyond `MOST_SERIES`.
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Scraped:
    """What one endpoint said in a run: readings with their seconds since the window opened.

    `failed` scrapes brought nothing, the last of them for the reason `error`.
    """

    url: str
    readings: tuple[tuple[float, Mapping[str, float]], ...] = ()
    counters: frozenset[str] = frozenset()
    left_out: int = 0
    failed: int = 0
    error: str = ""

    @property
    def note(self) -> str:
        """What is missing of what the endpoint had to say; empty where nothing is."""
        notes = []
        if self.failed:
            tried = self.failed + len(self.readings)
            notes.append(f"{self.failed} of {tried} readings failed, the last one: {self.error}")
        if self.left_out:
            notes.append(f"{self.left_out} series beyond {MOST_SERIES} are left out")
        return f"{self.url}: {'; '.join(notes)}" if notes else ""


def read_metrics(text: str) -> Metrics:
    """Return what a page of metrics says.

    Values that are no finite numbers are left out.

    Raises:
        ScrapeError: The text is no page of metrics, or has none.
    """
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    counters: set[str] = set()
    try:
        for family in text_string_to_metric_families(text):
            for name, labels, value in _samples(family):
                # The same text in every reading of a run: a run of hours has thousands.
                series = intern(_series(name, labels))
                values[series] = value
                if family.type in _COUNTED:
                    counters.add(series)
    # The parser has no error of its own.
    except Exception as error:
        raise ScrapeError(f"it is no page of Prometheus metrics: {_one_line(error)}") from error
    if not values:
        raise ScrapeError("it has no metrics")
    kept = dict(islice(values.items(), MOST_SERIES))
    return Metrics(kept, frozenset(counters & kept.keys()), len(values) - len(kept))


def _samples(family: Any) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for sample in family.samples:
        is_quantile = family.type == "summary" and "quantile" in sample.labels
        if is_quantile or sample.name.endswith(_DROPPED) or not math.isfinite(sample.value):
            continue
        yield sample.name, sample.labels, float(sample.value)


def _series(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def family_of(series: str) -> str:
    """Return the name in front of a series' labels."""
    return series.partition("{")[0]


def labels_of(series: str) -> str:
    """Return the labels of a series as they are written, without braces; empty without any."""
    return series.partition("{")[2].removesuffix("}")


def rates(readings: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return how much a counter grew per second between readings, each with the later time.

    A counter that fell has begun anew, so what it says counts from 0, as Prometheus has it.
    """
    return [
        (at_s, (value - before if value >= before else value) / (at_s - before_s))
        for (before_s, before), (at_s, value) in pairwise(readings)
        if at_s > before_s
    ]
