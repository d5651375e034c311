"""KeyboardInterrupt at a bytecode of choice."""

import dis
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

# Of what runs again and again, the first time counts, and now and then another.
_COUNTED = {1, 7}


# Where the interpreter looks for signals: after a call, on entry, on the way back in a loop. Not
# between the entry of a `with` and its block, so that a lock is not kept.
_LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")


def _interruptible(code: CodeType) -> set[int]:
    """Return the offsets of the bytecodes before which a signal handler may raise."""
    instructions = list(dis.get_instructions(code))
    return {
        after.offset
        for each, after in pairwise(instructions)
        if each.opname.startswith(_LOOKS) and not each.opname.endswith("_NO_INTERRUPT")
    }


@contextmanager
def interrupted(
    at: int,
    traced: tuple[str, ...],
    is_exempt: Callable[[], bool] = lambda: False,
    *,
    only_at_calls: bool = False,
) -> Iterator[Callable[[], bool]]:
    """Raise KeyboardInterrupt at the bytecode number `at`; yield whether that came.

    Bytecodes count of files whose paths begin as one of `traced`, and of calls that begin while
    `is_exempt` is false; with `only_at_calls` those before which a signal handler can raise.
    """
    left = at
    seen: Counter[tuple[CodeType, int]] = Counter()
    is_traced: dict[CodeType, bool] = {}
    offsets: dict[CodeType, set[int]] = {}

    def on_event(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "call":
            code = frame.f_code
            if code not in is_traced:
                is_traced[code] = code.co_filename.startswith(traced)
                if only_at_calls:
                    offsets[code] = _interruptible(code)
            if is_exempt() or not is_traced[code]:
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            where = frame.f_code, frame.f_lasti
            if only_at_calls and frame.f_lasti not in offsets[frame.f_code]:
                return on_event
            seen[where] += 1
            if seen[where] in _COUNTED:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
        return on_event

    before = sys.gettrace()
    sys.settrace(on_event)
    try:
        yield lambda: left <= 0
    finally:
        sys.settrace(before)
