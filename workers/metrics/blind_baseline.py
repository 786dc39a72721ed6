"""Blind baseline: can forgotten and held-out records be told apart without any model?

If a classifier that never sees the model separates the two sets, a membership AUC measures their difference and not
what the model remembers (Das et al., arXiv 2406.16201). Features come from the records alone: small pixels, or words
and character n-grams with lengths, each with the label where there is one. Five folds; all records of a subject are
in one fold, so that the classifier cannot recognise people. 0.5: the sets are alike.
"""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.verification.statistics import Array, Auc, Clusters, NotMeasurable, clustered_auc

FOLDS = 5
SIDE = 8
CHARACTERS = 1000
VOCABULARY = 2000


@dataclass(frozen=True)
class Features:
    """Model-free features of records: `dense` [n, d], and `texts` [n] where the records are texts."""

    dense: Array
    texts: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.dense)


def extract(columns: dict[str, list[Any]]) -> Features:
    """Features of records given by role (image as encoded bytes, text, prompt, completion, label)."""
    parts: list[Array] = []
    texts = _texts(columns)
    if "image" in columns:
        parts.append(np.stack([_pixels(content) for content in columns["image"]]))
    if texts:
        sizes = [[len(text), len(text.encode()), text.count(" ")] for text in texts]
        parts.append(np.log1p(np.asarray(sizes, dtype=np.float64)))
    if "label" in columns:
        # A ragged one-hot would depend on the set: labels beyond 255 share the last column.
        labels = np.minimum(np.asarray(columns["label"], dtype=np.int64), 255)
        parts.append(np.eye(256)[labels])
    return Features(np.concatenate(parts, axis=1), tuple(text[:CHARACTERS] for text in texts))


def _texts(columns: dict[str, list[Any]]) -> list[str]:
    roles = [role for role in ("text", "prompt", "completion") if role in columns]
    return [" ".join(values) for values in zip(*(columns[role] for role in roles), strict=True)] if roles else []


def _pixels(content: bytes) -> Array:
    """Mean colour of an 8 x 8 grid, and of the whole with its spread."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        small = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    flat = small.reshape(-1, 3)
    return np.concatenate([flat.ravel(), flat.mean(axis=0), flat.std(axis=0)]) / 255.0


def blind_baseline(
    forget: Features, held_out: Features, forget_subjects: Clusters, held_out_subjects: Clusters, seed: int
) -> Auc | NotMeasurable:
    """AUC of out-of-fold predictions, forgotten [n] against held-out [m] records, clustered by subject.

    Predictions of different folds come from different classifiers, so each is replaced by its rank in its fold.
    """
    if min(len(set(forget_subjects.tolist())), len(set(held_out_subjects.tolist()))) < FOLDS:
        return NotMeasurable(f"not run: fewer than {FOLDS} people on one side")
    matrix = _matrix(np.concatenate([forget.dense, held_out.dense]), forget.texts + held_out.texts)
    member = np.repeat([1, 0], [len(forget), len(held_out)])
    groups = np.concatenate([forget_subjects.astype(str), held_out_subjects.astype(str)])
    ranks = np.full(len(member), 0.5)
    for fit, test in _folds(member, groups, seed):
        if len(set(member[fit].tolist())) == 2 and len(test):
            ranks[test] = _ranks(_predict(matrix, member, fit, test))
    return clustered_auc(ranks[member == 1], ranks[member == 0], forget_subjects, held_out_subjects)


def _matrix(dense: Array, texts: tuple[str, ...]) -> Any:
    """Standardised features of all records; scaling and vocabulary see no group and need no fold of their own."""
    from scipy import sparse
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(dense)
    if not texts:
        return scaled
    return sparse.hstack([scaled, _terms(texts, "char_wb", (2, 3)), _terms(texts, "word", (1, 1))]).tocsr()


def _terms(texts: tuple[str, ...], analyzer: str, span: tuple[int, int]) -> Any:
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    terms = TfidfVectorizer(analyzer=analyzer, ngram_range=span, max_features=VOCABULARY, sublinear_tf=True)
    try:
        return terms.fit_transform(texts)
    except ValueError:  # no text holds a single term
        return sparse.csr_matrix((len(texts), 0))


def _folds(
    member: NDArray[np.int64], groups: Clusters, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    # Grouping people who have one record each changes nothing, and takes a search for each of them.
    alone = len(np.unique(groups)) == len(groups)
    split = (StratifiedKFold if alone else StratifiedGroupKFold)(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a class has few members, which the caller has looked at
        yield from split.split(member, member, None if alone else groups)


def _predict(matrix: Any, member: NDArray[np.int64], fit: NDArray[np.int64], test: NDArray[np.int64]) -> Array:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops early is a weaker attack, not an error
        model = LogisticRegression(class_weight="balanced", C=0.1, max_iter=100).fit(matrix[fit], member[fit])
    return np.asarray(model.decision_function(matrix[test]), dtype=np.float64)


def _ranks(values: Array) -> Array:
    ordered = np.sort(values)
    left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((left + right) / (2.0 * len(values)), dtype=np.float64)
