"""What is missing of a model's history is said in one sentence each, and nothing is said of what is there."""

import pytest

from service.verification.limits import copies_limit, reference_limit, trace_limits
from service.verification.schema import Basis, Check, Traces

WHOLE = Traces(record=True, log="kept", canaries=73, reserved=40, held_out="reserve", carried_on=True)


@pytest.mark.parametrize("basis", ["procedure", "measurement"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"record": False}, "trained elsewhere and has no training record"),
        ({"log": "none"}, "was not logged"),
        ({"log": "lost"}, "destroyed or damaged since"),
        ({"held_out": "given"}, "supplied and not kept out of the training by a coin"),
        ({"held_out": "none"}, "No records were set aside"),
        ({"carried_on": False}, "does not carry the log"),
    ],
)
def test_each_missing_thing_is_one_sentence(basis: Basis, change: dict[str, object], said: str) -> None:
    before, after = (trace_limits(traces, basis) for traces in (WHOLE, WHOLE.model_copy(update=change)))
    added = [line for line in after if line not in before]
    assert len(added) == 1
    assert said in added[0]
    assert set(before) < set(after)


def test_canaries_are_told_apart_from_none_and_cap_the_grade_of_a_measurement_alone() -> None:
    without, lost = (WHOLE.model_copy(update=change) for change in ({"canaries": 0}, {"canaries_lost": True}))
    for traces, said in (
        (WHOLE, "None of the 73 companion canaries"),
        (without, "The model was trained without companion canaries"),
        (lost, "The list of the 73 companion canaries that the model holds is lost"),
    ):
        assert len(trace_limits(traces, "procedure")) == 1
        assert said in trace_limits(traces, "procedure")[0]
        assert "grade" not in trace_limits(traces, "procedure")[0]
        assert "grade C at most" in trace_limits(traces, "measurement")[0]
    assert trace_limits(None, "measurement") == []


@pytest.mark.parametrize("task", ["image-classification", "text-classification", "causal-lm"])
def test_copies_are_counted_and_not_searching_is_no_zero(task: str) -> None:
    told = {count: copies_limit(count, task) for count in (None, 0, 1, 1200)}
    assert "were not searched for" in told[None]
    assert told[0].startswith("No retained record is an exact")
    assert told[1].startswith("1 retained record is an exact")
    assert told[1200].startswith("1,200 retained records are exact")
    for count in (1, 1200):
        assert "no sign that forgetting failed" in told[count]
        assert ("near" in told[count]) == (task != "image-classification")


def test_references_are_counted_where_there_are_any() -> None:
    check = Check(id="reference_auc", role="diagnostic", statistic="AUC", reason="not run: no references")
    assert reference_limit(None) == reference_limit(check)
    assert "Without reference models" in reference_limit(check)
    assert "8 for each record" in reference_limit(check.model_copy(update={"estimate": 0.5, "references": 8}))
