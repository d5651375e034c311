"""What the README says of speed is what the reference results say."""

import re

from references import REFERENCES
from running_rig import ROOT

from capnp_rig.loadtest.report.contents import document_of
from capnp_rig.loadtest.report.fill_in import filled
from capnp_rig.loadtest.report.sources import read_sources

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_figures_are_those_of_the_reference_results() -> None:
    found = read_sources(REFERENCES)
    assert not found.skipped
    document = document_of(found, lambda source: source.name)
    assert filled(README, document, "results/figures") == README


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]*)", README)
    assert "docs/index.md" in links
    files = [link for link in links if not link.startswith("https://")]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_it_is_short_and_shows_one_picture() -> None:
    assert len(README.splitlines()) <= 150
    assert README.count("![") == 1


def test_every_picture_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", README)
    assert pictures
    assert [name for name in pictures if not (ROOT / name).is_file()] == []
