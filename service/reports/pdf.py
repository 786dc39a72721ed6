"""The report as PDF/A-3b by Typst, with report.json attached.

Text goes in as data and never as Typst source, the fonts are those inside the compiler, and the document's date is
the report's: the same report gives the same bytes.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from service.errors import Unavailable


def render_pdf(document: dict[str, Any], figures: Mapping[str, bytes], report_json: bytes) -> bytes:
    """Lay out `document` (service/reports/document.py); raises Unavailable when Typst refuses it."""
    import typst

    source = files("service.reports").joinpath("report.typ").read_bytes()
    inputs = {
        "document": json.dumps(document),
        "figures": json.dumps({name: svg.decode() for name, svg in figures.items()}),
        "report": report_json.decode(),
    }
    try:
        made = typst.compile(source, ignore_system_fonts=True, sys_inputs=inputs, pdf_standards="a-3b")
    except RuntimeError as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(f"the PDF could not be made: {first}") from error
    if not isinstance(made, bytes):
        raise Unavailable("the PDF could not be made: no single document came back")
    return made
