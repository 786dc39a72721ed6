"""The qualification as a document: its verdict follows from its figures, and it covers what it was made for alone."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.errors import BadParameters
from service.verification.policy import Policy
from service.verification.qualification import (
    VALID,
    Figure,
    Qualification,
    SizeClass,
    find_qualification,
    judged,
    judged_class,
    judged_figure,
    load_folder,
    load_qualification,
    rules_digest,
    why_not,
)
from service.verification.schema import Qualified, Use

ISSUED = date(2026, 11, 1)
AUC = Figure(name="auc", statistic="AUC", estimate=0.5, ci=(0.47, 0.53), ci95=(0.46, 0.54), low=0.45, high=0.55)
TPR = Figure(name="tpr", statistic="TPR", estimate=0.01, ci=(0.0, 0.03), ci95=(0.0, 0.04), high=0.05)
WORST = Figure(name="worst_decile", statistic="AUC", estimate=0.5, ci=(0.4, 0.6), ci95=(0.38, 0.62), high=0.65)
UTILITY = Figure(name="utility", statistic="d", estimate=0.0, ci=(-0.01, 0.01), ci95=(-0.012, 0.012), low=-0.04)
GOOD = [AUC, TPR, WORST, UTILITY]
USE = Use(
    task="image-classification", recipe_digest="r" * 64, data_digest="d" * 64, holdout_digest="h" * 64,
    rules_digest="e" * 64, companions=73, code_version="0.1+src.1", packages={"python": "3.11.4", "torch": "2.3.0"},
    records=40, on=ISSUED,
)  # fmt: skip


def sized(size: int = 10, pooled: list[Figure] = GOOD, **changes: Any) -> SizeClass:
    return SizeClass(size=size, runs=20, pooled=pooled, designs=changes.pop("designs", {"random": pooled}), **changes)


def document(*classes: SizeClass, **changes: Any) -> Qualification:
    values: dict[str, Any] = {
        "task": USE.task, "method": "nabla_tau", "params": {"passes": 3}, "recipe_digest": USE.recipe_digest,
        "data_digest": USE.data_digest, "holdout_digest": USE.holdout_digest, "model_digest": "m" * 64,
        "records": 1000, "companions": 73, "code_version": USE.code_version, "packages": USE.packages,
        "policy_digest": "p" * 64, "rules_digest": USE.rules_digest,
        "issued": ISSUED, "valid_until": ISSUED + VALID, "seed": 0, "repetitions": 20,
        "classes": list(classes or (sized(),)),
    }  # fmt: skip
    return judged(Qualification.model_validate(values | changes))


def changed(figure: Figure, **values: Any) -> list[Figure]:
    return [figure.model_copy(update=values) if one.name == figure.name else one for one in GOOD]


def test_figures_pass_inside_their_bounds_fail_outside_and_are_open_across() -> None:
    for figure, expected in (
        (AUC, "pass"),
        (AUC.model_copy(update={"ci": (0.44, 0.53)}), "inconclusive"),
        (AUC.model_copy(update={"ci95": (0.56, 0.7)}), "fail"),
        (AUC.model_copy(update={"ci95": (0.2, 0.44)}), "fail"),
        (AUC.model_copy(update={"ci": None}), "inconclusive"),
        (TPR.model_copy(update={"ci": (0.06, 0.2), "ci95": (0.055, 0.2)}), "fail"),
        (AUC.model_copy(update={"low": None, "high": None, "ci95": (0.9, 1.0)}), "info"),
    ):
        assert judged_figure(figure).outcome == expected


def test_what_retrains_do_as_well_is_no_failure() -> None:
    worse = TPR.model_copy(update={"ci": (0.06, 0.2), "ci95": (0.055, 0.2)})
    assert judged_figure(worse.model_copy(update={"retrained_ci95": (0.03, 0.1)})).outcome == "inconclusive"
    assert judged_figure(worse.model_copy(update={"retrained_ci95": (0.0, 0.05)})).outcome == "fail"


def test_a_class_is_qualified_where_every_gate_passes_and_no_design_fails() -> None:
    assert judged_class(sized()).verdict == "qualified"
    for found, verdict, told in (
        (sized(broken=1), "not qualified", "broke off 1 of 20 runs"),
        (sized(pooled=changed(AUC, ci95=(0.6, 0.7))), "not qualified", "auc fails on all designs"),
        (sized(designs={"memorised": changed(WORST, ci95=(0.7, 0.8))}), "not qualified", "fails on memorised"),
        (sized(pooled=changed(TPR, ci=None, reason="few held-out records")), "inconclusive", "tpr: few held-out"),
        (sized(pooled=changed(UTILITY, ci=(-0.06, 0.01))), "inconclusive", "utility: the interval reaches"),
        (sized(pooled=GOOD[:3]), "inconclusive", "utility: not measured"),
        (sized(designs={"random": changed(AUC, ci=(0.3, 0.7))}), "qualified", "within its bounds"),
    ):
        made = judged_class(found)
        assert made.verdict == verdict
        assert told in made.reason


def test_the_document_is_as_good_as_its_worst_class() -> None:
    bad, open_ = sized(100, changed(AUC, ci95=(0.6, 0.7))), sized(100, changed(AUC, ci=(0.4, 0.6)))
    assert document(sized()).verdict == "qualified"
    assert document(sized(), open_).verdict == "inconclusive"
    assert document(sized(), open_, bad).verdict == "not qualified"


def test_it_covers_the_use_it_was_made_for_and_no_other() -> None:
    found = document()
    params = {"passes": 3}
    assert why_not(found, "nabla_tau", params, USE) is None
    assert "another method" in str(why_not(found, "negative_gradient_plus", params, USE))
    assert "other parameters" in str(why_not(found, "nabla_tau", {"passes": 4}, USE))
    for change, told in (
        ({"task": "causal-lm"}, "another task"),
        ({"data_digest": "e" * 64}, "other data"),
        ({"recipe_digest": None}, "another recipe"),
        ({"code_version": "0.2"}, "another version of the code"),
        ({"companions": 305}, "another number of companion canaries"),
        ({"holdout_digest": None}, "another held-out set"),
        ({"rules_digest": "f" * 64}, "other rules of verification in the policy"),
        ({"packages": {"python": "3.11.4", "torch": "2.4.0"}}, "other packages: torch 2.3.0 (here 2.4.0)"),
        ({"packages": {**USE.packages, "peft": "0.9"}}, "other packages: peft absent (here 0.9)"),
        ({"on": ISSUED + VALID + timedelta(days=1)}, "was valid from 2026-11-01 to 2027-01-30"),
        ({"on": ISSUED - timedelta(days=1)}, "was valid from"),
        ({"records": 9}, "no size was qualified that stands for 9 records"),
        ({"records": 100}, "no size was qualified that stands for 100 records"),
    ):
        assert told in str(why_not(found, "nabla_tau", params, USE.model_copy(update=change)))
    last = USE.model_copy(update={"records": 10, "on": ISSUED + VALID})
    assert why_not(found, "nabla_tau", params, last) is None
    worse = document(sized(), sized(40, changed(AUC, ci95=(0.6, 0.7))))
    assert "size 40 is not qualified: auc fails" in str(why_not(worse, "nabla_tau", params, USE))


def test_nothing_is_valid_for_longer_than_ninety_days(tmp_path: Path) -> None:
    for days, told in ((VALID, None), (VALID + timedelta(days=1), "valid for more than 90 days")):
        path = tmp_path / f"{days.days}.json"
        path.write_text(json.dumps(document(valid_until=ISSUED + days).as_json()))
        if told is None:
            assert load_qualification(path).valid_until == ISSUED + VALID
            continue
        with pytest.raises(BadParameters, match=told):
            load_qualification(path)
    assert len(load_folder(tmp_path)) == 1


def test_what_the_policy_measures_by_counts_and_nothing_else_of_it() -> None:
    def digest(**sections: dict[str, Any]) -> str:
        return rules_digest(Policy.model_validate(sections).model_dump(mode="json"))

    plain = digest()
    for section, change, same in (
        ("verification", {"qualification": "required"}, True),
        ("batch", {"window": "1h"}, True),
        ("retention", {"records": "12 months"}, True),
        ("ladder", {"methods": ["retrain"]}, True),
        ("verification", {"alpha": 0.1}, False),
        ("verification", {"utility_margin": {"300": 0.05}}, False),
        ("verification", {"companions": 305}, False),
        ("ladder", {"approximate_attempts": 1}, False),  # attempts share alpha
    ):
        assert (digest(**{section: change}) == plain) is same


def test_the_first_document_that_covers_is_named_else_the_likeliest_reason() -> None:
    expired = document(issued=date(2026, 1, 1), valid_until=date(2026, 4, 1))
    found = find_qualification([expired, document()], "nabla_tau", {"passes": 3}, USE)
    assert isinstance(found, Qualified)
    assert (found.digest, found.size, found.verdict) == (document().digest, 10, "qualified")
    told = find_qualification([document(method="other"), expired], "nabla_tau", {"passes": 3}, USE)
    assert told == "the qualification was valid from 2026-01-01 to 2026-04-01"
    assert find_qualification([document(method="other")], "nabla_tau", {}, USE) == "there is no qualification of it"


def test_a_file_that_was_changed_is_refused_and_covers_nothing(tmp_path: Path) -> None:
    path, text = tmp_path / "q.json", json.dumps(document().as_json())
    path.write_text(text)
    assert load_qualification(path) == document()
    flattered = json.loads(text) | {"verdict": "inconclusive"}
    for content, told in (
        (text.replace('"estimate": 0.01', '"estimate": 0.02'), "its digest is another one"),
        ("{}", "not a qualification of this version"),
    ):
        path.write_text(content)
        with pytest.raises(BadParameters, match=told):
            load_qualification(path)
    from service.verification.qualification import qualification_digest

    path.write_text(json.dumps(flattered | {"digest": qualification_digest(flattered)}))
    with pytest.raises(BadParameters, match="does not follow from its figures"):
        load_qualification(path)
    (tmp_path / "good.json").write_text(text)
    assert load_folder(tmp_path) == [document()]
    assert load_folder(tmp_path / "missing") == []
