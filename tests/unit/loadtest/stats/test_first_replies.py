from capnp_rig.loadtest.stats.first_replies import compare_firsts
from capnp_rig.loadtest.stats.tally import FirstReply, Report, Tally, Window, add

KIND = "WrongReply: wrong reply: not the first one of another process or repeat"
A = ("digest a", '{"by": 1}', '{"x": 1}')
B = ("digest b", '{"by": 1}', '{"x": 2}')


def test_the_first_replies_of_all_processes_must_be_the_same() -> None:
    known: dict[str, FirstReply] = {}
    window = {0: Window(failures={"other": 3})}
    reports = [
        Report(window, firsts={"line 1": A}),
        Report(window, firsts={"line 1": A, "line 2": A}),
        Report(window, firsts={"line 1": B, "line 2": B}),
        Report(),
    ]
    compared = compare_firsts(reports, known)
    assert [report.total.failures.get(KIND, 0) for report in compared] == [0, 0, 2, 0]
    assert compared[2].total.failures["other"] == 3
    (example, _) = compared[2].examples
    assert (example.request, example.expected, example.came) == (A[1], A[2], B[2])
    assert example.is_wrong
    # A later repeat.
    (repeat,) = compare_firsts([Report(firsts={"line 2": B})], known)
    assert repeat.total.failures == {KIND: 1}
    # Of many lines the last have no texts.
    (silent,) = compare_firsts([Report(firsts={"line 2": ("digest b", "", "")})], known)
    assert silent.examples[0].request == "line 2"


def test_a_tally_tells_the_first_replies_once_and_again_when_there_are_more() -> None:
    firsts: dict[str, FirstReply] = {}
    tally = Tally(open_ns=0)
    tally.check((), firsts)
    assert tally.take().firsts == {}
    firsts["line 1"] = A
    reports = [tally.take(), tally.take()]
    firsts["line 2"] = B
    reports.append(tally.take())
    assert [dict(report.firsts) for report in reports] == [
        {"line 1": A},
        {},
        {"line 1": A, "line 2": B},
    ]
    total = add(add(reports[0], reports[1]), reports[2])
    assert total.firsts == {"line 1": A, "line 2": B}
    assert Report.from_json(total.to_json()).firsts == total.firsts
