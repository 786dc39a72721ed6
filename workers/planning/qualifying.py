"""What qualifications say of the methods that a job may try; no torch, since plans are made with it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from service.catalogue.methods import METHODS, find_method
from service.catalogue.precisions import FULL, Precision
from service.catalogue.recipes import Recipe
from service.verification.policy import Policy
from service.verification.qualification import Qualification, find_qualification, rules_digest
from service.verification.schema import Evaluation, Qualified, Use
from service.verification.verdict import decide, explain
from workers.modeling.code_version import code_version, package_versions
from workers.modeling.recipe import recipe_digest
from workers.planning.parameters import full_params

Documents = Sequence[Qualification]


def use_of(task: str, recipe: Recipe | None, digests: tuple[str, str | None], policy: Policy, records: int) -> Use:
    """A deletion of so many records, made today with this code; `digests` of the data and of a held-out set given."""
    return Use(
        task=task,
        recipe_digest=recipe_digest(recipe) if recipe is not None else None,
        data_digest=digests[0],
        holdout_digest=digests[1],
        rules_digest=rules_digest(policy.document),
        companions=policy.verification.companions,
        code_version=code_version(),
        packages=package_versions(),
        records=records,
        on=datetime.now(UTC).date(),
    )


def unqualified(policy: Policy, documents: Documents, use: Use, serve_precision: Precision = FULL) -> dict[str, str]:
    """Approximate methods that the policy leaves out of the ladder, and why; none where it asks for no qualification.

    The ladder runs methods with their defaults, so that is what has to be qualified. What a qualification decides by
    is measured on weights as they are stored, so that none covers a model that is served in fewer bits.
    """
    if policy.verification.qualification == "off":
        return {}
    specs = [spec for spec in METHODS if spec.kind == "approximate" and use.task in spec.tasks]
    if serve_precision != FULL:
        reason = f"methods are qualified in {FULL}, and the model is served in {serve_precision}"
        return {spec.name: reason for spec in specs}
    found = {spec.name: find_qualification(documents, spec.name, full_params(spec, {}), use) for spec in specs}
    return {name: told for name, told in found.items() if isinstance(told, str)}


def with_qualification(
    evaluation: Evaluation, method: str, params: dict[str, Any], documents: Documents, use: Use
) -> Evaluation:
    """The evaluation of an approximate candidate with what qualified its method, and the grade that follows from it."""
    spec = find_method(method)
    found = find_qualification(documents, method, full_params(spec, params), use)
    rounded = evaluation.serve_precision != FULL
    if spec.kind != "approximate" or not isinstance(found, Qualified) or rounded:
        return evaluation
    grade = decide(evaluation.checks, evaluation.basis, found)[1]
    reason = explain(evaluation.checks, evaluation.basis, found)
    return evaluation.model_copy(update={"qualification": found, "grade": grade, "reason": reason})
