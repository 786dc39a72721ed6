"""The gate's self-test for classifiers of texts: see `benchmarks.gate`."""

from benchmarks.gate import self_test
from benchmarks.gate_data import texts
from benchmarks.gate_world import MISLABELLED, ONE_CLASS, RANDOM, SMALL, SMALL_SIZE, Plan
from benchmarks.record import Result

PLAN = Plan(
    name="gate-text",
    told="texts of ten words, 15 % of them mislabelled",
    task="text-classification",
    make=texts,
    train=6000,
    held_out=3900,
    recipe={
        "model": {
            "task": "text-classification",
            "config": {
                "model_type": "bert", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 128, "max_position_embeddings": 32, "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
        },
        "training": {"epochs": 8, "batch_size": 64, "learning_rate": 4e-3, "max_length": 32},
    },
    sizes={RANDOM: (1, 150), SMALL: (2, SMALL_SIZE), MISLABELLED: (4, 74), ONE_CLASS: (2, 74)},
    entries=1500,
)  # fmt: skip


def run(quick: bool = False) -> Result:
    """The self-test for classifiers of texts."""
    return self_test(PLAN, quick)
