"""A candidate is not judged by the attack that its method was trained against."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from service.catalogue.methods import find_method
from service.verification.policy import Policy
from service.verification.schema import Traces
from service.verification.sequential import GUESSES
from service.verification.verdict import CANARIES, CANARY_RATE, disagreements
from tests.workers import factories
from tests.workers.conftest import Line
from tests.workers.synthetic import World, classifier_table
from workers.planning.assessment import Facts, assess
from workers.planning.attempt import run_attempt
from workers.planning.opposed import opposed_by

POLICY = Policy()


def test_what_it_was_trained_against_cannot_pass_it() -> None:
    """The same scores: one candidate passes, the other stays undecided, whatever the attack would have said."""
    tables = World(forget=800, held_out=1200, per_subject=4, seed=1).tables(original=2.0, clean=0.0)
    pair = {"original": tables["original"], "candidate": tables["clean"]}
    free = assess(pair, "image-classification", POLICY)
    assert free.verdict == "pass"
    found = assess(pair, "image-classification", POLICY, facts=Facts(opposed=frozenset({"membership_auc"})))
    check = found.check("membership_auc")
    assert check is not None
    assert (check.estimate, check.role, check.verdict) == (None, "gate", "inconclusive")
    assert "trained against this very attack" in (check.reason or "")
    assert (found.verdict, found.grade) == ("inconclusive", None)
    assert disagreements(found, POLICY.verification) == []
    control = found.check("positive_control")
    assert control is not None
    assert control.estimate is not None


def test_canaries_it_was_trained_on_carry_no_pass_and_enter_no_wager() -> None:
    """All of them look deleted; the method that pushed them below its own attack gets nothing for it."""
    world = World(forget=800, held_out=1200, per_subject=4, seed=1)
    tables = world.tables(original=2.0, clean=0.0)
    names = {"canary": 80, "canary_out": 400}

    def scored(part: str, leak: float) -> pa.Table:
        size = names[part]
        return classifier_table(part, np.linspace(-2, 2, size) + leak * (part == "canary"), np.arange(size))

    leaks = {"original": 3.0, "clean": 0.0}
    planted = {model: [scored(part, leak) for part in names] for model, leak in leaks.items()}
    whole = {model: pa.concat_tables([tables[model], *planted[model]]) for model in planted}
    pair = {"original": whole["original"], "candidate": whole["clean"]}
    ids = [name for table in planted["clean"] for name in table["record_id"].to_pylist()]
    kinds = dict.fromkeys(ids, "natural")
    traces = Traces(record=True, log="kept", canaries=80, reserved=0, held_out="given", carried_on=True)
    facts = Facts(
        traces=traces,
        canary_kinds=kinds,
        canary_opposites={f"canary-{at:05d}": f"canary_out-{at:05d}" for at in range(80)},
    )
    free = assess(pair, "image-classification", POLICY, facts=facts)
    deleted = free.check(CANARIES)
    assert deleted is not None
    assert (deleted.role, deleted.verdict) == ("gate", "pass")
    assert free.metrics[GUESSES] > 0
    opposed = frozenset(find_method("membership_loss").opposes)
    found = assess(pair, "image-classification", POLICY, facts=dataclasses.replace(facts, opposed=opposed))
    for name in (CANARIES, CANARY_RATE):
        check = found.check(name)
        assert check is not None
        assert (check.role, check.estimate, check.verdict) == ("diagnostic", None, "info")
    assert not opposed & set(found.metrics)
    # They were deleted along all the same, and that is said.
    told = " ".join(found.limits)
    assert "80 planted records were deleted along" in told
    assert "trained against this very attack" in told
    assert "none of the 80" not in told.lower()
    assert found.verdict == "inconclusive"
    assert disagreements(found, POLICY.verification) == []


def test_the_training_record_says_who_made_it(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(40)
    quick = {"epochs": 0.1, "visits": 1}
    run_attempt("membership_loss", quick, problem, factories.context(), tmp_path / "opposed")
    run_attempt("finetune", {"epochs": 0.1}, problem, factories.context(), tmp_path / "plain")
    assert opposed_by(tmp_path / "opposed") == set(find_method("membership_loss").opposes)
    assert opposed_by(tmp_path / "plain") == frozenset()
    assert opposed_by(tmp_path) == frozenset()
