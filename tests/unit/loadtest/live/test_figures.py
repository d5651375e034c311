from capnp_rig.loadtest.live.figures import BOUNDS_NS, LiveFigures, LiveRepeats, added
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import Times, Window

WINDOW = Window(
    {
        "a": Times(Histogram.of([500, 15_000, 21_000]), Histogram.of([7_000_000])),
        "b": Times(Histogram.of([200_000_000_000])),
    },
    connects=Histogram.of([1, 2]),
    reconnects=Histogram.of([3]),
    failures={"Disconnected": 2},
)


def test_a_window_is_counted_by_bounds() -> None:
    figures = LiveFigures()
    for _ in range(2):
        figures.add(WINDOW, is_open_loop=False)
    assert figures.answered == 8
    assert figures.failures == {"Disconnected": 4}
    assert (figures.connects, figures.reconnects) == (4, 2)
    assert figures.sum_ns == 2 * 200_000_036_500
    counts = dict(zip([*BOUNDS_NS, "above"], figures.buckets, strict=True))
    # 500 ns is below all buckets of a histogram, 200 s above.
    assert {end: count for end, count in counts.items() if count} == {
        10_000: 2,
        20_000: 2,
        50_000: 2,
        "above": 2,
    }


def test_an_open_loop_tells_response_times() -> None:
    figures = LiveFigures()
    figures.add(WINDOW, is_open_loop=True)
    assert (figures.answered, figures.sum_ns) == (1, 7_000_000)


def test_figures_survive_their_way_and_add_up() -> None:
    one = LiveFigures(in_flight=3, connections=4)
    one.add(WINDOW, is_open_loop=False)
    assert LiveFigures.from_json(one.to_json()) == one
    both = added([one, one, LiveFigures()])
    assert (both.answered, both.in_flight, both.connections, both.users) == (8, 6, 8, None)
    assert both.buckets == [2 * count for count in one.buckets]


def test_runs_that_follow_each_other_count_on() -> None:
    first, second = LiveFigures(5, in_flight=9), LiveFigures(2, in_flight=1)
    repeats = LiveRepeats()
    assert repeats.read() == LiveFigures()
    repeats.begin(lambda: [first])
    assert (repeats.read().answered, repeats.read().in_flight) == (5, 9)
    repeats.begin(lambda: [second, second])
    assert (repeats.read().answered, repeats.read().in_flight) == (9, 2)
