"""The heavy part of a pool's tasks: what planning adds to a model that was trained elsewhere."""

from pathlib import Path

import pytest

from service.catalogue.lineage import LINEAGE
from service.database import reading
from service.queue import TASK_PLAN_REFERENCES
from service.references.service import Wanted, prepare
from service.registry import service as registry
from tests.service.factories import register_images
from tests.service.references.support import COUNT, RECIPE, artefacts, claim, row
from workers.lineage.duplicates import DUPLICATES
from workers.tasks import reference_work


@pytest.mark.parametrize(("section", "looked"), [("", True), ('[lineage]\nduplicates = "off"\n', False)])
def test_copies_are_looked_for_unless_the_recipe_says_no(
    database_url: str, tmp_path: Path, section: str, looked: bool
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE + section)
    version = register_images(tmp_path, recipe=tmp_path / "recipe.toml")
    pool_id = prepare("digits", Wanted(count=COUNT))
    reference_work.run(claim(TASK_PLAN_REFERENCES, pool_id))
    assert row(pool_id).state == "building"
    assert (Path(version.path) / LINEAGE / DUPLICATES).is_file() == looked
    assert len(artefacts(LINEAGE)) == looked
    with reading() as session:
        assert registry.get_model(session, "digits").serving_version_id == version.id
