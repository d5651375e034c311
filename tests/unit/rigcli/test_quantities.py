import pytest

from capnp_rig.rigcli.quantities import in_flight_warning, parse_rate_hz, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("1m30s", 90.0),
        ("1h1m1s1ms", 3661.001),
        ("0s", 0.0),
        ("2.5", 2.5),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1s", "1d", "30m1h", "1m30", "1h 30m", "1s1s", ".5s", "nan", "1e3"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 500ms, 30s, 2m, 1h or 1h30m"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("closed", None), ("0.5", 0.5), ("2e4", 20_000.0), ("1e7", 1e7)]
)
def test_a_rate_is_read(text: str, rate: float | None) -> None:
    assert parse_rate_hz(text) == rate


@pytest.mark.parametrize("text", ["0", "-5", "fast", "nan", "inf", "10000001", ""])
def test_a_rate_out_of_range_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(ValueError, match="0 < calls/s <= 10,000,000"):
        parse_rate_hz(text)


def test_more_calls_in_flight_than_a_server_allows_by_default_are_warned_of() -> None:
    assert in_flight_warning(256) is None
    warning = in_flight_warning(300)
    assert warning is not None
    assert warning.endswith("unless it was started with --max-in-flight 300")
