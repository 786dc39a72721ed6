"""The HTML form: one file that loads nothing, runs nothing, and can be read by machines for people."""

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from service.reports import service
from service.reports.html import inline_svg, render_html


class Page(HTMLParser):
    """Tags, ids and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.labels: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[str(value)] += 1
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.addresses.append(str(value))
            if tag == "svg" and name == "aria-label":
                self.labels.append(str(value))


@pytest.fixture
def text(written: str) -> str:
    return service.read_form(written, "html").decode()


def test_nothing_is_loaded_or_run(text: str) -> None:
    page = Page(text)
    assert page.tags.keys().isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form"})
    assert [address for address in page.addresses if not address.startswith("#")] == []
    assert not [found for found in re.findall(r"url\(([^)]*)\)", text) if not found.startswith("#")]
    assert "@import" not in text
    assert not re.search(r'\son\w+="', text)


def test_ids_are_unique_and_references_meet_one(text: str) -> None:
    page = Page(text)
    assert [name for name, times in page.ids.items() if times > 1] == []
    assert {address[1:] for address in page.addresses} <= page.ids.keys()


def test_it_has_a_language_one_title_and_named_figures(text: str) -> None:
    page = Page(text)
    assert '<html lang="en">' in text
    assert page.tags["h1"] == 1
    assert page.tags["figure"] == page.tags["svg"] == len(page.labels) == 8
    assert all(page.labels)


def test_it_says_what_was_decided(text: str) -> None:
    for phrase in (
        "What was asked",
        "What was decided",
        "What was done",
        "What was found",
        "What this evidence does not show",
    ):
        assert phrase in text
    assert "grade C" in text


def test_text_is_escaped() -> None:
    block = {"kind": "text", "text": "<script>alert(1)</script>"}
    document = {
        "title": "T", "subtitle": "<b>", "generated": "", "generator": "", "verdicts": [], "decision": [],
        "sections": [{"title": "S", "blocks": [block]}],
    }  # fmt: skip
    text = render_html(document, {}).decode()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b>" not in text


def test_a_figure_gets_ids_of_its_own_and_an_escaped_name() -> None:
    svg = '<svg width="4pt" height="3pt" viewBox="0 0 4 3"><g id="a"/><use href="#a" clip-path="url(#b)"/></svg>'
    inlined = inline_svg(svg, "f1", 'x "quoted" <y>')
    assert 'id="f1-a"' in inlined
    assert 'href="#f1-a"' in inlined
    assert "url(#f1-b)" in inlined
    assert 'aria-label="x &quot;quoted&quot; &lt;y&gt;"' in inlined
    assert 'width="4pt"' not in inlined


def test_the_same_report_gives_the_same_page(text: str, written: str) -> None:
    (cached,) = (service.report_directory(written) / "rendered").glob("*.html")
    cached.unlink()
    assert service.read_form(written, "html").decode() == text
