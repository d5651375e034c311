"""The worker's side of the calls in `control.call_stamp`: which method runs, and how many have.

A plain method on the `wire` engine is stamped with one store of a number that was never there
before; an async one, and every method of pycapnp's, likewise at each of its steps.
"""

import struct
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from types import coroutine
from typing import Any

from capnp_rig.objects.binding import BoundMethod
from capnp_rig.server.control.call_stamp import (
    MARK,
    MAX_METHODS,
    METHODS,
    NAME_WORDS,
    NAMES,
    RESUMES,
    STEPS,
    Stamp,
)

_NAME = struct.Struct(f"={NAME_WORDS}Q")
_NO_NAME = 0


class MethodStamps:
    """Writes the calls of one worker into its `stamp`."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._numbers: dict[str, int] = {}
        self._next = count(1).__next__

    def watched(self, bound: BoundMethod) -> BoundMethod:
        """Return a method that is stamped when it is called; an async one is by `stamped`."""
        stamp, call, step = self._stamp, bound.call, self._next
        place = self._place(name := bound.label)
        if bound.is_async:
            return bound

        def stamped_call(params: Any) -> Any:
            stamp[place] = step()
            return call(params)

        # Who wraps it once more finds the name there.
        stamped_call.__qualname__ = name
        return BoundMethod(bound.method, stamped_call, is_async=False)

    def stamped(
        self, work: Coroutine[Any, Any, Any], mark: int, bound: BoundMethod | None = None
    ) -> Awaitable[Any]:
        """Await `work`, with the stamp set while it runs and not while it waits.

        It is known by its own name, unless it is what serves the method `bound`.
        """
        name = getattr(work, "__qualname__", "") if bound is None else bound.label
        steps: Awaitable[Any] = _stamped(work, self._stamp, mark, self._place(name), self._next)
        return steps

    def _place(self, name: str) -> int:
        """Return where the steps of a method are written."""
        return STEPS + self.number(name)

    def number(self, name: str) -> int:
        """Return the number of a method, 0 for those beyond `MAX_METHODS`."""
        number = self._numbers.get(name)
        if number is None:
            number = len(self._numbers) + 1
            if number > MAX_METHODS:
                return _NO_NAME
            self._numbers[name] = number
            # Its end says most.
            end = name.encode(errors="replace")[-_NAME.size :].ljust(_NAME.size, b"\0")
            for index, word in enumerate(_NAME.unpack(end), NAMES + NAME_WORDS * number):
                self._stamp[index] = word
            self._stamp[METHODS] = number
        return number


@coroutine
def _stamped(
    work: Coroutine[Any, Any, Any], stamp: Stamp, mark: int, place: int, step: Callable[[], int]
) -> Any:
    resume: Any = work.send
    argument: Any = None
    while True:
        stamp[place] = step()
        stamp[MARK] = mark
        try:
            waited_for = resume(argument)
        except StopIteration as end:
            return end.value
        finally:
            stamp[MARK] = 0
            # Its traceback holds this frame.
            argument = None
        try:
            argument = yield waited_for
            resume = work.send
        except BaseException as error:  # noqa: BLE001 - passed on: a cancellation, or the loop's end
            argument, resume = error, work.throw
        stamp[RESUMES] += 1
