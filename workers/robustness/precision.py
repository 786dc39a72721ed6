"""Precision ladder: what the membership attack finds in a model once its weights are rounded for serving.

An edit by small updates can lie between two steps of a coarser grid: at full precision the records look forgotten,
rounded the original is back (Zhang et al., arXiv 2410.16454; int8 is mostly benign, int4 is not, arXiv 2605.02196).
So the same attack is run at each precision on the same records. Read a rung beside the original's and a retrain's at
the same precision: rounding also adds noise, which alone moves an AUC towards 0.5 and costs accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.catalogue.precisions import FULL, PRECISIONS
from service.verification.statistics import Auc, Mean, clustered_auc, clustered_mean
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context
from workers.modeling.progress import part_of
from workers.modeling.records import Records
from workers.modeling.rounding import rounded
from workers.robustness.readings import Reading, read_scores
from workers.scoring.score import score

LADDER = (FULL, *PRECISIONS)


@dataclass(frozen=True)
class Rung:
    """One model at one precision: the attack, and the share of right answers on both sets, clustered by subject.

    `forward_passes` in batches; none where the scores were there already.
    """

    precision: str
    auc: Auc
    forget_accuracy: Mean
    held_out_accuracy: Mean
    forward_passes: int = 0


def rung(precision: str, forget: Reading, held_out: Reading, forward_passes: int = 0) -> Rung:
    """Membership AUC of forgotten [n] against held-out [m] records and both accuracies, from scores at a precision."""
    return Rung(
        precision,
        clustered_auc(forget.membership, held_out.membership, forget.subjects, held_out.subjects),
        clustered_mean(forget.accuracy, forget.subjects),
        clustered_mean(held_out.accuracy, held_out.subjects),
        forward_passes,
    )


def precision_ladder(
    loaded: LoadedModel,
    forget: Records,
    held_out: Records,
    context: Context,
    precisions: Sequence[str] = LADDER,
    per_byte: bool = False,
) -> list[Rung]:
    """A rung for each precision, in their order: the model is rounded and both sets are scored once.

    `loaded` stays as it is. Raises BadParameters for an unknown precision, Cancelled, Unevaluable for scores that are
    not finite.
    """
    return [
        _measured(loaded, precision, forget, held_out, per_byte,
                  part_of(context, at / len(precisions), (at + 1) / len(precisions), f"rounded to {precision}"))
        for at, precision in enumerate(precisions)
    ]  # fmt: skip


def _measured(
    loaded: LoadedModel, precision: str, forget: Records, held_out: Records, per_byte: bool, context: Context
) -> Rung:
    coarse = replace(loaded, model=rounded(loaded.model, precision))
    share = len(forget) / (len(forget) + len(held_out))
    first = score(coarse, forget, part_of(context, 0.0, share, "forgotten records"))
    second = score(coarse, held_out, part_of(context, share, 1.0, "held-out records"))
    passes = first.forward_passes + second.forward_passes
    return rung(precision, read_scores(first.table, per_byte), read_scores(second.table, per_byte), passes)
