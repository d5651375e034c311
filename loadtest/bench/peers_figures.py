"""What the comparison of peers' layouts says, from its samples alone (no I/O).

Values are medians over the rounds, with their interval. What is said in times of another value is
paired: both of the same round, or process.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from capnp_rig.loadtest.bench.pair_figures import (
    CONTRACT,
    interval_figure,
    median_figure,
    ratio_figures,
    value_figure,
    value_labels,
    voided,
)
from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE
from capnp_rig.loadtest.peers.frames import LAYOUTS, OURS
from capnp_rig.loadtest.stats.disturbance import BUSY_LIMIT, round_disturbances
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.pair_statistics import paired_ratio
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

# Who is measured: the engines, our own one a second time, a server that only answers, and the
# generator, against servers that only answer.
WIRE, PYCAPNP, CANNED, GENERATOR = "wire", "pycapnp", "canned answers", "loadtest run"
_ENGINES = {CANDIDATE: WIRE, BASELINE: PYCAPNP}
SERVER_CPU, OWN_CPU, CALLS = "server CPU per call", "generator CPU per call", "calls/s"
TIMES_BEST, TIMES_CANNED = "CPU per call in times of the best layout", "CPU per call in times of"
_TIMES, _TIMES_OURS = "times", "in times of ours"


@dataclass(frozen=True, slots=True)
class PeerSample:
    """What `subject` did in one round, in the layout of `peer`; `again` is its second turn.

    `cpu_s` is what the generator used in the window of `seconds`, `server_cpu_s` what the server
    did; `surroundings` is what the machine did to both, made plain.
    """

    round: int
    order: int
    peer: str
    subject: str
    again: bool
    connections: int
    in_flight: int
    calls: int
    seconds: float
    cpu_s: float
    server_cpu_s: float
    surroundings: Mapping[str, Any] | None = None

    @property
    def cpu_us_per_call(self) -> float:
        """CPU µs per call of what is measured: the server, or the generator."""
        cpu_s = self.cpu_s if self.subject == GENERATOR else self.server_cpu_s
        return cpu_s * 1e6 / self.calls

    @property
    def seconds_per_call(self) -> float:
        """The seconds of the window per call."""
        return self.seconds / self.calls


class Place(NamedTuple):
    """Under what something is measured: a load, and the layout of a peer."""

    connections: int
    in_flight: int
    peer: str

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.peer}, {self.connections} x {self.in_flight}"


_Places = Mapping[Place, Mapping[str, Sequence[PeerSample]]]


def by_place(samples: Iterable[PeerSample]) -> dict[Place, dict[str, list[PeerSample]]]:
    """Return samples in the order of rounds, by place and subject; its second turns are `AGAIN`."""
    places: dict[Place, dict[str, list[PeerSample]]] = {}
    for each in sorted(samples, key=lambda each: each.round):
        place = Place(each.connections, each.in_flight, each.peer)
        subject = AGAIN if each.again else each.subject
        places.setdefault(place, {}).setdefault(subject, []).append(each)
    return places


def figures(
    samples: Iterable[PeerSample], in_memory_ns: Sequence[Mapping[str, float]]
) -> list[Figure]:
    """Return the figures of a run: of the server, of the generator, and in memory."""
    places = by_place(samples)
    disturbed = {
        place: round_disturbances(each.surroundings for some in subjects.values() for each in some)
        for place, subjects in places.items()
    }
    listed: list[Figure] = []
    for place in sorted(places, key=lambda each: (-each.connections, [*LAYOUTS].index(each.peer))):
        subjects = places[place]
        own = _of_server if WIRE in subjects else _of_generator
        listed += voided(own(place, subjects), disturbed[place])
        best = _best_of(places, place)
        reasons = disturbed[place] or disturbed[best]
        listed += voided([_times_best(places, place, best)], reasons)
    return listed + list(in_memory_figures(in_memory_ns))


def _subject(subjects: Mapping[str, Any]) -> str:
    return WIRE if WIRE in subjects else GENERATOR


def _best_of(places: _Places, place: Place) -> Place:
    """Return the place under the same load where a call costs least."""
    subject = _subject(places[place])
    alike = [each for each in places if each[:2] == place[:2] and subject in places[each]]
    return min(alike, key=lambda each: median(_cpu(places[each][subject])))


def _cpu(samples: Iterable[PeerSample]) -> list[float]:
    return [each.cpu_us_per_call for each in samples]


def _times(
    load: str, subject: str, what: str, values: Sequence[float], of: Sequence[float]
) -> Figure:
    labels = value_labels(load, subject, what)
    return interval_figure(
        f"{load}: {subject} {what}", paired_ratio(values, of), _TIMES, CONTRACT, labels
    )


def _times_best(places: _Places, place: Place, best: Place) -> Figure:
    subject = _subject(places[place])
    own, least = (_cpu(places[each][subject]) for each in (place, best))
    return _times(place.name, subject, TIMES_BEST, own, least)


def _of_server(place: Place, subjects: Mapping[str, Sequence[PeerSample]]) -> Iterator[Figure]:
    costs = {subject: _cpu(some) for subject, some in subjects.items()}
    for subject in (WIRE, PYCAPNP, CANNED):
        yield value_figure(place.name, subject, SERVER_CPU, "µs", costs[subject])
    for subject in (WIRE, PYCAPNP, CANNED):
        yield _rate(place, subject, subjects[subject])
    yield _times(place.name, WIRE, f"{TIMES_CANNED} {CANNED}", costs[WIRE], costs[CANNED])
    of_role = {CANDIDATE: costs[WIRE], BASELINE: costs[PYCAPNP], AGAIN: costs[AGAIN]}
    yield from ratio_figures(place.name, SERVER_CPU, _ENGINES, of_role, twice=CANDIDATE)


def _of_generator(place: Place, subjects: Mapping[str, Sequence[PeerSample]]) -> Iterator[Figure]:
    samples = subjects[GENERATOR]
    busy = max(each.server_cpu_s / each.seconds for each in samples)
    limits = [Reason.of(ReasonCode.SERVER_BUSY, busy=busy)] if busy > BUSY_LIMIT else []
    rates = [1 / each.seconds_per_call for each in samples]
    yield value_figure(place.name, GENERATOR, CALLS, "calls/s", rates, *limits)
    yield value_figure(place.name, GENERATOR, OWN_CPU, "µs", _cpu(samples))
    if AGAIN in subjects:
        costs = {BASELINE: _cpu(samples), AGAIN: _cpu(subjects[AGAIN])}
        names = dict.fromkeys((BASELINE, CANDIDATE), GENERATOR)
        of_role = {**costs, CANDIDATE: costs[BASELINE]}
        yield ratio_figures(place.name, OWN_CPU, names, of_role)[0]


def _rate(place: Place, subject: str, samples: Sequence[PeerSample]) -> Figure:
    busy = max(each.cpu_s / each.seconds for each in samples)
    limits = [Reason.of(ReasonCode.GENERATOR_BUSY, busy=busy)] if busy > BUSY_LIMIT else []
    rates = [1 / each.seconds_per_call for each in samples]
    return value_figure(place.name, subject, CALLS, "calls/s", rates, *limits)


def in_memory_figures(processes: Sequence[Mapping[str, float]]) -> Iterator[Figure]:
    """Yield the median of each case over the processes, in µs, and in times of our own layout."""
    for case in processes[0] if processes else ():
        what, _, peer = case.rpartition(": ")
        times_us = [times[case] / 1000 for times in processes]
        labels = {"kind": FigureKind.IN_MEMORY, "case": case, "subject": peer, "what": what}
        yield median_figure(f"in memory: {case}", times_us, "µs", CONTRACT, labels)
        if peer != OURS.name:
            ours = [times[f"{what}: {OURS.name}"] / 1000 for times in processes]
            name, ratio = f"in memory: {case}, {_TIMES_OURS}", paired_ratio(times_us, ours)
            other = {"case": f"{case}, {_TIMES_OURS}", "what": f"{what}, {_TIMES_OURS}"}
            yield interval_figure(name, ratio, _TIMES, CONTRACT, {**labels, **other})
