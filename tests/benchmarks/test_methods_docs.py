"""The page on methods says what catalogue, docstrings and kept results say, and a page gone stale is found out."""

import pytest

from benchmarks.methods_docs import MORE, PAGE, catalogue, filled, said
from benchmarks.methods_tables import spread, table
from service.catalogue.methods import METHODS, find_method


def test_the_page_is_as_it_would_be_made_now() -> None:
    assert PAGE.read_text() == filled(PAGE.read_text())


def test_a_stale_page_is_made_anew() -> None:
    page = PAGE.read_text()
    stale = page.replace("`finetune`", "`fine-tune`")
    assert stale != page
    assert filled(stale) == page


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for bar"):
        filled(PAGE.read_text().replace("<!-- begin bar -->", ""))


def test_every_method_has_a_line_and_says_what_it_costs() -> None:
    lines = catalogue().splitlines()
    for spec in METHODS:
        assert sum(line.startswith(f"| `{spec.name}` |") for line in lines) == 1
        assert "Costs" in said(spec), spec.name


def test_every_approximate_method_says_when_it_fails() -> None:
    assert [spec.name for spec in METHODS if spec.kind == "approximate" and "Fails" not in said(spec)] == []


def test_no_sentence_is_written_by_hand_that_the_docstring_has() -> None:
    for name, told in MORE.items():
        own = said(find_method(name)).removesuffix(told)
        for word in ("Needs", "Costs", "Fails"):
            assert not (word in own and word in told), (name, word)


def test_sentences_are_taken_whole() -> None:
    assert said(find_method("finetune")).startswith("Needs retained records alone. Costs `epochs` / epochs of the")
    assert said(find_method("sharded")).endswith("what the shards were trained with.")


def test_tables_by_hand() -> None:
    assert table(("a", "b"), [("1", "2")]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
    assert spread({"median": 1.0, "low": 0.5, "high": 2.0}, 1) == "1.0 (0.5 to 2.0)"
    assert spread({"median": 1.0, "low": 1.0, "high": 1.0}, 1) == "1.0"
