"""The attack that references calibrate, as checks: made-up scores and tables with a known leak, and none."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from service.verification.policy import Policy
from service.verification.quantiles import normal_cdf, normal_quantile, student_quantile
from service.verification.schema import Check, Evaluation
from service.verification.statistics import NotMeasurable
from service.verification.verdict import disagreements
from tests.workers.synthetic import classifier_table, language_table, replace_column
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import Calibration, References, reference_checks, reference_table
from workers.planning.comparisons import Line
from workers.planning.provenance import Provenance
from workers.planning.record_checks import record_checks
from workers.planning.score_tables import read_tables
from workers.references.tables import SideTable

IMAGES, TEXTS = "image-classification", "causal-lm"
SIZES = {"forget": 200, "retain": 60, "held_out": 900}
POLICY = Policy()
EXACT = Provenance(claimed=True, holds=True, reason="retrain: none of the forgotten records was in a batch")


@dataclass(frozen=True)
class Hard:
    """Forgotten records that are harder than held-out ones by `harder`, which only references can tell from a leak."""

    harder: float = 2.5
    references: int = 8
    seed: int = 0

    def hardness(self, part: str) -> np.ndarray:
        draw = np.random.default_rng([self.seed, *part.encode()])
        return draw.normal(self.harder if part == "forget" else 0.0, 2.0, SIZES[part])

    def table(self, task: str, leak: float, seed: int) -> pa.Table:
        """Scores of one model: minus the hardness, a leak on forgotten records, and noise."""
        draw, parts = np.random.default_rng(seed), []
        for part, size in SIZES.items():
            scores = 1 - self.hardness(part) + draw.normal(0, 0.7, size) + leak * (part == "forget")
            people = np.arange(size) // 4
            made = classifier_table(part, scores, people) if task == IMAGES else language_table(part, -scores, people)
            parts.append(made)
        return pa.concat_tables(parts)

    def side(self, unit: float = 1.0) -> SideTable:
        """What a pool says of forgotten and held-out records, in units of the score."""
        draw, rows = np.random.default_rng(self.seed + 99), []
        for part, name in (("forget", "train"), ("held_out", "held_out")):
            size = SIZES[part]
            scores = 1 - self.hardness(part) + draw.normal(0, 0.7, (self.references, size))
            ids = [f"{part}-{at:05d}" for at in range(size)]
            columns: dict[str, Any] = {"record_id": ids, "set": [name] * size}
            columns |= {"out_mean": unit * scores.mean(axis=0), "out_var": unit**2 * scores.var(axis=0, ddof=1)}
            rows.append(pa.table(columns | {"out_count": np.full(size, self.references, dtype=np.int32)}))
        return SideTable(pa.concat_tables(rows))


def judged(tables: dict[str, pa.Table], references: Calibration | NotMeasurable, **options: Any) -> Evaluation:
    found = assess(tables, options.pop("task", IMAGES), POLICY, references=references, **options)
    assert disagreements(found, POLICY.verification) == []
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    return found


def check_of(found: Evaluation, name: str = "reference_auc") -> Check:
    check = found.check(name)
    assert check is not None
    return check


def test_a_leak_behind_hard_records_is_found_and_a_clean_model_is_let_pass() -> None:
    world = Hard()
    names = {"clean": 0.0, "leaking": 2.0, "over": -2.0}
    tables = {name: world.table(IMAGES, leak, seed) for seed, (name, leak) in enumerate(names.items(), 1)}
    original = world.table(IMAGES, 3.0, 0)
    outcomes = {}
    for name in names:
        found = judged({"original": original, "candidate": tables[name]}, Calibration(world.side(), per_byte=False))
        check = check_of(found)
        outcomes[name] = check.verdict
        assert (check.references, check.cluster, check.n) == (8, "subject", 200)
        assert check.m is not None
        assert check.clusters is not None
        assert check.clusters[0] == 50
        assert 100 < check.clusters[1] <= 225 < check.m <= 900  # those that were near enough to compare with
        assert "8 reference models without each" in check.statistic
        assert ("a person should look" in (check.reason or "")) == (name == "leaking")
        assert check_of(found, "reference_control").verdict == "pass"
        assert any("8 for each record" in line for line in found.limits)
    assert outcomes == {"clean": "pass", "leaking": "fail", "over": "fail"}
    # Without references the leak hides behind the hardness.
    population = judged({"original": original, "candidate": tables["leaking"]}, NotMeasurable("not run: none"))
    assert population.metrics["membership_auc"] < 0.5


def test_power_and_what_would_be_noticed_are_stated_whatever_the_candidate_scores() -> None:
    world, told = Hard(), []
    tables = {"original": world.table(IMAGES, 2.0, 1)}
    for leak in (0.0, 0.5):
        found = judged(tables | {"candidate": world.table(IMAGES, leak, 2)}, Calibration(world.side(), per_byte=False))
        for name in ("reference_auc", "reference_control"):
            check = check_of(found, name)
            told.append((check.power_at_zero, check.smallest_detectable))
    assert len(set(told)) == 1
    power, smallest = told[0]
    assert power is not None
    assert smallest is not None
    # Records equally hard on both sides are what models without a leak are drawn for: their own error says the same.
    alike = Hard(harder=0.0)
    side, t = Calibration(alike.side(), per_byte=False), student_quantile(1 - POLICY.verification.alpha, 49)
    squares = []
    for seed in range(2, 12):
        clean = {"original": alike.table(IMAGES, 2.0, 1), "candidate": alike.table(IMAGES, 0.0, seed)}
        check = check_of(judged(clean, side))
        assert check.ci is not None
        squares.append(((check.ci[1] - check.ci[0]) / 2 / t) ** 2)
    se = float(np.sqrt(np.mean(squares)))
    assert check.margin is not None
    assert check.power_at_zero is not None
    assert check.smallest_detectable == pytest.approx((t + normal_quantile(0.8)) * se, rel=0.1)
    assert check.power_at_zero == pytest.approx(2 * normal_cdf(check.margin / se - t) - 1, abs=0.05)
    assert min(power, check.power_at_zero) > 0.5


def test_metrics_stand_beside_doing_nothing_and_retrained_models() -> None:
    world = Hard()
    tables = {name: world.table(IMAGES, leak, seed) for seed, (name, leak) in enumerate(
        {"original": 3.0, "candidate": 0.3, "retrained-1": 0.0, "retrained-2": 0.0}.items()
    )}  # fmt: skip
    metrics = judged(tables, Calibration(world.side(), per_byte=False)).metrics
    assert metrics["reference_auc_do_nothing"] > 0.95
    assert metrics["reference_auc_retrained"] == pytest.approx([0.5, 0.5], abs=0.1)
    assert 0.5 < metrics["reference_auc"] < 0.75
    assert 0 <= metrics["reference_auc_outside"] < 0.3
    assert not [name for name in judged(tables, NotMeasurable("not run: none")).metrics if "reference" in name]


@pytest.mark.parametrize("leak", [0.0, 2.5])
def test_with_references_the_calibrated_attack_decides_and_the_other_is_printed(leak: float) -> None:
    world = Hard()
    tables = {"original": world.table(IMAGES, 3.0, 0), "candidate": world.table(IMAGES, leak, 1)}
    found = judged(tables, Calibration(world.side(), per_byte=False))
    assert (check_of(found).role, check_of(found, "membership_auc").role) == ("gate", "diagnostic")
    assert check_of(found).verdict == ("fail" if leak else "pass")
    assert found.verdict == ("fail" if leak else "pass")
    # The population attack alone calls both over-forgotten: these records are harder than the held-out ones.
    without = judged(tables, NotMeasurable("not run: no references"))
    assert check_of(without, "membership_auc").role == "gate"
    assert without.verdict != "pass"


@pytest.mark.parametrize(("leak", "expected"), [(0.0, "pass"), (2.5, "inconclusive")])
def test_an_exact_candidate_waits_for_a_person_where_the_calibrated_attack_speaks_clearly(
    leak: float, expected: str
) -> None:
    world = Hard(harder=0.0)
    tables = {"original": world.table(IMAGES, 3.0, 0), "candidate": world.table(IMAGES, leak, 1)}
    exact = Facts(provenance=EXACT, near_duplicates=0)
    found = judged(tables, Calibration(world.side(), per_byte=False), facts=exact)
    assert (check_of(found).role, found.basis, found.verdict) == ("diagnostic", "procedure", expected)
    assert ("a person should look" in found.reason) == (expected != "pass")
    # Without references nothing but the record, the files and utility is obeyed.
    assert judged(tables, NotMeasurable("not run: no references"), facts=exact).verdict == "pass"


def test_what_a_pool_cannot_say_is_no_number_and_no_error() -> None:
    world = Hard()
    tables = {"original": world.table(IMAGES, 3.0, 0), "candidate": world.table(IMAGES, 0.0, 1)}
    side = world.side().table
    fewer = SideTable(side.filter(pa.array([name != "forget-00007" for name in side["record_id"].to_pylist()])))
    uneven = SideTable(replace_column(side, "out_count", np.where(np.arange(side.num_rows) < 5, 7, 8)))
    without = {name: table.slice(0, 260) for name, table in tables.items()}
    for given, side_table, why in (
        (tables, fewer, "not run: 1 of 200 records are not in the reference pool"),
        (tables, uneven, "unequal numbers of OUT references"),
        (without, SideTable(side), "no held-out records"),
    ):
        check = check_of(judged(given, Calibration(side_table, per_byte=False)))
        assert (check.verdict, check.estimate, check.p_value) == ("info", None, None)
        assert why in (check.reason or "")


def test_labels_are_strata_where_the_scores_have_them() -> None:
    """Forgotten records of one class against held-out ones of it: a class that nobody knows any more is no leak."""
    world = Hard(harder=0.0)
    original, candidate = world.table(IMAGES, 3.0, 0), world.table(IMAGES, 0.0, 1)
    sets = np.array(original["set"].to_pylist())
    labels = np.where(sets == "forget", 1, np.arange(len(sets)) % 2)
    lost = candidate["confidence"].to_numpy() - 6.0 * (labels == 1)  # as if retrained without the class
    candidate = replace_column(candidate, "confidence", lost)
    calibration = Calibration(world.side(), per_byte=False)
    tables = {"original": original, "candidate": candidate}
    labelled = {name: table.append_column("label", pa.array(labels)) for name, table in tables.items()}
    assert check_of(judged(tables, calibration)).verdict == "fail"
    found = check_of(judged(labelled, calibration))
    assert found.verdict != "fail"
    assert found.estimate == pytest.approx(0.5, abs=0.07)


def test_texts_are_compared_by_the_byte_where_a_tokenizer_is_not_the_members() -> None:
    world, own, other = Hard(), ("a", "", ""), ("b", "", "")
    references = References(world.side(), world.side(unit=0.25), own)  # four bytes a token
    assert not references.calibration({own}).per_byte
    assert references.calibration({own, other}).per_byte
    assert references.calibration({other}).per_byte
    assert not References(world.side(), None, own).calibration({other}).per_byte
    tables = {"original": world.table(TEXTS, 3.0, 0), "candidate": world.table(TEXTS, 0.0, 1)}
    for tokenizers, per_byte in (({own}, False), ({own, other}, True), ({other}, False)):
        # The last: models of the same tokenizer, which is not the members': the other checks stay with tokens.
        found = judged(tables, references.calibration(tokenizers), task=TEXTS, facts=Facts(per_byte=per_byte))
        assert found.unit == ("byte" if per_byte else "token")
        assert check_of(found).estimate == pytest.approx(0.5, abs=0.06)
        assert check_of(found, "reference_control").estimate == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("task", "per_byte"), [(IMAGES, False), (TEXTS, False), (TEXTS, True)])
def test_what_references_say_comes_as_a_score_table(task: str, per_byte: bool) -> None:
    world = Hard()
    side = world.side()
    table = reference_table(world.table(task, 0.0, 1), Calibration(side, per_byte), task)
    assert table is not None
    expected = "confidence" if task == IMAGES else ("nll" if per_byte else "loss")
    sign = 1.0 if task == IMAGES else -1.0
    for part, known in (("forget", "train"), ("held_out", "held_out")):
        rows = table.filter(pc.equal(table["set"], part))
        places = side.rows(known, np.array(rows["record_id"].to_pylist()))
        assert rows[expected].to_numpy() == pytest.approx(sign * side.column("out_mean")[places])
    fewer = SideTable(side.table.filter(pc.not_equal(side.table["record_id"], "forget-00007")))
    assert reference_table(world.table(task, 0.0, 1), Calibration(fewer, per_byte), task) is None


@pytest.mark.parametrize(("leak", "expected"), [(0.0, "pass"), (2.5, "fail"), (-3.0, "fail")])
def test_records_are_measured_one_by_one_where_there_are_enough_to_compare_with(
    leak: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "held_out", 1200)
    world = Hard(harder=0.0)
    tables = {"original": world.table(IMAGES, 4.0, 0), "candidate": world.table(IMAGES, leak, 1)}
    found = judged(tables, Calibration(world.side(), per_byte=False))
    check, control = check_of(found, "per_record"), check_of(found, "record_control")
    assert (check.role, check.verdict, control.verdict) == ("diagnostic", expected, "pass")
    assert (check.references, check.n, check.m, check.margin) == (8, 200, 1200, 1.5)
    assert found.metrics["per_record"] == check.estimate
    assert found.metrics["per_record_do_nothing"] == control.estimate


def test_too_few_records_to_compare_with_are_no_number_record_by_record() -> None:
    world = Hard()
    tables = {"original": world.table(IMAGES, 3.0, 0), "candidate": world.table(IMAGES, 0.0, 1)}
    check = check_of(judged(tables, Calibration(world.side(), per_byte=False)), "per_record")
    assert (check.verdict, check.estimate) == ("info", None)
    assert "1,000 held-out records give the null, there are 900" in (check.reason or "")


class _Counted(SideTable):
    """A side that counts how often records are looked up in it."""

    lookups = 0

    def rows(self, part: str, ids: Any) -> Any:
        self.lookups += 1
        return super().rows(part, ids)


def test_what_references_say_of_records_is_looked_up_once_for_all_models() -> None:
    world = Hard(harder=0.0)
    leaks = {"original": 4.0, "candidate": 0.0, "retrained-1": 0.0, "retrained-2": 0.0}
    made = {name: world.table(IMAGES, leak, seed) for seed, (name, leak) in enumerate(leaks.items())}
    models = read_tables(made, IMAGES, per_byte=False)
    line = Line(models["original"], models["candidate"], [models["retrained-1"], models["retrained-2"]])
    ones, pairs = _Counted(world.side().table), _Counted(world.side().table)
    record_checks(line, Calibration(ones, per_byte=False), 0.05)
    _, metrics = reference_checks(line, Calibration(pairs, per_byte=False), POLICY.verification, 0.05)
    assert (ones.lookups, pairs.lookups) == (2, 2)  # forgotten records, held-out records
    assert metrics["reference_auc_do_nothing"] > 0.9
    assert len({metrics["reference_auc"], *metrics["reference_auc_retrained"]}) == 3
