"""What loads and servers have shown, in sentences (no I/O)."""

from collections.abc import Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.bench.sweep_figures import knee_of
from capnp_rig.loadtest.report.codec_view import NOISY
from capnp_rig.loadtest.report.document import Claim
from capnp_rig.loadtest.report.flight_curve import knee_text
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import (
    count_text,
    interval_text,
    plural,
    ratio_text,
    sentence,
    share_text,
    size_text,
    time_text,
    times_text,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.load_samples import stored_verdict
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of, text_of
from capnp_rig.loadtest.stats.run_summary import Summary
from capnp_rig.loadtest.stats.slo import VERIFICATIONS

SERVERS, LOADS = "Servers", "Load"
_OWN_STACK = "capnp"
# Of the reasons why figures are void, so many are told.
_NAMED = 3


# --- a candidate and a baseline, in pairs ----------------------------------------------------


def pair_claims(source: Source) -> list[Claim]:
    """Return a sentence per load of a bench-server or bench-locust."""
    loads = dict.fromkeys(
        str(one.labels["load"]) for one in source.figures if one.labels.get("kind") == "ratio"
    )
    return [_pair_claim(source, load) for load in loads]


def _pair_claim(source: Source, load: str) -> Claim:
    own = [one for one in source.figures if one.labels.get("load") == load]
    ratios = {one.labels["what"]: one for one in own if one.labels.get("kind") == "ratio"}
    values = {
        (one.labels["subject"], one.labels["what"]): one
        for one in own
        if one.labels.get("kind") == "value"
    }
    noun = "users" if source.kind == "bench-locust" else "connections"
    parts = [
        pair_clause(what, ratio, values)
        for what, ratio in ratios.items()
        if ratio.value is not None
    ]
    details = [
        f"{what}: {pair_detail(ratio)}" for what, ratio in ratios.items() if ratio.value is not None
    ]
    return Claim(
        SERVERS if source.kind == "bench-server" else LOADS,
        sentence(f"{load_text(load, noun)}: {'; '.join(parts)}"),
        "; ".join(details),
        void=_common_void(list(ratios.values())),
    )


def _common_void(figures: Sequence[Figure]) -> str:
    """Return why all of some figures are void, empty where one is not."""
    if not figures or any(one.verdict != "void" for one in figures):
        return ""
    return "; ".join(dict.fromkeys(one.reason or "no reason given" for one in figures))


def load_text(load: str, noun: str = "connections") -> str:
    """Return a load such as ``64 x 1`` in words."""
    connections, _, in_flight = load.partition(" x ")
    if not connections.isdigit() or not in_flight.isdigit():
        return load
    flight = "1 call" if in_flight == "1" else f"{in_flight} calls"
    return f"{connections} {noun} with {flight} in flight each"


def pair_clause(what: str, ratio: Figure, values: Mapping[tuple[str, str], Figure]) -> str:
    """Return who does better at something, and by how much, as a clause."""
    own, rival = str(ratio.labels["subject"]), str(ratio.labels["baseline"])
    assert ratio.value is not None
    if ratio.verdict == "void":
        return f"no verdict on {what}"
    named = f"{what} of {own} and {rival}"
    floor = ratio.labels.get("floor")
    # As `loadtest compare` has it: beyond such a floor everything would pass as the same.
    if ratio.verdict == "same" and (floor is None or floor <= NOISY):
        return f"{named} are the same"
    if ratio.verdict not in {"faster", "slower"}:
        return f"{named} cannot be told apart"
    ahead, behind, times = own, rival, ratio.value
    if ratio.verdict == "slower":
        ahead, behind, times = rival, own, 1 / ratio.value
    least = "at least " if ReasonCode.LOWER_BOUND in codes_of(ratio.reasons) else ""
    order = (ahead, behind) if what == "calls/s" else (behind, ahead)
    shown = [_value(values.get((one, what))) for one in order]
    against = f" ({shown[0]} against {shown[1]})" if all(shown) else ""
    if what == "calls/s":
        return f"{ahead} makes {least}{times_text(times)} times the calls of {behind}{against}"
    return f"{behind} takes {least}{times_text(times)} times the {what} of {ahead}{against}"


def _value(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return ""
    text = time_text(figure.value * 1000) if figure.unit == "µs" else count_text(figure.value)
    unit = "" if figure.unit == "µs" else f" {figure.unit}"
    return f"{'at least ' if figure.verdict == 'at least' else ''}{text}{unit}"


def pair_detail(ratio: Figure) -> str:
    """Return a ratio with what it rests on: interval, A/A floor, rounds."""
    interval = interval_text(ratio.low, ratio.high, ratio_text)
    floor = ratio.labels.get("floor")
    said = "no A/A floor" if floor is None else f"A/A floor {share_text(floor)}"
    shown = f"{ratio_text(ratio.value)} ({interval or 'no interval'})"
    return f"{shown}, {said}, {plural(ratio.n, 'round')}"


# --- loads -----------------------------------------------------------------------------------


def search_claim(source: Source) -> Claim:
    """Return the answer of a search."""
    found, slo = source.document["found"], str(source.config.get("slo", "the objective"))
    rate, failing, limit = found["rate_hz"], found["failing_hz"], found["limit"]
    if rate is None:
        text = f"no rate was verified to keep the objective {slo}"
    else:
        kept = f"{found['verified']} of {VERIFICATIONS} verifications kept it"
        text = f"the objective {slo} holds up to {rate:,g} calls/s ({kept})"
    if failing is None:
        text += "; that is the highest rate that was allowed"
    else:
        text += f"; it fails at {failing:,g} calls/s, where the limit was the {limit}"
    probes = sum(len(kept) for _, kept in found["outcomes"])
    return Claim(
        LOADS,
        sentence(text),
        f"{plural(probes, 'probe')}, {_load_in_words(source.config['load'])}",
    )


def sweep_claim(source: Source) -> Claim:
    """Return how high the rate goes with more calls in flight."""
    knee = knee_of(source.figures)
    rounds = plural(int(source.config["rounds"]), "round")
    detail = f"{rounds}, {_load_in_words(source.config['load'])}"
    if knee is None:
        return Claim(LOADS, "No rate by calls in flight can be told.", detail, "all of it is void")
    return Claim(LOADS, sentence(f"with callers that wait, {knee_text(knee)}"), detail)


def load_claim(source: Source, summary: Summary) -> Claim:
    """Return what a load run has seen, and whether it may be believed."""
    verdict, reasons = stored_verdict(source.document) or (summary.verdict, summary.reasons)
    times = {
        percent: time_text(summary.response.percentile_ns(percent))
        for percent in (50.0, 99.0, 99.9)
    }
    if summary.is_open_loop:
        when = f"at {count_text(summary.calls_per_s)} calls/s, due on a schedule,"
        clock = "response times"
    else:
        when = f"at {count_text(summary.calls_per_s)} calls/s, as many as callers that wait make,"
        clock = "service times"
    who = "Locust: " if source.kind == "locust" else ""
    text = (
        f"{who}{when} half of the {clock} were under {times[50.0]}, "
        f"99 % under {times[99.0]}, 99.9 % under {times[99.9]}"
    )
    void = "" if verdict == "valid" else text_of(reasons) or "no reason given"
    detail = f"{count_text(summary.calls)} calls, {count_text(summary.errors)} failed"
    return Claim(LOADS, sentence(text), f"{detail}, {_load_in_words(source.config)}", void)


def _load_in_words(config: Mapping[str, Any]) -> str:
    parts = []
    connections = config.get("connections") or config.get("num_users")
    if connections:
        noun = "connection" if config.get("connections") else "user"
        each = config.get("in_flight")
        flight = "" if each is None else f" x {each} in flight"
        parts.append(f"{plural(int(connections), noun)}{flight}")
    workload = config.get("workload")
    payload = (workload if isinstance(workload, dict) else config).get("payload_bytes")
    if isinstance(payload, int):
        parts.append(f"{size_text(payload)} texts")
    stack = config.get("stack")
    if isinstance(stack, str) and stack != _OWN_STACK:
        parts.append(f"stack {stack}")
    return ", ".join(parts) or "its load is in run.json"


# --- what is void ----------------------------------------------------------------------------


def void_flags(sources: Sequence[Source]) -> list[str]:
    """Return how many figures of each source are void, and for which reasons, most common first."""
    found = []
    for source in sources:
        voids = [one for one in source.figures if one.verdict == "void"]
        if not voids:
            continue
        counts: dict[str, int] = {}
        for one in voids:
            reason = one.reason or "no reason given"
            counts[reason] = counts.get(reason, 0) + 1
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        said = "; ".join(f"{reason} ({count:,})" for reason, count in ordered[:_NAMED])
        more = f"; and {len(ordered) - _NAMED} more reasons" if len(ordered) > _NAMED else ""
        share = f"{len(voids):,} of {len(source.figures):,} figures are void"
        found.append(f"{source.kind}: {share}: {said}{more}")
    return found
