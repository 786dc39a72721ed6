"""The PDF form: says the same, looks like something, carries its fonts and the report for machines."""

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pypdf
import pytest
from PIL import Image

from service.reports import service
from service.reports.document import document_of
from service.reports.schema import Report
from tests.service.reports import samples


@pytest.fixture
def pdf(written: str) -> bytes:
    return service.read_form(written, "pdf")


@pytest.fixture
def reader(pdf: bytes) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(pdf))


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_page_one_is_the_decision(reader: pypdf.PdfReader) -> None:
    first = reader.pages[0].extract_text()
    for phrase in ("What was asked", "What was decided", "What was found", "What this evidence does not show", "pass"):
        assert phrase in first
    assert "Deadline" not in first


def test_it_says_what_the_page_says(reader: pypdf.PdfReader, written: str) -> None:
    text = squeezed("".join(page.extract_text() for page in reader.pages))
    document = document_of(Report.model_validate_json(service.read_report(written)))
    lines = [line for part in document["decision"] for line in part["lines"]]
    lines += [block["text"] for section in document["sections"] for block in section["blocks"] if "text" in block]
    cells = [
        cell if isinstance(cell, str) else next(iter(cell.values()))
        for section in document["sections"]
        for block in section["blocks"]
        if block["kind"] in ("table", "facts")
        for row in block["rows"]
        for cell in row
    ]
    # Footers stand between the parts of a paragraph that is split over pages.
    text = re.sub(squeezed(document["subtitle"]) + r"page\dof\d", "", text)
    assert [line for line in [*lines, *cells] if squeezed(line) not in text] == []


def test_the_report_is_attached(reader: pypdf.PdfReader, written: str) -> None:
    assert reader.attachments["report.json"] == [service.read_report(written)]


def test_it_declares_pdf_a_and_embeds_every_font(pdf: bytes, reader: pypdf.PdfReader) -> None:
    assert b"<pdfaid:part>3</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance>" in pdf
    fonts = {}
    for page in reader.pages:
        resources: Any = page["/Resources"]
        for font in resources.get("/Font", {}).values():
            (descendant,) = font.get_object()["/DescendantFonts"]
            descriptor = descendant.get_object()["/FontDescriptor"].get_object()
            fonts[font.get_object()["/BaseFont"]] = descriptor.keys() & {"/FontFile", "/FontFile2", "/FontFile3"}
    assert fonts
    assert all(fonts.values())


def test_every_page_shows_something(pdf: bytes, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(pdf)
    subprocess.run(["pdftoppm", "-r", "40", "-gray", "-png", tmp_path / "report.pdf", tmp_path / "page"], check=True)
    pages = sorted(tmp_path.glob("page*.png"))
    assert len(pages) >= 3
    for page in pages:
        with Image.open(page) as image:
            histogram = image.histogram()
        inked = sum(histogram[:200]) / sum(histogram)
        assert 0.005 < inked < 0.5, page.name


def test_the_same_report_gives_the_same_bytes(pdf: bytes, written: str) -> None:
    (cached,) = (service.report_directory(written) / "rendered").glob("*.pdf")
    cached.unlink()
    assert service.read_form(written, "pdf") == pdf


def test_an_answer_without_records_can_be_printed(home: Path) -> None:
    job = samples.nothing_found()
    service.write_job_evidence(job)
    target = samples.target(outcome="no_records", records=0)
    service.write_request_report(samples.request(), [target], samples.events(job), samples.NOW)
    text = pypdf.PdfReader(io.BytesIO(service.read_form(samples.REQUEST, "pdf"))).pages[0].extract_text()
    assert "No records found" in text
