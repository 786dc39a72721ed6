"""Membership scores of texts from the columns of a score table: each makes up for something that a plain loss mixes in.

All are larger for texts that look more like training data, so that the AUC of forgotten against held-out texts reads
0.5: like never-seen texts; above: a leak; below: a leak as well (over-forgotten).

- loss (Yeom et al. 2018): minus the loss; easy texts look like members.
- zlib (Carlini et al., arXiv 2012.07805): the loss over the compressed length, which knows how varied a text is.
- Min-K% (Shi et al., arXiv 2310.16789): the least likely 20 % of the tokens, where never-seen texts surprise a model.
- Min-K%++ (Zhang et al., arXiv 2404.02936): the same of z = (log p - mean) / sd over the vocabulary at each token.
- reference loss (Carlini et al. 2021; "Reference" of arXiv 2402.07841): less what models without the text say of it.
  By far the strongest of the cheap ones: what is hard or easy about a text by itself cancels.

Weak on pre-training data, where published attacks reach an AUC of 0.7 at most (arXiv 2505.18773), and strong after
several epochs on little data: 0.5 beside an original with 0.5 is a lack of power. None of them needs another pass.
"""

import numpy as np

from service.verification.statistics import Array


def loss_scores(loss: Array) -> Array:
    """Minus the loss [n], nats per token or per byte."""
    return np.asarray(-np.asarray(loss, dtype=np.float64), dtype=np.float64)


def zlib_scores(loss: Array, zlib_bytes: Array) -> Array:
    """Minus the loss [n] (nats per token) over the compressed length of the text [n] (bytes); none counts as one."""
    return loss_scores(loss) / np.maximum(np.asarray(zlib_bytes, dtype=np.float64), 1.0)


def min_k_scores(lowest: Array) -> Array:
    """The column `min_k` or `min_k_plus_plus` [n]: means over the lowest tokens, larger for members as they are."""
    return np.asarray(lowest, dtype=np.float64)


def reference_scores(loss: Array, reference_loss: Array) -> Array:
    """By how much the loss [n] lies below that of a reference, or the mean of several, in the same unit [n].

    References without the texts in question: the base checkpoint of a fine-tune, or members of a reference pool.
    Raises ValueError where the two are not of the same records.
    """
    if np.shape(loss) != np.shape(reference_loss):
        raise ValueError(f"{np.shape(loss)} losses cannot be compared with {np.shape(reference_loss)} of a reference")
    return loss_scores(loss) - loss_scores(reference_loss)
