"""Words for the diagnostic numbers of an evaluation, which it names by short ids."""

from service.reports.wording import words_of

_WORDS = {
    "membership_auc": "Membership attack (AUC)",
    "churn_newly_wrong": "Newly wrong",
    "churn_newly_right": "Newly right",
    "churn_worst_class": "Newly wrong, class with most of it",
    "tow": "Tug of war",
    "tow_mia": "Tug of war with the membership attack",
    "klom_gaussian": "Divergence of margins from retrained models, Gaussian",
    "klom": "Divergence of margins from retrained models, histograms",
    "unlearning_score": "NeurIPS 2023 score over that of retrained models",
    "relearning_accuracy": "Right answers while relearning",
    "relearning_score": "Membership score while relearning",
    "relearning_steps": "Steps of relearning",
    "extraction_windows": "Forgotten texts that count for extraction",
    "value_exposure_others": "Others that each number is ranked among, the fewest",
    "model_utility": "Model utility: probability and ROUGE-L of retained and held-out texts, harmonic mean",
}
_ENDINGS = {
    "_p95": "95 % quantile",
    "_held_out": "on held-out records",
    "_retrain_to_retrain": "retrained models among themselves",
    "_do_nothing": "old version",
    "_limit": "most of them without a trace",
    "_null": "a retrained model's",
    "_outside": "share outside of the matched range",
    "_accuracy": "accuracy",
    "_by_step": "step by step",
    "_never_seen": "of never-seen texts",
}


def metric_name(name: str) -> str:
    """The name of a diagnostic number for people; its id with spaces where there are no words for it."""
    return words_for(name) or name.replace("_", " ")


def words_for(name: str) -> str | None:
    """The words for a number, or for the one that it is a form of: "klom_p95" is "klom" with an ending."""
    words = _WORDS.get(name) or words_of(name)
    if words is not None:
        return words
    for ending, told in _ENDINGS.items():
        if name.endswith(ending):
            base = words_for(name.removesuffix(ending))
            return f"{base}, {told}" if base else None
    return None
