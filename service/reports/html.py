"""The report as one HTML file: no script, no font, image or style from elsewhere; readable in light, dark and print."""

import re
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from service.reports.canvas import INK

if TYPE_CHECKING:
    from jinja2 import Template


def render_html(document: dict[str, Any], figures: Mapping[str, bytes]) -> bytes:
    """Lay out `document` (service/reports/document.py); `figures` holds the SVG of each figure by name."""
    from markupsafe import Markup

    drawn = {
        name: Markup(inline_svg(svg.decode(), f"f{index}", alt))  # noqa: S704 - our own SVG; the text is escaped
        for index, (name, svg) in enumerate(figures.items())
        for alt in [_alt(document, name)]
    }
    return _template().render(document=document, figures=drawn).encode()


@lru_cache(maxsize=1)
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("service.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _alt(document: dict[str, Any], name: str) -> str:
    blocks = (block for section in document["sections"] for block in section["blocks"])
    return next((str(block["alt"]) for block in blocks if block["kind"] == "figure" and block["name"] == name), "")


def inline_svg(svg: str, prefix: str, alt: str) -> str:
    """The element with ids of its own, an accessible name, and ink that follows the page's text colour."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")
    opening, rest = svg.split(">", 1)
    attributes = re.sub(r'\s(?:width|height)="[^"]*"', "", opening.removeprefix("<svg"))  # the page sets the size
    return f'<svg role="img" aria-label="{escape(alt)}"{attributes}>{rest}'
