"""Reports written under a home of their own."""

import shutil
from pathlib import Path

import pytest

from service.reports import service
from service.settings import get_settings
from tests.service.reports import samples


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one report in all its forms: drawing it takes a second, copying it does not."""
    home = tmp_path_factory.mktemp("report-home")
    job = samples.evidence()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(home))
        get_settings.cache_clear()
        service.write_job_evidence(job, samples.score_tables(home / "scores"))
        service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
        for form in service.FORMS:
            service.read_form(samples.REQUEST, form)
    get_settings.cache_clear()
    shutil.rmtree(home / "scores")
    return home


@pytest.fixture
def written(home: Path, template: Path) -> str:
    """The id of a request whose report is written, with all figures."""
    shutil.copytree(template, home, dirs_exist_ok=True)
    return samples.REQUEST


@pytest.fixture
def bundle(written: str) -> bytes:
    """The evidence bundle of that request."""
    return service.read_form(written, "zip")
