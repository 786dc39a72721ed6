"""Checks of language models beyond the plain loss, on made-up score tables: no leak, a planted one, none to measure."""

import numpy as np
import pyarrow as pa
import pytest

from service.verification.exposure import NULL_MEAN, exposure, null_mean, rank_one_limit, ranks
from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation, Traces
from service.verification.verdict import disagreements
from tests.workers.synthetic import World, language_table
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import Calibration
from workers.planning.exposure_checks import exposed
from workers.planning.score_tables import read_tables
from workers.references.tables import SideTable

POLICY = Policy()
ATTACKS = ("zlib_auc", "min_k_auc", "min_k_plus_plus_auc")
SIZES = {"forget": 150, "retain": 200, "held_out": 900}


def texts(part: str, losses: np.ndarray, varied: np.ndarray, own: np.random.Generator) -> pa.Table:
    """A table with columns of texts: how varied a text is shows in its loss and in its compressed length."""
    size = len(losses)
    table = language_table(part, np.maximum(losses, 0.05) * varied, np.arange(size))
    lowest = -3 * losses + own.normal(0, 0.2, size)
    for name, column in (("zlib_bytes", np.rint(60 * varied)), ("min_k", lowest), ("min_k_plus_plus", lowest / 2)):
        table = table.append_column(name, pa.array(column))
    return table


def model(leak: float, seed: int, sizes: dict[str, int] = SIZES, canaries: float | None = None) -> pa.Table:
    """Losses per token around 2.5, less by `leak` on forgotten texts and by `canaries` on deleted canaries."""
    random, own = np.random.default_rng(7), np.random.default_rng(seed)
    shifts = {"forget": leak, "retain": 1.0, "held_out": 0.0}
    parts = []
    for part, size in sizes.items():
        losses = 2.5 - shifts[part] + random.normal(0, 0.4, size) + own.normal(0, 0.1, size)
        parts.append(texts(part, losses, random.uniform(0.5, 1.5, size), own))
    if canaries is not None:
        for part, size, shift in (("canary", 76, canaries), ("canary_out", 800, 0.0)):
            # The two kinds are not equally hard, so that ranking them together would hide the harder one.
            losses = 3.0 - shift + 4.0 * (np.arange(size) % 2) + random.normal(0, 0.4, size) + own.normal(0, 0.1, size)
            parts.append(texts(part, losses, np.ones(size), own))
    return pa.concat_tables(parts)


def kinds() -> dict[str, str]:
    names = {"canary": 76, "canary_out": 800}
    return {f"{part}-{at:05d}": ("natural", "hard")[at % 2] for part, size in names.items() for at in range(size)}


def judged(tables: dict[str, pa.Table], **facts: object) -> Evaluation:
    found = assess(tables, "causal-lm", POLICY, facts=Facts(**facts))  # type: ignore[arg-type]
    assert disagreements(found, POLICY.verification) == []
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    return found


def check_of(found: Evaluation, name: str) -> Check:
    check = found.check(name)
    assert check is not None
    assert (check.role, check.verdict, check.margin) == ("diagnostic", "info", None)
    return check


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_find_what_is_left_and_nothing_where_nothing_is(name: str) -> None:
    original = model(1.2, 1)
    tables = {"original": original, "candidate": model(0.0, 2), "retrained-1": model(0.0, 3)}
    clean = judged(tables)
    check = check_of(clean, name)
    assert check.ci95 is not None
    assert check.ci95[0] <= 0.5 <= check.ci95[1]
    assert clean.metrics[f"{name}_do_nothing"] > 0.8
    assert clean.metrics[f"{name}_retrained"] == [pytest.approx(0.5, abs=0.08)]
    leaking = check_of(judged({"original": original, "candidate": model(1.0, 2)}), name)
    assert leaking.ci95 is not None
    assert leaking.ci95[0] > 0.7
    over = check_of(judged({"original": original, "candidate": model(-1.0, 2)}), name)
    assert over.ci95 is not None
    assert over.ci95[1] < 0.3


def test_the_compressed_length_makes_up_for_how_varied_a_text_is() -> None:
    found = judged({"original": model(1.2, 1), "candidate": model(0.4, 2)})
    assert (check_of(found, "zlib_auc").estimate or 0) > found.metrics["membership_auc"] + 0.03


def test_what_is_missing_is_said_and_classifiers_have_no_such_checks() -> None:
    bare = {name: model(leak, 1).drop_columns(["min_k"]) for name, leak in (("original", 1.0), ("candidate", 0.0))}
    found = judged(bare)
    assert check_of(found, "min_k_auc").reason == "not run: the score tables have no column min_k"
    assert "min_k_auc" not in found.metrics
    assert check_of(found, "zlib_auc").estimate is not None
    assert check_of(found, "reference_loss_auc").reason == "not run: no references"
    alone = {part: size for part, size in SIZES.items() if part != "held_out"}
    without = judged({"original": model(1.0, 1, alone), "candidate": model(0.0, 2, alone)})
    assert "no held-out records" in (check_of(without, "zlib_auc").reason or "")
    images = assess(World().tables(original=1.0, candidate=0.0), "image-classification", POLICY)
    assert not {*ATTACKS, "canary_exposure", "reference_loss_auc"} & {check.id for check in images.checks}


def test_references_take_away_how_hard_a_text_is() -> None:
    """Forgotten texts that are harder than held-out ones look over-forgotten by their loss, and are not."""
    random = np.random.default_rng(5)
    hard = {part: random.normal(3.0 + (part == "forget"), 1.0, size) for part, size in SIZES.items()}

    def losses(leak: float) -> pa.Table:
        noise = {part: random.normal(0, 0.2, size) for part, size in SIZES.items()}
        made = {part: value - leak * (part == "forget") + noise[part] for part, value in hard.items()}
        return pa.concat_tables([language_table(part, value, np.arange(len(value))) for part, value in made.items()])

    sides = []
    for part, name in (("forget", "train"), ("held_out", "held_out")):
        size, noise = SIZES[part], random.normal(0, 0.1, SIZES[part])
        columns = {"record_id": [f"{part}-{at:05d}" for at in range(size)], "set": [name] * size}
        told = {"out_mean": -hard[part] - 0.5 + noise, "out_var": np.ones(size), "out_count": np.full(size, 4)}
        sides.append(pa.table(columns | told))
    calibration = Calibration(SideTable(pa.concat_tables(sides)), per_byte=False)
    clean, leaking = (
        check_of(
            assess({"original": losses(1.0), "candidate": losses(leak)}, "causal-lm", POLICY, references=calibration),
            "reference_loss_auc",
        )
        for leak in (0.0, 0.5)
    )
    assert clean.ci95 is not None
    assert clean.ci95[0] <= 0.5 <= clean.ci95[1]
    assert leaking.ci95 is not None
    assert leaking.ci95[0] > 0.85


def test_exposure_of_deleted_canaries_before_and_after() -> None:
    tables = {"original": model(1.2, 1, canaries=3.0), "candidate": model(0.0, 2, canaries=0.0)}
    tables["retrained-1"] = model(0.0, 3, canaries=0.0)
    found = judged(tables, canary_kinds=kinds())
    after, before, first = (found.check(f"canary_{name}") for name in ("exposure", "exposure_control", "rank_one"))
    assert after is not None
    assert before is not None
    assert first is not None
    for check in (after, first):
        assert (check.role, check.verdict) == ("gate", "pass")
    assert (before.role, before.verdict) == ("diagnostic", "pass")
    assert after.ci95 is not None
    assert after.ci95[0] < NULL_MEAN < after.ci95[1] < 2.4
    # The cap of 400 references for each kind.
    assert before.estimate == pytest.approx(np.log2(400), abs=0.5)
    assert (after.n, after.m) == (76, 800)
    assert found.metrics["canary_rank_one"] <= found.metrics["canary_rank_one_limit"] < 10
    assert found.metrics["canary_rank_one_do_nothing"] > 60
    assert found.metrics["canary_exposure_retrained"] == [pytest.approx(NULL_MEAN, abs=0.6)]
    over = judged({**tables, "candidate": model(0.0, 2, canaries=-1.5)}, canary_kinds=kinds()).check("canary_exposure")
    assert over is not None
    assert (over.estimate or 9) < 0.3
    assert (over.role, over.verdict) == ("gate", "fail")


def test_canaries_that_are_still_known_fail_and_untold_ones_do_not() -> None:
    """The untouched model fails on both counts; one that the original never gave away either has no say."""
    original = model(1.2, 1, canaries=3.0)
    untouched = judged({"original": original, "candidate": model(1.2, 2, canaries=3.0)}, canary_kinds=kinds())
    for name in ("canary_exposure", "canary_rank_one"):
        check = untouched.check(name)
        assert check is not None
        assert (check.role, check.verdict) == ("gate", "fail")
    silent = judged(
        {"original": model(1.2, 1, canaries=0.1), "candidate": model(0.0, 2, canaries=0.0)}, canary_kinds=kinds()
    )
    for name in ("canary_exposure", "canary_rank_one"):
        check = silent.check(name)
        assert check is not None
        assert (check.role, check.verdict) == ("diagnostic", "info")


def test_exposure_is_taken_within_kinds_by_hand() -> None:
    sets = read_tables(
        {"original": model(0, 1, canaries=0.5), "candidate": model(0, 2, canaries=0.5)}, "causal-lm", False
    )
    scores = sets["candidate"]
    found = exposed(scores, kinds())
    expected, first = [], 0
    for kind in (0, 1):
        ours, theirs = (scores[part].loss[kind::2] / 4 for part in ("canary", "canary_out"))
        rank = ranks(ours, theirs)
        expected += exposure(rank, 400).tolist()
        first += int((rank == 1).sum())
    assert found.bits.mean == pytest.approx(np.mean(expected))
    assert (found.first, found.bits.references) == (first, 800)
    assert found.null == pytest.approx(null_mean(400))
    assert found.limit == 2 * rank_one_limit(38, 400, 0.9975)


def test_rank_one_keeps_its_limit_and_the_mean_its_interval_without_a_leak() -> None:
    covered, beyond, draws = 0, 0, 150
    for seed in range(draws):
        random = np.random.default_rng(seed)
        parts = {
            part: language_table(part, random.normal(3, 0.4, size), np.arange(size))
            for part, size in (("forget", 1), ("retain", 1), ("canary", 76), ("canary_out", 800))
        }
        table = pa.concat_tables(parts.values())
        found = exposed(read_tables({"original": table, "candidate": table}, "causal-lm", False)["candidate"], kinds())
        low, high = found.bits.interval(0.95)
        covered += low <= found.null <= high
        beyond += found.first > found.limit
    assert covered >= 0.9 * draws
    assert beyond <= 3


def test_without_canaries_the_check_says_why() -> None:
    found = judged({"original": model(1.2, 1), "candidate": model(0.0, 2)}, traces=Traces(record=False))
    assert check_of(found, "canary_exposure").reason == "not run: the model was trained without companion canaries"
    assert "canary_exposure" not in found.metrics
