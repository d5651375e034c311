from typing import Any

from capnp_rig.objects.binding import bind_methods
from capnp_rig.server.control.call_stamp import unwatched
from capnp_rig.server.control.counts import BUCKETS, FAILED, SUM_NS
from capnp_rig.server.engines.call_counts import CallCounts
from capnp_rig.server.engines.method_stamps import MethodStamps
from capnp_rig.server.services.reverse import Reverse
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.messages import RemoteError


def test_a_plain_method_is_counted_by_its_outcome_and_answers_the_same() -> None:
    (bound,) = bind_methods(Reverse())
    counts = CallCounts(MethodStamps(unwatched()))
    error = RemoteError("no")
    outcomes: list[Any] = [EMPTY_STRUCT, error, EMPTY_STRUCT]
    given: list[Any] = []

    def answer(content: Any) -> Any:
        given.append(content)
        return outcomes[len(given) - 1]

    counted = counts.counted(bound, answer)
    assert [counted(content) for content in (None, (1,), (2,))] == outcomes  # type: ignore[arg-type]
    assert given == [None, (1,), (2,)]
    words = counts.of(bound.label)
    assert sum(words[:BUCKETS]) == 3
    assert words[FAILED] == 1
    assert words[SUM_NS] > 0
