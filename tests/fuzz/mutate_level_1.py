"""Mutated frames of Level 1 in any order against a connection whose owner makes use of all it gets.

What may come of them is an event, or the end of the connection with a reason; never an exception.

From the checkout's root::

    FUZZ_FRAMES=2000000 FUZZ_SEED=7 python tests/fuzz/mutate_level_1.py
"""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import level_1_frames as level_1
from fuzz.mutate import WrongError, kinds_of, mutate
from level_1_frames import exception, message, results

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.errors import EncodeError, LocalProtocolError
from capnp_rig.wire.rpc.calls import PendingCall, Purpose
from capnp_rig.wire.rpc.capabilities import Capability, OpenPromise
from capnp_rig.wire.rpc.connection import Answered, Called, Connection, Ended, Event, Limits
from capnp_rig.wire.rpc.inline_methods import ResultsWith
from capnp_rig.wire.rpc.messages import RemoteError

# Small, so that they are met; and small ids, so that they meet.
LIMITS = Limits(
    max_calls_in_flight=12,
    max_answers=20,
    max_exports=10,
    max_imports=12,
    max_questions=20,
    max_pipelined=4,
    max_waiting_bytes=4000,
)
CHECK_EVERY = 10


class Frames:
    """Makes frames that make sense: their ids are mostly those of the connection's tables."""

    def __init__(self, connection: Connection, chance: random.Random) -> None:
        self.connection, self.chance = connection, chance

    def one_of(self, ids: Iterable[int]) -> int:
        known = sorted(number for number in ids if number >= 0)
        if known and self.chance.random() < 0.95:
            return self.chance.choice(known)
        return self.chance.randrange(6)

    def export(self) -> int:
        return self.one_of(self.connection._exports)

    def answer(self) -> int:
        return self.one_of(self.connection._answers)

    def asked(self) -> list[int]:
        waiting = self.connection._questions.items()
        return [number for number, state in waiting if not is_over(state)]

    def question(self) -> int:
        return self.one_of(self.asked())

    def new(self) -> int:
        """Return an id for a question of the peer."""
        free = [number for number in range(30) if number not in self.connection._answers]
        return self.chance.choice(free[:8])

    def path(self) -> tuple[int, ...]:
        return (self.chance.randrange(2),) * self.chance.choice([0, 1, 1, 1, 2])

    def table(self) -> list[tuple[Any, ...]]:
        kinds: list[tuple[Any, ...]] = [
            ("none",),
            ("senderHosted", self.chance.randrange(6)),
            ("senderPromise", 6 + self.chance.randrange(6)),
            ("receiverHosted", self.export()),
            ("receiverAnswer", self.answer(), self.path()),
            ("thirdPartyHosted", self.chance.randrange(6)),
        ]
        return self.chance.choices(kinds, k=self.chance.choice([0, 1, 1, 2]))

    def frame(self) -> bytes:
        (make,) = self.chance.choices(*zip(*self.KINDS, strict=True))
        found: bytes = make(self)
        return found

    def call(self) -> bytes:
        where: dict[str, Any] = {"promise": self.answer(), "path": self.path()}
        if self.chance.random() < 0.5:
            where = {"export": self.export()}
        to = self.chance.choice(["caller", "caller", "yourself"])
        method_id = self.chance.randrange(2)
        return level_1.call(
            self.new(), table=self.table(), to=to, interface_id=1, method_id=method_id, **where
        )

    def results(self) -> bytes:
        if not self.asked() and self.chance.random() < 0.95:
            return self.call()
        releases, no_finish = self.chance.random() < 0.8, self.chance.random() < 0.1
        number, table = self.question(), self.table()
        return level_1.results(number, table, releases=releases, no_finish=no_finish)

    def other_return(self) -> bytes:
        """Return a Return without results, mostly one that its question allows."""
        number = self.question()
        state = self.connection._questions.get(number)
        kept = [key for key, each in self.connection._answers.items() if is_kept(each)]
        if getattr(state, "purpose", None) is Purpose.TAIL and self.chance.random() < 0.9:
            return message("return", answerId=number, resultsSentElsewhere=None)
        if state is not None and kept and self.chance.random() < 0.9:
            return message("return", answerId=number, takeFromOtherQuestion=self.one_of(kept))
        if state is not None or self.chance.random() < 0.05:
            return message("return", answerId=number, canceled=None)
        return self.call()

    def resolve(self) -> bytes:
        promises = [key for key, node in self.connection._imports.items() if node.is_promise]
        outcomes: list[Any] = [*self.table(), "broken"]
        return level_1.resolve(self.one_of(promises), self.chance.choice(outcomes))

    def disembargo(self) -> bytes:
        if self.connection._embargoes and self.chance.random() < 0.8:
            number = self.one_of(self.connection._embargoes)
            return level_1.disembargo("receiverLoopback", number, export=self.export())
        if self.chance.random() < 0.9:
            return self.resolve()
        return level_1.disembargo("senderLoopback", 3, answer=(self.answer(), self.path()))

    def finish(self) -> bytes:
        releases = self.chance.random() < 0.7
        return message("finish", questionId=self.answer(), releaseResultCaps=releases)

    KINDS: ClassVar[list[tuple[Callable[[Any], bytes], int]]] = [
        (call, 8),
        (results, 5),
        (other_return, 2),
        (resolve, 3),
        (finish, 4),
        (lambda self: exception(self.question(), "x") if self.asked() else self.call(), 1),
        (lambda self: message("release", id=self.export(), referenceCount=1), 1),
        (lambda self: message("bootstrap", questionId=self.new()), 1),
        (disembargo, 1),
    ]


def is_over(state: Any) -> bool:
    return getattr(state, "is_returned", False)


def is_kept(state: Any) -> bool:
    return isinstance(state, PendingCall) and state.is_redirected and state.taker is None


def pointers(count: int) -> EncodedTuple:
    words = b"".join((3 | index << 32).to_bytes(8, "little") for index in range(count))
    return count << 16, [words], count


class Owner:
    """Uses what a connection hands out, in any way that its owner may."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.connection = Connection(LIMITS, "main")
        self.held: list[Capability] = [self.connection.bootstrap()]
        self.promises: list[OpenPromise] = []
        self.running: list[int] = []
        self.questions: list[int] = []
        self.ended: Ended | None = None

    def feed(self, data: bytes) -> None:
        inline = {(1, 1): lambda _: ResultsWith(pointers(1), ["inline"])}
        for event in self.connection.events(data, inline):
            assert self.ended is None, "an event after the end"
            self.take(event)
            if self.chance.random() < 0.2:
                self.act()

    def take(self, event: Event) -> None:
        content = None
        if isinstance(event, Called):
            self.running.append(event.question_id)
            content = event.params
        elif isinstance(event, Answered):
            content = event.content
        elif isinstance(event, Ended):
            self.ended = event
        if content is not None and self.chance.random() < 0.7:
            found = getattr(content[0], "capabilities", ())
            self.held += [each for each in found if each is not None]

    def act(self) -> None:
        acts = [self.call, self.call, self.answer, self.answer, self.let_go, self.promise]
        with suppress(LocalProtocolError, EncodeError):
            self.chance.choice(acts)()

    def capabilities(self) -> list[Any]:
        count = self.chance.choice([0, 1, 1, 2])
        return self.chance.choices([*self.held, *self.promises, "object", object(), None], k=count)

    def call(self) -> None:
        target = self.chance.choice(self.held or ["object"])
        given = self.capabilities()
        number = self.connection.call(target, 1, 2, pointers(len(given)), given)
        self.questions.append(number)
        if self.chance.random() < 0.6:
            self.held.append(self.connection.pipeline(number, (self.chance.randrange(2),)))

    def answer(self) -> None:
        if not self.running:
            return
        number = self.running.pop(self.chance.randrange(len(self.running)))
        given = self.capabilities()
        kind = self.chance.random()
        if kind < 0.2:
            self.connection.send_exception(number, RemoteError("no"))
        elif kind < 0.5 and self.held:
            target = self.chance.choice(self.held)
            self.connection.tail_call(number, target, 1, 2, pointers(len(given)), given)
        else:
            self.connection.send_results(number, pointers(len(given)), given)

    def let_go(self) -> None:
        if self.questions and self.chance.random() < 0.3:
            self.connection.cancel(self.questions.pop())
        elif self.held:
            self.held.pop(self.chance.randrange(len(self.held))).release()

    def promise(self) -> None:
        if self.promises and self.chance.random() < 0.6:
            promise = self.promises.pop()
            promise.resolve(self.chance.choice([*self.held, "object"]))
            self.held.append(promise)
        else:
            self.promises.append(self.connection.promise())


def case(seed: int, number: int, outcomes: Counter[str]) -> None:
    """Try the case of that number: it depends on the seed and the number only.

    Raises:
        WrongError: It came out as it may not.
    """
    chance = random.Random(seed << 32 | number)
    owner = Owner(chance)
    made = Frames(owner.connection, chance)
    first = [message("bootstrap", questionId=0), results(0, [("senderHosted", 0)])]
    frames: list[bytes] = []
    count = chance.randint(4, 24)
    mutated = chance.choice([None, None, count - 1, count // 2, chance.randrange(count)])
    try:
        for number_of_frame in range(count):
            each = first.pop(0) if first else made.frame()
            if number_of_frame == mutated:
                each = mutate(each, chance)
            frames.append(each)
            cut = chance.randrange(len(each) + 1)
            for part in (each[:cut], each[cut:]):
                owner.feed(part)
            owner.act()
            if owner.ended:
                break
        sent = owner.connection.data_to_send()
        if number % CHECK_EVERY == 0:
            outcomes.update(kinds_of(sent))
        if owner.ended is None:
            for event in owner.connection.receive_eof():
                owner.take(event)
        assert owner.ended is not None
        for _ in range(4):
            owner.act()
            assert not owner.connection.receive_data(frames[0])
        for capability in owner.held + owner.promises:
            if not capability.is_released:
                capability.release()
        assert not owner.connection.data_to_send()
    except Exception as error:
        shown = b"".join(frames).hex()
        raise WrongError(
            f"seed {seed}, case {number}: {type(error).__name__}: {error}\n{shown}"
        ) from error
    assert owner.ended is not None
    outcomes["frames"] += len(frames)
    outcomes[type(owner.ended.error).__name__] += 1


def run(seed: int, frames: int) -> Counter[str]:
    """Try cases until they had so many frames; return what came of them."""
    outcomes: Counter[str] = Counter()
    number = 0
    while outcomes["frames"] < frames:
        case(seed, number, outcomes)
        number += 1
    return outcomes


def main() -> None:
    """Run as many frames as FUZZ_FRAMES says, from FUZZ_SEED on, and print what came of them."""
    frames = int(os.environ.get("FUZZ_FRAMES", "100000"))
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    started_s = time.monotonic()
    outcomes = run(seed, frames)
    lines = [
        f"seed {seed}: {frames} frames of Level 1 in {time.monotonic() - started_s:.1f} s",
        *(f"{count:>9} {outcome}" for outcome, count in outcomes.most_common()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
