import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from capnp_rig.objects.binding import bind_methods, unusable
from capnp_rig.objects.users_code import BadServiceError, ServiceCodeError
from capnp_rig.schema import message
from capnp_rig.server.service import load_service
from capnp_rig.server.services.reverse import Reverse


def test_the_reverse_service_is_found_and_bound() -> None:
    service = load_service("capnp_rig.server.services.reverse:Reverse")
    assert isinstance(service, Reverse)
    (method,) = bind_methods(service)
    assert (method.name, method.is_async) == ("read", False)


EXPECTED = "expected package.module:Name"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing", f"bad service 'nothing': {EXPECTED}"),
        (".svc:X", f"bad service '.svc:X': {EXPECTED}"),
        (":X", f"bad service ':X': {EXPECTED}"),
        ("svc:", f"bad service 'svc:': {EXPECTED}"),
        ("server..service:X", f"bad service 'server..service:X': {EXPECTED}"),
        ("no_such_module:X", "no module named 'no_such_module'"),
        ("capnp_rig.server.nope.deep:X", "no module named 'capnp_rig.server.nope'"),
        ("capnp_rig.server.services.reverse:Nope", "no Nope in capnp_rig.server.services.reverse"),
        (
            "capnp_rig.objects.binding:ServiceError",
            "capnp_rig.objects.binding:ServiceError is no service",
        ),
        (
            "capnp_rig.server.service:load_service",
            "capnp_rig.server.service:load_service is no class",
        ),
        (
            "capnp_rig.server.service:inspect",
            "capnp_rig.server.service:inspect is no class, it is a module",
        ),
    ],
)
def test_what_is_no_service_is_refused(path: str, reason: str) -> None:
    with pytest.raises(BadServiceError, match=reason):
        load_service(path)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module that a service can be put in."""
    made = ModuleType("made_for_this_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.mark.parametrize(
    "interface", [message, message.MessageStream.MessageContent, "MessageStream", 5, object]
)
def test_what_is_no_interface_is_refused(module: ModuleType, interface: object) -> None:
    module.X = type("X", (), {"interface": interface})  # type: ignore[attr-defined]
    with pytest.raises(BadServiceError, match="the interface of made_for_this_test:X is no "):
        load_service("made_for_this_test:X")


def test_a_service_that_needs_arguments_is_refused(module: ModuleType) -> None:
    class X:
        interface = message.MessageStream

        def __init__(self, size: int, *, colour: str, kept: int = 1) -> None:
            pass

    module.X = X  # type: ignore[attr-defined]
    with pytest.raises(BadServiceError, match="cannot be made without arguments: it needs size, c"):
        load_service("made_for_this_test:X")


# --- methods -----------------------------------------------------------------------------


def logged(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(*args: Any) -> Any:
        return method(*args)

    return wrapper


async def read_later(_self: object, _params: object) -> None:
    pass


def read_now(_self: object, _params: object) -> None:
    pass


class AsyncCallable:
    async def __call__(self, params: object) -> None:
        pass


class PlainCallable:
    def __call__(self, params: object) -> None:
        pass


def generator(_self: object, _params: object) -> Iterator[int]:
    yield 1


async def async_generator(_self: object, _params: object) -> AsyncIterator[int]:
    yield 1


def says_awaitable(_self: object, _params: object) -> Awaitable[None]:
    return asyncio.sleep(0)


def service_with(read: object) -> Any:
    return type("X", (), {"interface": message.MessageStream, "read": read})()


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (generator, "it is a generator"),
        (async_generator, "it is an async generator"),
        (logged(async_generator), "it is a plain function around an async one"),
        (AsyncCallable(), "an object with an async __call__"),
        (logged(read_later), "a plain function around an async one"),
        (says_awaitable, "its annotation says"),
        (lambda _self: None, "it takes no params"),
        (staticmethod(lambda: None), "it takes no params"),
        (lambda _self, _params, more: more, "it gets the params only, and needs more as well"),
        (lambda _self, _params, *, more: more, "and needs more as well"),
    ],
)
def test_a_method_that_cannot_work_is_refused(read: object, reason: str) -> None:
    with pytest.raises(BadServiceError, match=r"X\.read.* cannot be served: .*" + reason):
        bind_methods(service_with(read))


@pytest.mark.parametrize(
    ("read", "is_async"),
    [
        (read_now, False),
        (read_later, True),
        (staticmethod(lambda _params: None), False),
        (classmethod(read_later), True),
        (property(lambda _self: lambda _params: None), False),
        (staticmethod(functools.partial(read_later, None)), True),
        (functools.partialmethod(read_later), True),
        (PlainCallable(), False),
        (logged(read_now), False),
        (lambda _self, *_args, **_kwargs: None, False),
        (lambda _self, _params, _extra=None: None, False),
    ],
)
def test_methods_may_be_made_in_many_ways(read: object, *, is_async: bool) -> None:
    (bound,) = bind_methods(service_with(read))
    assert bound.is_async == is_async


def test_a_service_must_have_every_method() -> None:
    class Half:
        interface = Reverse.interface

    with pytest.raises(BadServiceError, match="Half lacks the method read"):
        bind_methods(Half())
    with pytest.raises(BadServiceError, match="X lacks the method read"):
        bind_methods(service_with(None))


def test_the_error_names_where_the_method_is() -> None:
    with pytest.raises(BadServiceError) as caught:
        bind_methods(service_with(generator))
    line = generator.__code__.co_firstlineno
    assert f"X.read ({__file__}, line {line}) cannot be served" in str(caught.value)


def test_what_is_to_be_waited_for_is_told_and_never_warned_of() -> None:
    told = unusable(read_later(None, None))
    assert "of type coroutine" in str(told)
    assert "of type generator" in str(unusable(generator(None, None)))
    assert "of type async_generator" in str(unusable(async_generator(None, None)))
    assert unusable({"chunk": b""}) is None
    assert unusable(5) is None


# --- what is the user's code --------------------------------------------------------------


def told_of(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ServiceCodeError:
    (folder / "svc_of_a_user.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "svc_of_a_user", raising=False)
    with pytest.raises(ServiceCodeError) as caught:
        bind_methods(load_service("svc_of_a_user:X"))
    return caught.value


HEAD = "from capnp_rig.schema import message\n"
BODY = "class X:\n    interface = message.MessageStream\n"


@pytest.mark.parametrize(
    ("text", "error", "line", "shown"),
    [
        ("x = 1\nx = = 2\n", "SyntaxError: invalid syntax", 2, "x = = 2"),
        ("import no_such_library\n", "ModuleNotFoundError: No module named", 1, "import no_such"),
        ("from os import nope\n", "ImportError: cannot import name", 1, "from os import nope"),
        ("\n\nraise SystemExit(3)\n", "SystemExit: 3", 3, "raise SystemExit"),
        ("def f():\n    [][1]\nf()\n", "IndexError: list index", 2, "in f"),
        (
            f"{HEAD}{BODY}    def __init__(self):\n        1 / 0\n",
            "X cannot be made: ZeroDivisionError",
            5,
            "1 / 0",
        ),
        (
            f"{HEAD}{BODY}    def __init__(self):\n        raise KeyboardInterrupt\n",
            "KeyboardInterrupt (",
            5,
            "raise KeyboardInterrupt",
        ),
        (
            f"{HEAD}{BODY}    @property\n    def read(self):\n        raise OSError('x')\n",
            "X.read cannot be read: OSError: x",
            6,
            "raise OSError",
        ),
        (
            "class E(Exception):\n    def __str__(self): return 1 / 0\n\nraise E\n",
            "cannot import svc_of_a_user: E (",
            4,
            "raise E",
        ),
        (
            "from capnp_rig.schema import load_schema\nload_schema('nowhere.capnp')\n",
            "SchemaError",
            2,
            "load_schema('nowhere.capnp')",
        ),
    ],
)
def test_an_error_of_the_users_code_names_file_and_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    error: str,
    line: int,
    shown: str,
) -> None:
    told = told_of(tmp_path, text, monkeypatch)
    assert error in str(told)
    assert f"svc_of_a_user.py, line {line})" in str(told)
    assert "\n" not in str(told)
    assert shown in told.trace
    for ours in ("server/service.py", "importlib", "schema/loader.py"):
        assert ours not in told.trace
