"""The PDF form: says the same, looks like something, carries its fonts and the report for machines."""

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
import pytest
from PIL import Image

from service.reports import service
from service.reports.document import document_of
from service.reports.figures import draw_job
from service.reports.schema import Report
from service.verification.schema import Basis
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
    titles = (
        "What was asked",
        "What was decided",
        "What was done",
        "What was found",
        "What this evidence does not show",
    )
    places = [first.index(title) for title in titles]
    assert places == sorted(places)
    assert "pass" in first
    assert "Deadline" not in first
    assert reader.pages[1].extract_text().startswith("Deadline")


@pytest.mark.parametrize("published", ["nabla_tau", "retrain"])
def test_the_decision_fits_page_one_with_every_check_there_is(home: Path, tmp_path: Path, published: str) -> None:
    job = samples.evidence(published=published)
    basis: Basis = "procedure" if published == "retrain" else "measurement"
    told = samples.evaluation(basis, reference={}, more=[*samples.PLANTED, *samples.SINGLE], near_duplicates=3)
    job = samples.with_evaluation(job, told)
    service.write_job_evidence(job, samples.score_tables(tmp_path / "scores", n=20, canaries=73))
    service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
    pdf = service.read_form(samples.REQUEST, "pdf")
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    last = document_of(Report.model_validate_json(service.read_report(samples.REQUEST)))["decision"][-1]["lines"][-1]
    assert squeezed(last) in squeezed(reader.pages[0].extract_text())
    assert reader.pages[1].extract_text().startswith("Deadline")
    assert_shown(pdf, tmp_path)


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


def assert_shown(pdf: bytes, folder: Path) -> None:
    """Every page, made into an image, has ink on it above its foot and is not black."""
    (folder / "report.pdf").write_bytes(pdf)
    subprocess.run(["pdftoppm", "-r", "40", "-gray", "-png", folder / "report.pdf", folder / "page"], check=True)
    pages = sorted(folder.glob("page*.png"))
    assert len(pages) >= 3
    for page in pages:
        with Image.open(page) as image:
            histogram = image.crop((0, 0, image.width, round(0.92 * image.height))).histogram()
        inked = sum(histogram[:200]) / sum(histogram)
        assert 0.002 < inked < 0.5, page.name


def test_every_page_shows_something(pdf: bytes, tmp_path: Path) -> None:
    assert_shown(pdf, tmp_path)


def test_every_figure_shows_something(tmp_path: Path) -> None:
    """Each figure alone on a page: whatever is drawn in it ends up as ink, and as colour."""
    import typst

    drawn = draw_job(samples.evidence(), samples.score_tables(tmp_path / "scores", n=20, canaries=73))
    assert len(drawn) == 8
    for part, svg in drawn:
        name = part.name.rpartition("/")[2]
        (tmp_path / f"{name}.svg").write_bytes(svg)
        (tmp_path / "page.typ").write_text(f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{name}.svg")')
        made = typst.compile(tmp_path / "page.typ", format="png", ppi=40)
        assert isinstance(made, bytes)
        with Image.open(io.BytesIO(made)) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
        assert 0.02 < np.mean(pixels.min(axis=2) < 250) < 0.9, name
        colourful = np.ptp(pixels, axis=2) > 60
        assert colourful.mean() > 0.001, name


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
