import pytest

from server.service import BadServiceError, bind_methods, load_service
from server.services.reverse import Reverse


def test_the_reverse_service_is_found_and_bound() -> None:
    service = load_service("server.services.reverse:Reverse")
    assert isinstance(service, Reverse)
    (method,) = bind_methods(service)
    assert (method.name, method.is_async) == ("read", False)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing", "bad service 'nothing': expected package.module:Name"),
        ("server.services.reverse:Nope", "no Nope in server.services.reverse"),
        ("server.service:ServiceError", "server.service:ServiceError is no service"),
    ],
)
def test_what_is_no_service_is_refused(path: str, reason: str) -> None:
    with pytest.raises(BadServiceError, match=reason):
        load_service(path)


def test_a_service_must_have_every_method() -> None:
    class Half:
        interface = Reverse.interface

    with pytest.raises(BadServiceError, match="Half lacks the method read"):
        bind_methods(Half())
