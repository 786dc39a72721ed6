"""Sentences about what the evidence rests on and what is missing of it: pure, for the evaluation and for the report."""

from service.catalogue.precisions import FULL, Precision
from service.verification.schema import Basis, Check, Traces

_LOGS = {
    "none": "The order in which the model met its records was not logged",
    "lost": "The log of the model's training has been destroyed or damaged since",
}


def trace_limits(traces: Traces | None, basis: Basis, canaries: Check | None = None) -> list[str]:
    """One sentence for each thing that the model's training did not leave; none where nobody looked.

    `canaries`: the check of those that were deleted along.
    """
    if traces is None:
        return []
    found = []
    if not traces.record:
        found.append(
            "The model was trained elsewhere and has no training record: that it has seen the registered data, and "
            "nothing else of these people, rests on the word of whoever registered it."
        )
    if traces.log != "kept":
        found.append(
            f"{_LOGS[traces.log]}, so that training cannot be repeated step by step without the forgotten records."
        )
    found.append(_measured(canaries) if canaries and canaries.n else _canaries(traces, basis))
    if traces.held_out == "given":
        found.append(
            "The held-out records were supplied and not kept out of the training by a coin, so they may differ from "
            "the forgotten ones in more than that."
        )
    if traces.held_out == "none":
        found.append("No records were set aside before the training, so nothing could be compared with unseen ones.")
    if traces.carried_on is False:
        found.append("The new model does not carry the log of the training on, so later deletions cannot repeat it.")
    return found


def _canaries(traces: Traces, basis: Basis) -> str:
    graded = "; a measured pass is grade C at most" if basis == "measurement" else ""
    known = why_no_canaries(traces)
    return (
        f"{known[0].upper()}{known[1:]}, so nothing planted for the purpose shows how much a deletion like this one "
        f"leaves behind{graded}."
    )


def _measured(canaries: Check) -> str:
    """What planted records that were deleted along can tell, and what they cannot."""
    told = f"{canaries.n} planted records were deleted along with these people and compared with {canaries.m} others"
    if canaries.verdict == "info":
        return f"{told}; {canaries.reason}, so they say nothing about this deletion."
    return f"{told}. They were made up for the purpose, and stand for people's records without being the same."


def why_no_canaries(traces: Traces | None) -> str:
    """Why no companion canaries were measured, as a clause."""
    if traces is None:
        return "no companion canaries were looked for"
    if not traces.canaries:
        return "the model was trained without companion canaries"
    if traces.canaries_lost:
        return f"the list of the {traces.canaries} companion canaries that the model holds is lost"
    return f"none of the {traces.canaries} companion canaries that the model holds was deleted along"


def copies_limit(count: int | None, task: str) -> str:
    """What is known of retained records that say the same as forgotten ones; `count` None: nobody looked."""
    images = task == "image-classification"
    if count is None:
        return (
            "Records that resemble the forgotten ones and belong to other people were not searched for. A model "
            "trained without the forgotten records would still know what those others say."
        )
    if count == 0:
        looked = "an exact copy" if images else "an exact or near copy"
        missed = "Images that merely look alike" if images else "The same said in other words"
        return f"No retained record is {looked} of a forgotten one. {missed} would not be found."
    kind = "exact" if images else "exact or near"
    told = f"1 retained record is an {kind} copy" if count == 1 else f"{count:,} retained records are {kind} copies"
    return (
        f"{told} of forgotten ones: what the model still knows of {'it' if count == 1 else 'them'} is no sign that "
        "forgetting failed, and exact retraining would keep it as well."
    )


def reference_limit(check: Check | None) -> str:
    """What the attack that reference models calibrate says of single records, or that there were none to run it."""
    if check is None or check.estimate is None:
        return "Without reference models nothing is calibrated record by record, and an average can hide one."
    return (
        f"One attack was calibrated by models that never saw the record, {check.references} for each record; it "
        "describes all forgotten records together, and an average can hide one."
    )


def precision_limits(precision: Precision) -> list[str]:
    """What was rounded before the checks, and what that simulates; nothing for a model that is served as stored."""
    if precision == FULL:
        return []
    return [
        f"All models were scored with weights rounded to {precision}, as this model is served: to nearest, simulated "
        "in float32. A runtime that rounds in another way, or rounds activations too, serves something that was not "
        "scored; so does whoever loads the stored weights.",
    ]
