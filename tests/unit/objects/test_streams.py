"""The window of a stream."""

import pytest

from capnp_rig.objects.errors import RemoteError
from capnp_rig.objects.streams import StreamWindow


def test_one_call_more_than_fits_may_be_on_its_way() -> None:
    window = StreamWindow(100)
    rooms = []
    for question_id in range(3):
        rooms.append(window.has_room)
        window.sent(question_id, 60)
    assert rooms == [True, True, False]
    window.answered(0, None)
    assert not window.has_room
    window.answered(1, None)
    assert window.has_room


def test_the_first_failure_ends_the_stream_and_makes_room() -> None:
    window = StreamWindow(1)
    window.sent(0, 60)
    window.sent(1, 60)
    window.answered(0, RemoteError("full"))
    assert window.has_room
    window.answered(1, RemoteError("another"))
    raised = []
    for _ in range(2):
        with pytest.raises(RemoteError, match="full") as error:
            window.check()
        raised.append(error.value)
    # Each with a traceback of its own.
    assert raised[0] is not raised[1]
