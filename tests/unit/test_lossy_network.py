"""What the lossy network does to packets, on literals."""

from lossy_network import CUT, Air, Conditions, mirrored


def test_a_packet_goes_back_to_the_other_address() -> None:
    packet = bytes(range(12)) + b"fromtobe" + b"rest"
    assert mirrored(packet) == bytes(range(12)) + b"tobefrom" + b"rest"


def carried(conditions: Conditions, *packets: bytes) -> list[tuple[float, bytes]]:
    air = Air(seed=1)
    air.conditions = conditions
    for packet in packets:
        air.take(packet, 0.0)
    seen = []
    while (due_s := air.next_s()) is not None:
        seen += [(round(due_s, 6), packet) for packet in air.arrived(due_s)]
    return seen


def test_packets_take_their_time() -> None:
    assert carried(Conditions(), b"abc", b"def") == [(0, b"abc"), (0, b"def")]
    assert carried(Conditions(latency_s=0.2), b"abc", b"def") == [(0.2, b"abc"), (0.2, b"def")]
    assert carried(Conditions(bytes_per_s=10), b"abc", b"def") == [(0.3, b"abc"), (0.6, b"def")]


def test_packets_are_lost_or_overtake_each_other() -> None:
    packets = [bytes([number]) for number in range(200)]
    assert carried(CUT, *packets) == []
    kept = [packet for _, packet in carried(Conditions(loss=0.25), *packets)]
    assert 130 < len(kept) < 170
    assert kept == sorted(kept)
    mixed = [packet for _, packet in carried(Conditions(jitter_s=0.1), *packets)]
    assert sorted(mixed) == packets
    assert mixed != packets
