"""The report page in a browser: it draws, sorts, copies, prints, and asks for nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deadline import eventually
from references import REFERENCES, each_reference
from running_browser import Page, browser_page
from sample_results import EVIL, write_results

from capnp_rig.loadtest.report.chart import GREY
from capnp_rig.loadtest.report.chart_images import ExtraMissing
from capnp_rig.loadtest.report.line_styles import CODECS
from capnp_rig.loadtest.report.write import sources_of, write_page

_DRAWN = "document.documentElement.dataset.drawn"
_PLOTS = "document.querySelectorAll('.plot').length"
_LOADED_S = 30.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browser_page() as page:
        yield page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a result of every kind, and of the references besides."""
    folder = tmp_path_factory.mktemp("report")
    write_results(folder)
    return _written(folder)


def _written(folder: Path) -> Path:
    try:
        return write_page(sources_of(folder, []), folder / "index.html")
    except ExtraMissing as error:
        pytest.skip(str(error))


def _open(browser: Page, file: Path, width: int = 1280) -> None:
    browser.console_errors.clear()
    browser.requests.clear()
    browser.resize(width, 900)
    browser.open(file.as_uri(), within_s=_LOADED_S)
    browser.wait_for(_DRAWN, within_s=_LOADED_S)


def _assert_clean(browser: Page, file: Path) -> None:
    # Whatever was logged comes with the next answer.
    browser.evaluate("1")
    assert browser.console_errors == []
    asked = {url for url in browser.requests if not url.startswith("data:")}
    assert asked == {file.as_uri()}


def test_every_chart_is_drawn_and_nothing_is_asked_for(browser: Page, file: Path) -> None:
    _open(browser, file)
    count = browser.evaluate(_PLOTS)
    assert count > 10
    assert browser.evaluate(_DRAWN) == str(count)
    undrawn = "[...document.querySelectorAll('.plot')].filter(p => !p.querySelector('svg.marks'))"
    assert browser.evaluate(f"{undrawn}.map(plot => plot.dataset.chart)") == []
    _assert_clean(browser, file)


@pytest.mark.nightly
@pytest.mark.parametrize("reference", each_reference())
def test_a_reference_is_drawn(browser: Page, tmp_path: Path, reference: Path) -> None:
    shutil.copytree(reference, tmp_path / reference.name)
    page = _written(tmp_path)
    _open(browser, page)
    assert browser.evaluate(_DRAWN) == str(browser.evaluate(_PLOTS)) != "0"
    assert browser.evaluate("document.querySelectorAll('#verdict tr').length") > 1
    _assert_clean(browser, page)


@pytest.mark.nightly
def test_a_page_of_all_references_is_small(tmp_path: Path) -> None:
    try:
        page = write_page(sources_of(tmp_path, REFERENCES), tmp_path / "page.html")
    except ExtraMissing as error:
        pytest.skip(str(error))
    assert page.stat().st_size < 2_000_000


@pytest.mark.parametrize("width", [360, 1280])
def test_no_width_scrolls_sideways(browser: Page, file: Path, width: int) -> None:
    _open(browser, file, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # Charts are as wide as there is room, and no wider.
    assert browser.evaluate(
        "[...document.querySelectorAll('.plot')].filter(plot => plot.offsetParent)"
        ".every(plot => plot.querySelector('svg').getBoundingClientRect().width"
        " <= plot.clientWidth + 1)"
    )
    _assert_clean(browser, file)


_TOO_WIDE = (
    "[...document.querySelectorAll('.tablebox')].filter(box => box.offsetParent && "
    "box.querySelector('table').getBoundingClientRect().right > "
    "box.getBoundingClientRect().right + 1).map(box => box.id)"
)


def test_tables_fit_a_telephone_and_paper(browser: Page, file: Path) -> None:
    _open(browser, file, 390)
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.evaluate(_TOO_WIDE) == []
    cells = browser.evaluate(
        "[...document.querySelectorAll('.wide td')].filter(td => td.offsetParent && td.cellIndex)"
        ".slice(0, 50).map(td => [getComputedStyle(td, '::before').content.slice(1, -1),"
        " td.closest('table').tHead.rows[0].cells[td.cellIndex].textContent])"
    )
    # Each stands behind its heading.
    assert len(cells) > 10
    assert all(before == heading for before, heading in cells)
    browser._send("Emulation.setEmulatedMedia", media="print")
    try:
        # A4 less the margins.
        browser.resize(685, 900)
        assert browser.evaluate(_TOO_WIDE) == []
    finally:
        browser._send("Emulation.setEmulatedMedia", media="")


def test_text_from_a_result_is_text(browser: Page, file: Path) -> None:
    _open(browser, file)
    assert EVIL in browser.evaluate("document.querySelector('#copy-ledger').textContent")
    assert browser.evaluate("document.querySelectorAll('main b').length") == 0
    # Charts and Vega as they are packed, the page's own, and Vega as it runs.
    assert browser.evaluate("document.scripts.length") == 4


_COLUMN = "[...document.querySelectorAll('#{} tbody tr')].map(row => row.cells[{}].textContent)"
_HEADING = "document.querySelectorAll('#{} th')[{}]"


def _sorted(browser: Page, table: str, column: int) -> tuple[str, Any]:
    """Press a heading; return how it says that it sorts, and its column."""
    heading = _HEADING.format(table, column)
    browser.evaluate(f"{heading}.querySelector('button').click()")
    said = browser.evaluate(f"{heading}.getAttribute('aria-sort')")
    return said, browser.evaluate(_COLUMN.format(table, column))


def test_tables_sort_by_value_and_back(browser: Page, file: Path) -> None:
    _open(browser, file)
    sizes = ["64 B", "1 KiB", "16 KiB", "256 KiB", "4 MiB"]
    table = "table-text-open-read-100"
    assert _sorted(browser, table, 0) == ("ascending", sizes)
    assert _sorted(browser, table, 0) == ("descending", sizes[::-1])
    # By name; and the other column no longer says that it sorts.
    verdicts = ["faster", "faster", "faster", "slower", "void"]
    assert _sorted(browser, table, 8) == ("ascending", verdicts)
    assert browser.evaluate(f"{_HEADING.format(table, 0)}.getAttribute('aria-sort')") == "none"


def test_what_has_no_number_stays_last(browser: Page, file: Path) -> None:
    _open(browser, file)
    assert _sorted(browser, "encoded-table", 4)[1] == ["90 µs", "90 µs", "-", "-"]
    assert _sorted(browser, "encoded-table", 4)[1] == ["90 µs", "90 µs", "-", "-"]


def test_a_heading_sorts_from_the_keyboard(browser: Page, file: Path) -> None:
    _open(browser, file)
    heading = _HEADING.format("rates", 0)
    browser.evaluate(f"{heading}.querySelector('button').focus()")
    browser._send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
    browser._send("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter")
    assert browser.evaluate(f"{heading}.getAttribute('aria-sort')") == "ascending"


def test_a_table_is_copied_even_without_a_clipboard(browser: Page, file: Path) -> None:
    _open(browser, file)
    # What a page from a file may meet: no clipboard, then not even the old way.
    browser.evaluate(
        "window.copied = [];"
        "Object.defineProperty(navigator, 'clipboard',"
        " {value: {writeText: async text => { copied.push(text) }}, configurable: true})"
    )
    button = "document.querySelector('#rates .copy')"
    browser.evaluate(f"{button}.click()")
    browser.wait_for(f"{button}.textContent === 'Copied'")
    lines = browser.evaluate("copied[0]").split("\n")
    assert lines[0].split("\t")[:3] == ["offered/s", "answered/s", "p50"]
    assert lines[1].split("\t")[:3] == ["10,000", "9,900", "100 µs"]
    browser.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        "document.execCommand = () => false"
    )
    browser.evaluate(f"{button}.click()")
    browser.wait_for(f"{button}.textContent.startsWith('Selected')")
    assert "10,000" in browser.evaluate("String(getSelection())")
    _assert_clean(browser, file)


_PATHS = """[...document.querySelectorAll('[data-chart={}] .mark-line path')]
    .map(path => path.getAttribute('stroke'))"""


def test_the_legend_switches_lines_in_all_panels(browser: Page, file: Path) -> None:
    _open(browser, file)
    paths = _PATHS.format("size-text-open-read-100")
    pill = "document.querySelector('#size-text-open-read-100 [data-line={}]')"
    wire, orjson = CODECS["wire"].color, CODECS["orjson"].color
    before = browser.evaluate(paths)
    # The times and the ratio.
    assert before.count(wire) > 1
    browser.evaluate(f"{pill.format('wire')}.click()")
    after = browser.evaluate(paths)
    assert wire not in after
    assert after.count(orjson) == before.count(orjson) > 0
    assert browser.evaluate(f"{pill.format('wire')}.getAttribute('aria-pressed')") == "false"
    # One that is not shown at first has the colour of its family.
    browser.evaluate(f"{pill.format('json')}.click()")
    assert browser.evaluate(paths).count(orjson) == before.count(orjson) + 1
    browser.evaluate(f"{pill.format('wire')}.click()")
    assert browser.evaluate(paths).count(wire) == before.count(wire)
    _assert_clean(browser, file)


def test_a_point_says_its_value_under_the_pointer(browser: Page, file: Path) -> None:
    _open(browser, file)
    place = browser.evaluate(
        """(() => {
            const plot = document.querySelector('[data-chart=size-text-open-read-100]');
            plot.scrollIntoView({block: 'center'});
            const box = plot.querySelector('.mark-symbol path').getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        })()"""
    )
    browser._send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    tip = "document.querySelector('#vg-tooltip-element.visible')?.textContent"
    assert "open+read 100%" in browser.wait_for(tip)
    _assert_clean(browser, file)


def test_void_points_are_grey(browser: Page, file: Path) -> None:
    _open(browser, file)
    assert GREY in browser.evaluate(_PATHS.format("size-text-open-read-100"))


_AS_WIDE_AS_ROOM = "Math.abs({0}.querySelector('svg').clientWidth - {0}.clientWidth) < 2"


def test_a_chart_follows_the_width_of_the_window(browser: Page, file: Path) -> None:
    _open(browser, file)
    plot = "document.querySelector('.plot')"
    before = browser.evaluate(f"{plot}.clientWidth")
    browser.resize(700, 900)
    browser.wait_for(f"{plot}.clientWidth !== {before}")
    browser.wait_for(_AS_WIDE_AS_ROOM.format(plot))
    _assert_clean(browser, file)


def test_what_was_folded_is_drawn_as_wide_as_the_rest(browser: Page, file: Path) -> None:
    _open(browser, file)
    plot = "document.querySelector('[data-chart=size-text-build]')"
    browser.evaluate(f"{plot}.closest('details').open = true")
    browser.wait_for(_AS_WIDE_AS_ROOM.format(plot))


def test_a_dark_page_has_light_letters(browser: Page, file: Path) -> None:
    _open(browser, file)
    letters = "getComputedStyle(document.querySelector('.plot .role-axis-label text')).fill"
    light = browser.evaluate(letters)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser._send("Emulation.setEmulatedMedia", features=dark)
    try:
        eventually(lambda: browser.evaluate(letters) != light, within_s=10)
    finally:
        browser._send("Emulation.setEmulatedMedia", features=[])
    eventually(lambda: browser.evaluate(letters) == light, within_s=10)
    _assert_clean(browser, file)


def test_print_fits_charts_to_the_paper_and_gives_them_back(browser: Page, file: Path) -> None:
    _open(browser, file)
    width = "document.querySelector('.plot svg').getBoundingClientRect().width"
    before = browser.evaluate(width)
    browser.evaluate(
        f"window.printed = []; addEventListener('beforeprint', () => {{printed.push({width})}})"
    )
    answer = browser._send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
    assert answer["data"]
    assert browser.evaluate("printed") == [660]
    eventually(lambda: abs(browser.evaluate(width) - before) < 2, within_s=10)
    _assert_clean(browser, file)


def test_charts_say_what_they_show_to_those_who_cannot_see_them(browser: Page, file: Path) -> None:
    _open(browser, file)
    labels = browser.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot => plot.getAttribute('aria-label'))"
    )
    assert all(len(label) > 40 for label in labels)
    captions = browser.evaluate(
        "[...document.querySelectorAll('figure.chart')]"
        ".map(figure => figure.querySelector('figcaption').textContent)"
    )
    assert len(captions) == len(labels)
    assert all(captions)
