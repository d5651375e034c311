"""Each message against rpc.capnp itself: what we write, pycapnp reads, and the other way round."""

from collections.abc import Callable
from typing import Any

import pytest

from capnp_rig.schema import load_rpc
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedStruct
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.pointers import Buffer, Message, follow_struct
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.message_encoder import (
    encode_abort,
    encode_bootstrap,
    encode_bootstrap_results,
    encode_call,
    encode_canceled,
    encode_exception,
    encode_finish,
    encode_results,
    encode_unimplemented,
)
from capnp_rig.wire.rpc.messages import (
    Abort,
    Bootstrap,
    Call,
    Canceled,
    CapKind,
    Descriptor,
    Disembargo,
    DisembargoContext,
    ExceptionType,
    Finish,
    ImportedCap,
    Incoming,
    Other,
    PromisedAnswer,
    Release,
    RemoteError,
    Resolve,
    Results,
    ResultsTo,
    Return,
    SentElsewhere,
    Tag,
    TakenFromOther,
    Unimplemented,
    decode,
)

RPC = load_rpc()
ONE_WORD = EncodedStruct(1, [b"\x2a" + bytes(7)], 1)


def frame(parts: bytes | list[Buffer]) -> bytes:
    return parts if isinstance(parts, bytes) else b"".join(parts)


def received(parts: bytes | list[Buffer]) -> Message:
    (message,) = FrameDecoder().feed(frame(parts))
    return message


def as_pycapnp(parts: bytes | list[Buffer]) -> dict[str, Any]:
    with RPC.Message.from_bytes(frame(parts)) as message:
        result: dict[str, Any] = message.to_dict(verbose=True)
        return result


def test_the_numbers_are_those_of_the_schema() -> None:
    tags = {field.name: field.discriminantValue for field in RPC.Message.schema.node.struct.fields}
    assert {tag.name.lower(): tag.value for tag in Tag} == {
        name: tag for name, tag in tags.items() if not name.startswith("obsolete")
    }
    for enum, union in (
        (CapKind, RPC.CapDescriptor.schema),
        (ResultsTo, RPC.Call.schema.fields["sendResultsTo"].schema),
        (DisembargoContext, RPC.Disembargo.schema.fields["context"].schema),
    ):
        numbers = {field.name: field.discriminantValue for field in union.node.struct.fields}
        for each in enum:
            first, *rest = each.name.split("_")
            assert numbers[first.lower() + "".join(map(str.title, rest))] == each
    types = dict(RPC.Exception.schema.fields["type"].schema.enumerants)
    assert {kind.name.lower(): kind.value for kind in ExceptionType} == types


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            encode_finish(2**32 - 1),
            {
                "finish": {
                    "questionId": 2**32 - 1,
                    "releaseResultCaps": True,
                    "requireEarlyCancellationWorkaround": False,
                }
            },
        ),
        (
            encode_finish(1, release_result_caps=False),
            {
                "finish": {
                    "questionId": 1,
                    "releaseResultCaps": False,
                    "requireEarlyCancellationWorkaround": False,
                }
            },
        ),
        (
            encode_canceled(3),
            {
                "return": {
                    "answerId": 3,
                    "releaseParamCaps": True,
                    "noFinishNeeded": True,
                    "canceled": None,
                }
            },
        ),
    ],
)
def test_what_we_write_without_pointers_pycapnp_reads(
    parts: bytes, expected: dict[str, Any]
) -> None:
    assert as_pycapnp(parts) == expected


@pytest.mark.parametrize(
    "target", [ImportedCap(9), PromisedAnswer(9)], ids=["capability", "promise"]
)
@pytest.mark.parametrize("params", [ONE_WORD, EMPTY_STRUCT], ids=["one word", "empty"])
def test_pycapnp_reads_our_call(
    target: ImportedCap | PromisedAnswer, params: EncodedStruct
) -> None:
    data = frame(encode_call(5, target, 0xABCDEF0123456789, 0xFFFF, params))
    with RPC.Message.from_bytes(data) as message:
        call = message.call
        assert (call.questionId, call.interfaceId, call.methodId) == (
            5,
            0xABCDEF0123456789,
            0xFFFF,
        )
        assert call.sendResultsTo.which() == "caller"
        if isinstance(target, ImportedCap):
            assert call.target.importedCap == 9
        else:
            assert call.target.promisedAnswer.questionId == 9
        # Any struct of one number reads it: Bootstrap is one.
        content = call.params.content.as_struct(RPC.Bootstrap)
        assert content.questionId == (42 if params is ONE_WORD else 0)


def test_pycapnp_reads_our_bootstrap() -> None:
    with RPC.Message.from_bytes(encode_bootstrap(7)) as message:
        assert message.bootstrap.questionId == 7


def test_pycapnp_reads_our_results() -> None:
    with RPC.Message.from_bytes(frame(encode_results(5, ONE_WORD))) as message:
        answer = getattr(message, "return")
        assert (answer.answerId, answer.noFinishNeeded, answer.releaseParamCaps) == (5, True, True)
        assert answer.results.content.as_struct(RPC.Bootstrap).questionId == 42


def test_pycapnp_reads_our_bootstrap_answer() -> None:
    with RPC.Message.from_bytes(encode_bootstrap_results(5, 77)) as message:
        answer = getattr(message, "return")
        assert (answer.answerId, answer.noFinishNeeded) == (5, False)
        (descriptor,) = answer.results.capTable
        assert descriptor.senderHosted == 77
        assert descriptor.attachedFd == 0xFF


@pytest.mark.parametrize("reason", ["", "seven b", "eight by", "Ünïcode\0too"])
@pytest.mark.parametrize("kind", list(ExceptionType))
def test_pycapnp_reads_our_exceptions(reason: str, kind: ExceptionType) -> None:
    error = RemoteError(reason, kind)
    returned = as_pycapnp(encode_exception(8, error))["return"]["exception"]
    aborted = as_pycapnp(encode_abort(error))["abort"]
    for found in (returned, aborted):
        assert (found["reason"], str(found["type"])) == (reason, kind.name.lower())


def test_an_exception_text_that_cannot_be_sent_is_replaced() -> None:
    assert as_pycapnp(encode_abort(RemoteError("a\ud800b")))["abort"]["reason"] == "a?b"


def built(fill: Callable[[Any], None]) -> Incoming:
    message = RPC.Message.new_message()
    fill(message)
    return decode(received(message.to_bytes()))


def fill_call(message: Any) -> None:
    call = message.init("call")
    call.questionId, call.interfaceId, call.methodId = 3, 2**64 - 1, 12
    answer = call.target.init("promisedAnswer")
    answer.questionId = 4
    operations = answer.init("transform", 3)
    operations[0].getPointerField = 5
    operations[1].noop = None
    operations[2].getPointerField = 6


def fill_release(message: Any) -> None:
    release = message.init("release")
    release.id, release.referenceCount = 6, 2**32 - 1


def fill_exception(exception: Any) -> None:
    exception.reason, exception.type = "boom", "overloaded"


def fill_disembargo(message: Any) -> None:
    message.init("disembargo").context.accept = None


def fill_loopback(message: Any) -> None:
    disembargo = message.init("disembargo")
    disembargo.target.init("promisedAnswer").questionId = 5
    disembargo.context.senderLoopback = 77


def fill_resolve(message: Any) -> None:
    resolve = message.init("resolve")
    resolve.promiseId = 7
    resolve.init("cap").receiverHosted = 2**32 - 1


def fill_taken(message: Any) -> None:
    answer = message.init("return")
    answer.takeFromOtherQuestion = 6
    answer.releaseParamCaps = False


def fill_unimplemented(message: Any) -> None:
    message.init("unimplemented").init("call").questionId = 21


def fill_unimplemented_resolve(message: Any) -> None:
    message.init("unimplemented").init("resolve").promiseId = 21


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda message: setattr(message.init("bootstrap"), "questionId", 9), Bootstrap(9)),
        (lambda message: setattr(message.init("finish"), "questionId", 9), Finish(9)),
        (
            lambda message: setattr(message.init("finish"), "releaseResultCaps", False),
            Finish(0, release_result_caps=False),
        ),
        (fill_release, Release(6, 2**32 - 1)),
        (
            lambda message: fill_exception(message.init("abort")),
            Abort(RemoteError("boom", ExceptionType.OVERLOADED)),
        ),
        (
            lambda message: fill_exception(message.init("return").init("exception")),
            Return(0, RemoteError("boom", ExceptionType.OVERLOADED), no_finish_needed=False),
        ),
        (
            lambda message: setattr(message.init("return"), "canceled", None),
            Return(0, Canceled(), no_finish_needed=False),
        ),
        (
            lambda message: message.init("return"),
            Return(0, Results(None, ()), no_finish_needed=False),
        ),
        (lambda message: message.init("abort"), Abort(RemoteError("(no reason given)"))),
        (fill_disembargo, Disembargo(2)),
        (fill_unimplemented, Unimplemented(Tag.CALL, 21)),
        (fill_unimplemented_resolve, Unimplemented(Tag.RESOLVE, None, Descriptor(0))),
        (lambda message: message.init("resolve"), Resolve(0, Descriptor(CapKind.NONE))),
        (
            lambda message: fill_exception(message.init("resolve").init("exception")),
            Resolve(0, RemoteError("boom", ExceptionType.OVERLOADED)),
        ),
        (fill_resolve, Resolve(7, Descriptor(CapKind.RECEIVER_HOSTED, 2**32 - 1))),
        (
            lambda message: setattr(message.init("return"), "resultsSentElsewhere", None),
            Return(0, SentElsewhere(), no_finish_needed=False),
        ),
        (fill_taken, Return(0, TakenFromOther(6), no_finish_needed=False, releases_params=False)),
        (fill_loopback, Disembargo(DisembargoContext.SENDER_LOOPBACK, PromisedAnswer(5), 77)),
        (lambda message: message.init("provide"), Other(Tag.PROVIDE)),
        (lambda message: message.init("accept"), Other(Tag.ACCEPT)),
        (lambda message: message.init("join"), Other(Tag.JOIN)),
        (
            fill_call,
            Call(
                question_id=3,
                interface_id=2**64 - 1,
                method_id=12,
                target=PromisedAnswer(4, (5, 6)),
                params=None,
            ),
        ),
    ],
)
def test_we_read_what_pycapnp_writes(fill: Callable[[Any], None], expected: Incoming) -> None:
    assert built(fill) == expected


def test_results_and_their_capabilities_are_read() -> None:
    def fill(message: Any) -> None:
        answer = message.init("return")
        answer.noFinishNeeded = True
        payload = answer.init("results")
        table = payload.init("capTable", 7)
        table[0].senderHosted = 5
        table[1].senderPromise = 6
        table[2].receiverHosted = 7
        table[3].none = None
        promised = table[4].init("receiverAnswer")
        promised.questionId = 8
        transform = promised.init("transform", 2)
        transform[0].getPointerField, transform[1].getPointerField = 1, 2
        table[5].init("thirdPartyHosted").vineId = 9
        table[6].senderHosted, table[6].attachedFd = 5, 3

    answer = built(fill)
    assert isinstance(answer, Return)
    assert answer.no_finish_needed
    assert isinstance(answer.outcome, Results)
    assert answer.outcome.cap_table == (
        Descriptor(CapKind.SENDER_HOSTED, 5),
        Descriptor(CapKind.SENDER_PROMISE, 6),
        Descriptor(CapKind.RECEIVER_HOSTED, 7),
        Descriptor(CapKind.NONE),
        Descriptor(CapKind.RECEIVER_ANSWER, 8, (1, 2)),
        Descriptor(CapKind.THIRD_PARTY_HOSTED, 9),
        Descriptor(CapKind.SENDER_HOSTED, 5),
    )


@pytest.mark.parametrize("where", ["yourself", "thirdParty"])
def test_results_for_others_are_noticed(where: str) -> None:
    def fill(message: Any) -> None:
        target = message.init("call").sendResultsTo
        if where == "yourself":
            target.yourself = None
        else:
            target.thirdParty = RPC.Bootstrap.new_message()

    call = built(fill)
    assert isinstance(call, Call)
    assert call.results_to == {"yourself": ResultsTo.YOURSELF}.get(where, ResultsTo.THIRD_PARTY)


@pytest.mark.parametrize("number", [4, 5, 9, 200, 65535])
def test_an_unknown_exception_type_reads_as_failed(number: int) -> None:
    # The type stands at byte 4 of the exception's data, behind table, root, tag and pointer.
    data = bytearray(encode_abort(RemoteError("x", ExceptionType.OVERLOADED)))
    assert data[36] == 1
    data[36:38] = number.to_bytes(2, "little")
    assert decode(received(bytes(data))) == Abort(RemoteError("x", ExceptionType.FAILED))


@pytest.mark.parametrize("tag", [14, 15, 0xFFFF])
def test_an_unknown_message_is_told_apart(tag: int) -> None:
    data = bytearray(encode_bootstrap(1))
    data[16:18] = tag.to_bytes(2, "little")
    assert decode(received(bytes(data))) == Other(tag)


@pytest.mark.parametrize(
    ("fill", "byte", "value"),
    [
        # the discriminants of MessageTarget, Return, and a transform's Op
        ("call", 4 + 8 * 10, 2),
        ("return", 6 + 8 * 4, 5),
        ("return", 6 + 8 * 4, 9),
    ],
)
def test_an_unknown_branch_is_malformed(fill: str, byte: int, value: int) -> None:
    if fill == "call":
        data = bytearray(frame(encode_call(1, ImportedCap(0), 1, 1, EMPTY_STRUCT)))
    else:
        data = bytearray(frame(encode_results(1, EMPTY_STRUCT)))
    data[byte] = value
    with pytest.raises(MalformedMessage):
        decode(received(bytes(data)))


def test_an_unknown_transform_is_malformed() -> None:
    message = RPC.Message.new_message()
    fill_call(message)
    data = bytearray(message.to_bytes())
    at = data.index(bytes.fromhex("0100 0500"))
    data[at] = 7
    with pytest.raises(MalformedMessage, match="transform of unknown kind 7"):
        decode(received(bytes(data)))


def test_a_transform_of_empty_elements_is_malformed() -> None:
    message = RPC.Message.new_message()
    fill_call(message)
    data = bytearray(message.to_bytes())
    # The composite list's tag: 3 elements of one data word; take the word away.
    at = data.index(bytes.fromhex("0c000000 01000000"))
    data[at + 4] = 0
    with pytest.raises(MalformedMessage, match="where structs are expected"):
        decode(received(bytes(data)))


def test_a_message_without_a_root_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="no root pointer"):
        decode(received(bytes(8)))


def test_a_null_root_reads_as_the_default_message() -> None:
    # As C++ does: discriminant 0 is `unimplemented`.
    assert decode(received(bytes.fromhex("00000000 01000000") + bytes(8))) == Unimplemented(0, None)


def test_an_echo_holds_the_whole_message() -> None:
    message = RPC.Message.new_message()
    join = message.init("join")
    join.questionId = 31
    join.target.importedCap = 32
    join.keyPart = RPC.Bootstrap.new_message(questionId=33)
    echo = encode_unimplemented(received(message.to_bytes()))
    with RPC.Message.from_bytes(echo) as outer:
        inner = outer.unimplemented.join
        assert (inner.questionId, inner.target.importedCap) == (31, 32)
        assert inner.keyPart.as_struct(RPC.Bootstrap).questionId == 33


def test_params_stay_where_they_are_until_followed() -> None:
    call = decode(received(encode_call(1, ImportedCap(0), 1, 1, ONE_WORD)))
    assert isinstance(call, Call)
    assert call.params is not None
    found = follow_struct(call.params)
    assert found is not None
    assert found.bits(0, 8) == 42
