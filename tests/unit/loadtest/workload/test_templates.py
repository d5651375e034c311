import uuid
from itertools import islice

import pytest

from capnp_rig.loadtest.workload.templates import (
    NAMES,
    Source,
    Template,
    TemplateError,
    parse_template,
)

VALUES = (7, 3, "aaaa-b", 1_700_000_000_000_000_001)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{i}}", "7"),
        ("{{user}}-{{i}}", "3-7"),
        ("{{ uuid }}", "aaaa-b"),
        ("at {{time_ns}} ns", "at 1700000000000000001 ns"),
        ("{{i}}{{i}}{{i}}", "777"),
        ("100 % {{i}} %s %(i)s", "100 % 7 %s %(i)s"),
        ('{"id":{{i}}}', '{"id":7}'),
        ("{{{i}}}", "{7}"),
        ("{{{{i}} is {{i}}", "{{i}} is 7"),
        ("{{{{{{{{{{i}}", "{{{{7"),
        ("{{i}} \U0001f642", "7 \U0001f642"),
    ],
)
def test_templates_are_filled_in(text: str, rendered: str) -> None:
    template = parse_template(text)
    assert isinstance(template, Template)
    assert template.render(VALUES) == rendered


@pytest.mark.parametrize(
    ("text", "meant"),
    [("", ""), ("plain", "plain"), ("{i}", "{i}"), ("a }} b", "a }} b"), ("{{{{i}}", "{{i}}")],
)
def test_a_string_without_templates_stays_one(text: str, meant: str) -> None:
    assert parse_template(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{index}}", "no template 'index': there is i, user, uuid, time_ns"),
        ("{{}}", "no template '': there is i, user, uuid, time_ns"),
        ("{{i}} {{I}}", "no template 'I': there is i, user, uuid, time_ns"),
        ("{{i", "'{{' has no '}}' (a literal one is written '{{{{')"),
        ("{{{", "'{{' has no '}}' (a literal one is written '{{{{')"),
        ("{{i}", "'{{' has no '}}' (a literal one is written '{{{{')"),
    ],
)
def test_what_is_no_template_is_told(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as error:
        parse_template(text)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("text", "sole", "is_number"),
    [
        ("{{i}}", "i", True),
        ("{{time_ns}}", "time_ns", True),
        ("{{uuid}}", "uuid", False),
        (" {{i}}", None, False),
        ("{{i}}{{i}}", None, False),
        ("{{{{{{i}}", None, False),
    ],
)
def test_only_a_number_alone_can_be_a_number(
    text: str,
    sole: str | None,
    is_number: bool,
) -> None:
    template = parse_template(text)
    assert isinstance(template, Template)
    assert (template.sole, template.is_number) == (sole, is_number)


def test_a_number_wraps_at_its_bits() -> None:
    template = parse_template("{{i}}")
    assert isinstance(template, Template)
    numbers = [template.number(7)((i, 0, "", 0)) for i in (0, 127, 128, 300)]
    assert numbers == [0, 127, 0, 44]


def values(user: int, *, seed: int = 1, names: tuple[str, ...] = NAMES) -> list[tuple[object, ...]]:
    source = Source(frozenset(names), first=4, step=10, seed=seed, clock=iter(range(99)).__next__)
    return list(islice(source.values(user), 3))


def test_values_repeat_with_seed_and_user_and_uuids_are_of_version_4() -> None:
    found = values(5)
    assert [(i, user, time_ns) for i, user, _, time_ns in found] == [
        (4, 5, 0),
        (14, 5, 1),
        (24, 5, 2),
    ]
    assert found == values(5)
    drawn = {line[2] for other in (found, values(6), values(5, seed=2)) for line in other}
    assert len(drawn) == 9
    for text in drawn:
        read = uuid.UUID(str(text))
        assert (str(read), read.version, read.variant) == (text, 4, uuid.RFC_4122)


def test_what_no_template_names_is_not_drawn() -> None:
    assert values(5, names=("i",)) == [(4, 5, "", 0), (14, 5, "", 0), (24, 5, "", 0)]


def test_connections_share_one_count() -> None:
    source = Source(frozenset({"i"}), first=0, step=1, seed=1, clock=int)
    one, two = source.values(1), source.values(2)
    assert [next(each)[0] for each in (one, two, two, one)] == [0, 1, 2, 3]
