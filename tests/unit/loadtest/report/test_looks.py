from capnp_rig.loadtest.report.line_styles import CODECS, SHOWN_CODECS, Look, look_of


def test_a_known_name_always_looks_the_same() -> None:
    assert look_of("wire", CODECS, 3) == look_of("wire", CODECS) == CODECS["wire"]


def test_unknown_names_differ_from_each_other() -> None:
    looks: list[Look] = [look_of(f"name {number}", {}, number) for number in range(20)]
    assert len({(look.color, look.dash, look.marker) for look in looks}) == len(looks)


def test_what_is_shown_from_the_start_is_told_apart_by_colour_alone() -> None:
    assert len({CODECS[name].color for name in SHOWN_CODECS}) == len(SHOWN_CODECS)
