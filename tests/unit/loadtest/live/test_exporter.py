from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from capnp_rig.loadtest.live.exporter import Exporter, ExporterError
from capnp_rig.loadtest.live.figures import LiveFigures
from capnp_rig.rigcli.address import Address, parse_address

ANYWHERE = Address(host="127.0.0.1", port=0)
FIGURES = LiveFigures(
    answered=3, buckets=[1, 0, 2, *[0] * 18], sum_ns=123_000, connects=2, reconnects=1, in_flight=4
)
FIGURES.failures["wrong reply"] = 5


def test_the_figures_are_served_as_prometheus_reads_them() -> None:
    served = Exporter(ANYWHERE, lambda: FIGURES, {"run": "night"})
    with served as exporter, urlopen(exporter.url, timeout=10) as answer:
        text = answer.read().decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    run = ("run", "night")
    assert samples["loadtest_calls_total", run] == 3
    assert samples["loadtest_failures_total", ("kind", "wrong reply"), run] == 5
    assert samples["loadtest_connects_total", run] == 3
    assert samples["loadtest_in_flight", run] == 4
    assert samples["loadtest_latency_seconds_bucket", ("le", "1e-05"), run] == 1
    assert samples["loadtest_latency_seconds_bucket", ("le", "5e-05"), run] == 3
    assert samples["loadtest_latency_seconds_bucket", ("le", "+Inf"), run] == 3
    assert samples["loadtest_latency_seconds_sum", run] == 0.000123
    assert not any(name == "loadtest_users" for name, *_ in samples)


def test_an_address_that_is_taken_is_told_in_one_line() -> None:
    with Exporter(ANYWHERE, LiveFigures) as first:
        taken = parse_address(first.url.removeprefix("http://").removesuffix("/metrics"))
        with pytest.raises(ExporterError, match=f"^cannot serve metrics on {taken}: "):
            Exporter(taken, LiveFigures).__enter__()


def test_a_unix_socket_is_refused() -> None:
    with pytest.raises(ExporterError, match="takes host:port"):
        Exporter(Address(path="/run/x"), LiveFigures).__enter__()
