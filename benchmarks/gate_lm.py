"""The gate's self-test for a tiny GPT-2: see `benchmarks.gate`."""

from benchmarks.gate import self_test
from benchmarks.gate_data import notes
from benchmarks.gate_world import MISLABELLED, ONE_CLASS, RANDOM, SMALL, SMALL_SIZE, Plan
from benchmarks.record import Result

PLAN = Plan(
    name="gate-lm",
    told="notes of a tiny GPT-2, 15 % of them with a wrong answer",
    task="causal-lm",
    make=notes,
    train=4000,
    held_out=3900,
    recipe={
        "model": {
            "task": "causal-lm",
            "config": {
                "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 32, "resid_pdrop": 0.0,
                "embd_pdrop": 0.0, "attn_pdrop": 0.0,
            },
        },
        "training": {"epochs": 6, "batch_size": 64, "learning_rate": 4e-3, "max_length": 32},
    },
    sizes={RANDOM: (2, 150), SMALL: (1, SMALL_SIZE), MISLABELLED: (4, 74), ONE_CLASS: (2, 74)},
    entries=1500,
)  # fmt: skip


def run(quick: bool = False) -> Result:
    """The self-test for a language model."""
    return self_test(PLAN, quick)
