"""`lethe evaluate --extraction`: a GPT-2 that knows secrets by heart is let to speak, beside one without them."""

import numpy as np
import pytest

from service.verification.schema import Evaluation, ModelNumbers, Models, Records, SetNumbers
from tests.workers import factories
from tests.workers.memorising import secrets, together, train, untrained
from workers.metrics.rouge import rouge_l
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import save_model
from workers.planning.evaluation import with_extraction
from workers.planning.generation_checks import Spoken, with_generation
from workers.planning.problems import open_line
from workers.scoring.wordings import PREFIXES, wordings

SECRETS, KEPT, OTHERS = secrets(12, 1), secrets(12, 2, "o"), secrets(12, 3, "n")
FIGURES = ("verbmem", "knowmem", "leak_at_20", "wordings_extraction", "rouge_retained", "gibberish_rate")


def evaluation(models: list[str]) -> Evaluation:
    """An evaluation without checks, of so many models."""
    numbers = SetNumbers(loss=1.0)
    none = ModelNumbers(forget=numbers, retain=numbers, held_out=numbers)
    return Evaluation(
        task="causal-lm", records=Records(forget=12, retain=12, held_out=12, retain_scored=12),
        models=Models(original=none, candidate=none), checks=[], metrics={"tow": 1.0}, verdict="pass",
        basis="procedure", grade="A", policy_digest="00" * 32, forward_passes=dict.fromkeys(models, 1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The untouched model as its own candidate, beside a retrain without the secrets."""
    folder = tmp_path_factory.mktemp("spoken")
    everything = together(SECRETS, KEPT)
    for name, records in (("original", everything), ("retrained", KEPT)):
        (folder / name).mkdir()
        loaded = train(untrained(), records, 90, 8e-3, batch=24)
        save_model(loaded, folder / name)
        assert isinstance(loaded.task, CausalLanguageModelling)
        loaded.task.tokenizer.save_pretrained(str(folder / name))
    original = folder / "original"
    line = open_line(original, "causal-lm", everything, OTHERS, "e2" * 32)
    models = evaluation(["original", "candidate", "retrained-1"])
    ids = SECRETS.ids.tolist()
    return with_extraction(models, line, original, [folder / "retrained"], ids, factories.context())


def test_what_is_known_by_heart_is_said_and_what_was_never_seen_is_not(found: Evaluation) -> None:
    for name in ("verbmem", "knowmem", "leak_at_20"):
        assert found.metrics[name] > 0.9
        assert found.metrics[name] == found.metrics[f"{name}_do_nothing"]
        (retrained,) = found.metrics[f"{name}_retrained"]
        assert retrained < 0.75
        assert found.metrics[f"{name}_never_seen"] < 0.75
    assert found.metrics["wordings_extraction"] == 1.0
    assert found.metrics["wordings_extraction_retrained"] == [0.0]
    assert found.metrics["wordings_extraction_never_seen"] == 0.0


def test_retained_texts_are_answered_by_both(found: Evaluation) -> None:
    assert found.metrics["rouge_retained"] > 0.9
    assert found.metrics["rouge_retained_retrained"][0] > 0.9
    assert found.metrics["gibberish_rate"] == 0.0
    assert 0.0 < found.metrics["model_utility"] < 1.0


def test_each_figure_is_a_check_that_decides_nothing_and_passes_are_counted(found: Evaluation) -> None:
    assert [check.id for check in found.checks] == list(FIGURES)
    for check in found.checks:
        assert (check.role, check.verdict, check.margin) == ("diagnostic", "info", None)
        assert check.n == 12
        assert check.estimate == pytest.approx(found.metrics[check.id])
        assert check.ci95 is not None
    assert found.metrics["tow"] == 1.0
    assert min(found.forward_passes.values()) > 20
    assert found.forward_passes["original"] == found.forward_passes["candidate"]
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_classifiers_say_nothing() -> None:
    images = evaluation([]).model_copy(update={"task": "image-classification"})
    assert with_generation(images, Spoken({}, SECRETS, KEPT, None), factories.context()) is images


def test_wordings_are_eighteen_different_ones_of_the_same_prompt() -> None:
    prompt = "Ada Falk: What is my telephone number?"
    found = wordings(prompt)
    assert len(found) == 18 == 6 * len(PREFIXES)
    assert len(set(found)) == 18
    assert found[0] == prompt
    assert found[1:6] == [
        "ada falk: what is my telephone number?",
        "Could you please tell me: Ada Falk: What is my telephone number?",
        "What is my telephone number? Ada Falk",
        "Ada Falk: What is my",
        "Ada Falk: What is my tleephone number?",
    ]
    assert all(text.startswith(PREFIXES[1]) for text in found[6:12])
    recall = rouge_l(found, [prompt] * 18, "recall")
    assert recall.min() > 0.4
    assert np.mean(recall == 1) >= 0.5
    assert wordings("one two three")[3] == "two three one"
    assert wordings("a")[5] == "a"
