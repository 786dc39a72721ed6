"""People's numbers in texts, and others of the same shape that they are ranked among."""

import numpy as np

from tests.workers.factories import MemoryRecords
from tests.workers.memorising import untrained
from workers.modeling.language import CausalLanguageModelling
from workers.scoring.values import Value, alternatives, digits_of, find_values, value_windows


def texts(*said: str) -> MemoryRecords:
    names = [str(at) for at in range(len(said))]
    return MemoryRecords("causal-lm", names, names, {"text": list(said)})


def test_numbers_are_found_as_they_are_written() -> None:
    found = find_values(
        texts(
            "Call 555 12 34 56 or 12.",
            "Order 12-34, code 98 76 5.",
            "Room 12, floor 3.",
            "A1234 is a part, 12345b too.",
        )
    )
    assert [(value.row, value.value, value.before) for value in found] == [
        (0, "555 12 34 56", "Call "), (1, "98 76 5", "Order 12-34, code "),
    ]  # fmt: skip
    assert found[0].shape == "ddd dd dd dd"


def test_a_number_that_the_prompt_names_is_not_the_record_s() -> None:
    columns = {"prompt": ["Is 1234 5 yours?", "What is it?"], "completion": ["Yes, 1234 5.", "It is 1234 5."]}
    found = find_values(MemoryRecords("causal-lm", ["a", "b"], ["a", "b"], columns))
    assert [(value.row, value.before) for value in found] == [(1, "What is it? It is ")]


def test_others_have_the_digits_that_stand_there_and_are_never_the_true_one() -> None:
    known = digits_of([Value(0, "", f"555 {at:02d}") for at in range(40)])
    value = Value(0, "", "555 07")
    made = alternatives(value, known, 25, np.random.default_rng(0))
    assert len(set(made)) == len(made) == 25
    assert value.value not in made
    assert {number[:4] for number in made} == {"555 "}
    assert {number[4] for number in made} <= set("0123")
    free = alternatives(Value(0, "", "12-34"), known, 200, np.random.default_rng(0))
    assert {len({number[at] for number in free}) for at in (0, 1, 3, 4)} == {10}
    # As many as there are: of a shape that leaves no choice none.
    assert alternatives(Value(0, "", "7777"), digits_of([Value(0, "", "7777")] * 20), 5, np.random.default_rng(0)) == []


def test_windows_hold_the_number_alone() -> None:
    task = untrained().task
    assert isinstance(task, CausalLanguageModelling)
    value = Value(3, "ka lo ", "1 2 3 4")
    windows = value_windows(task, value, ["1 2 3 4", "5 6 7 8"])
    assert windows is not None
    assert [task.tokenizer.decode(suffix).strip() for suffix in windows.suffixes] == ["1 2 3 4", "5 6 7 8"]
    assert len({tuple(prefix) for prefix in windows.prefixes}) == 1
    assert windows.rows.tolist() == [3, 3]
    assert value_windows(task, Value(0, "", "1234"), ["1234"]) is None
    assert value_windows(task, Value(0, "ka lo " * 20, "1234"), ["1234"]) is None
