"""Nearly the same texts: shingles by hand, the estimate against the exact figure, planted pairs, crowds."""

import itertools

import numpy as np
import pytest

from workers.lineage.similar_texts import (
    CROWD,
    NEIGHBOURS,
    SHORT_WORDS,
    SIGNATURE,
    THRESHOLD,
    Sets,
    character_shingles,
    signatures,
    similar_pairs,
    word_shingles,
    words_of,
)


def ignore(done: int) -> None:
    del done


def pairs_of(texts: list[str]) -> dict[tuple[int, int], float]:
    return {(left, right): similarity for left, right, similarity in similar_pairs(texts, ignore)}


def sentence(draw: np.random.Generator, words: int) -> list[str]:
    return [f"w{at}" for at in draw.integers(0, 3000, words)]


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    first, second = set(left.tolist()), set(right.tolist())
    return len(first & second) / len(first | second)


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}


def test_shingles_are_the_windows_of_a_text() -> None:
    assert words_of("Ünder, the\tSEA: 20 000!") == ["ünder", "the", "sea", "20", "000"]
    assert len(word_shingles(["a", "b", "c", "a", "b", "c"])) == 3  # abc, bca, cab
    assert len(word_shingles(["a", "b"])) == len(word_shingles([])) == 1
    assert not np.array_equal(word_shingles(["a", "b"]), word_shingles(["b", "a"]))
    assert len(character_shingles("abcdefg")) == 3
    assert len(character_shingles("")) == len(character_shingles("abc")) == 1
    assert np.array_equal(character_shingles("A  b\nc d"), character_shingles("a b c d"))


def test_composed_and_decomposed_letters_and_lone_surrogates_make_no_difference_and_no_error() -> None:
    assert np.array_equal(character_shingles("re\u0301sume\u0301 of Zoe\u0308"), character_shingles("résumé of Zoë"))
    assert words_of("re\u0301sume\u0301") == ["résumé"]
    assert len(character_shingles("broken \udce4 text")) > 1


def test_the_estimate_of_a_signature_is_the_exact_similarity_within_its_error() -> None:
    draw = np.random.default_rng(0)
    made, exact = [], []
    for _ in range(400):
        share = draw.uniform(0, 1)
        pool = draw.choice(2**32, 300, replace=False).astype(np.uint32)
        common = int(100 * share)
        both = [np.sort(pool[:100]), np.sort(np.concatenate([pool[:common], pool[100 : 200 - common]]))]
        exact.append(jaccard(*both))
        made += both
    starts = np.concatenate([[0], np.cumsum([len(part) for part in made])])
    sets = Sets(np.concatenate(made), starts, np.arange(len(made)))
    signed = signatures(sets)
    assert signed.shape == (800, SIGNATURE)
    estimate = (signed[::2] == signed[1::2]).mean(axis=1)
    expected = np.array(exact)
    # A signature is a mean of Bernoulli draws, so its error has variance J (1 - J) / SIGNATURE.
    scaled = (estimate - expected) / np.sqrt(np.maximum(expected * (1 - expected), 0.01) / SIGNATURE)
    assert abs(scaled.mean()) < 4 / np.sqrt(400)
    assert 0.8 < scaled.std() < 1.2
    assert [sets.similarity(2 * at, 2 * at + 1) for at in range(400)] == pytest.approx(exact)


def test_every_planted_pair_is_found_with_its_exact_similarity_and_nothing_else() -> None:
    draw = np.random.default_rng(1)
    texts = []
    for _ in range(400):
        words = sentence(draw, int(draw.integers(30, 80)))
        texts.append(" ".join(words))
        for at in draw.integers(0, len(words), draw.integers(1, 4)):
            words[at] = "changed"
        texts.append(" ".join(words))
    exact = {}
    for left in range(0, len(texts), 2):
        first, second = plain_shingles(texts[left]), plain_shingles(texts[left + 1])
        if (similarity := len(first & second) / len(first | second)) >= THRESHOLD:
            exact[left, left + 1] = similarity
    assert 150 < len(exact) < 390  # planted on both sides of the threshold
    found = pairs_of(texts)
    assert set(found) <= set(exact)
    assert len(found) >= len(exact) - 2  # at most 0.2 % are missed at the threshold, fewer above
    assert all(found[pair] == pytest.approx(exact[pair]) for pair in found)


def test_unrelated_texts_have_no_pairs() -> None:
    draw = np.random.default_rng(2)
    texts = [" ".join(sentence(draw, int(draw.integers(1, 60)))) for _ in range(2000)]
    distinct = list(dict.fromkeys(text for text in texts if len(text) > 20))
    assert pairs_of(distinct) == {}
    assert pairs_of([]) == pairs_of(["alone"]) == {}


def test_short_texts_are_compared_by_characters() -> None:
    texts = ["My number is 0171 5550123, call me", "my number is  0171 5550123, call me!", "My name is Osmel, write me"]
    assert list(pairs_of(texts)) == [(0, 1)]
    # One of ten words differs: by word 3-grams that would be 5 of 11.
    ten = ["please", "send", "the", "parcel", "to", "the", "house", "beside", "the", "mill"]
    assert list(pairs_of([" ".join(ten), " ".join([*ten[:-1], "mills"])])) == [(0, 1)]


@pytest.mark.parametrize("count", range(SHORT_WORDS - 3, SHORT_WORDS + 6))
def test_a_text_and_the_same_with_a_word_more_meet_at_every_length(count: int) -> None:
    words = [f"word{at}" for at in range(count + 1)]
    assert list(pairs_of([" ".join(words[:count]), " ".join(words)])) == [(0, 1)]


def test_a_crowd_costs_no_square_and_nobody_in_it_is_without_a_neighbour() -> None:
    said = " ".join(f"the{at}" for at in range(60))
    texts = [f"{said} number {at:05d}" for at in range(2000)]
    found = pairs_of(texts)
    neighbours = np.bincount(np.array(list(found)).ravel(), minlength=2000)
    assert neighbours.min() >= NEIGHBOURS
    assert len(found) < 2000 * 2 * CROWD  # of two million


def test_the_same_texts_give_the_same_pairs_in_whatever_order_they_come() -> None:
    draw = np.random.default_rng(3)
    bases = [sentence(draw, 40) for _ in range(50)]
    texts = [" ".join([*base, ending]) for base, ending in itertools.product(bases, ("a", "b", "c"))]
    found = pairs_of(texts)
    assert found == pairs_of(texts)
    assert len(found) == 150
    order = draw.permutation(len(texts)).tolist()
    moved = pairs_of([texts[at] for at in order])
    assert {tuple(sorted((order[left], order[right]))) for left, right in moved} == set(found)


def test_progress_is_told_text_by_text() -> None:
    told: list[int] = []
    similar_pairs(["a", "b", "c"], told.append)
    assert told == [1, 2, 3]
