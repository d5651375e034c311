"""Charts as SVG and PNG, and the JavaScript that draws them in a page: all by vl-convert.

vl-convert has Vega and a JavaScript engine inside, and needs neither a browser nor a network. The
engine takes a second to start, so it is imported on demand.
"""

import re
from types import ModuleType

from capnp_rig.loadtest.report.chart import Chart
from capnp_rig.loadtest.report.vega_lite import picture

_PNG_SCALE = 2
# Vega numbers what it clips on and on, from one picture to the next.
_CLIP = re.compile(r"(?<=[\"#])clip([0-9]+)")
# Discs for the pointer, of which a picture has none.
_UNSEEN = re.compile(r'<path[^>]* fill-opacity="0"[^>]*/>')


class ExtraMissing(Exception):
    """A library of the extra ``report`` is not installed; the message says how to get it."""


def svg(chart: Chart) -> str:
    """Return a chart as SVG, black on white; style sheets of a page may say otherwise.

    The same chart is the same text, so that git sees what changed. Several of them may stand in
    one page, each with ids of its own.

    Raises:
        ExtraMissing: There is no vl-convert.
    """
    text: str = _UNSEEN.sub("", _vl_convert().vegalite_to_svg(picture(chart)))
    text = text.replace("<svg ", '<svg style="color:black;background:white" ', 1)
    numbers = list(dict.fromkeys(_CLIP.findall(text)))
    return _CLIP.sub(lambda clip: f"{chart.key}-clip{numbers.index(clip[1])}", text)


def png(chart: Chart) -> bytes:
    """Return a chart as PNG, black on white, with two dots per px.

    Raises:
        ExtraMissing: There is no vl-convert.
    """
    spec = {**picture(chart), "background": "white"}
    image: bytes = _vl_convert().vegalite_to_png(spec, scale=_PNG_SCALE)
    return image


def vega_script() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed, which becomes ``vegaEmbed``.

    Raises:
        ExtraMissing: There is no vl-convert.
    """
    script: str = _vl_convert().javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


def _vl_convert() -> ModuleType:
    try:
        import vl_convert
    except ModuleNotFoundError as error:
        raise ExtraMissing("vl-convert is missing: install capnp-rig[report]") from error
    return vl_convert
