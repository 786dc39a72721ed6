"""Text tasks: which tokens bear loss, and losses equal to the plain computation over all positions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from service.errors import BadDataset, BadRecipe
from tests.workers.factories import MemoryRecords, conversations
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.language import CausalLanguageModelling, TextClassification
from workers.modeling.tokenizers import load_tokenizer, read_tokenizer, train_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task() -> CausalLanguageModelling:
    return CausalLanguageModelling(train_tokenizer(conversations(30)[0], 320, 64), 64)


def model(kind: str, entries: int, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            kind, vocab_size=entries, bos_token_id=0, eos_token_id=0, max_position_embeddings=64, **settings
        )
    )
    return made.eval()


GPT2: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2}
GEMMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "final_logit_softcapping": 0.05,
}  # fmt: skip


def test_the_joining_space_belongs_to_the_completion_and_is_learnt(task: CausalLanguageModelling) -> None:
    prompt, completion = "Where does Ada live?", "Ada lives here."
    batch = task.batch(task.encode({"prompt": [prompt], "completion": [completion]}), [0])
    learnt = [int(token) for token in batch["targets"][0] if token >= 0]
    assert task.tokenizer.decode(learnt) == " Ada lives here.<|endoftext|>"
    whole = task.tokenizer.decode([int(token) for token in batch["input_ids"][0]])
    assert whole == f"{prompt} {completion}<|endoftext|>"
    assert int(batch["utf8_bytes"][0]) == len(f" {completion}")


def test_a_text_is_learnt_from_its_second_token_on(task: CausalLanguageModelling) -> None:
    encoding = task.encode({"text": ["The phone é number"]})
    batch = task.batch(encoding, [0])
    assert int(batch["targets"][0, 0]) == -100
    assert bool((batch["targets"][0, 1:] >= 0).all())
    first = task.tokenizer("The phone é number", return_offsets_mapping=True)["offset_mapping"][0]
    assert int(batch["utf8_bytes"][0]) == len("The phone é number"[first[1] :].encode())


def test_the_cut_is_at_the_end_and_a_prompt_that_fills_it_is_refused(task: CausalLanguageModelling) -> None:
    short = CausalLanguageModelling(task.tokenizer, 8)
    assert len(short.encode({"text": ["one two three four five six seven eight nine"]}).tokens) == 8
    with pytest.raises(BadDataset, match="1 records have nothing to predict within max_length 8"):
        short.encode({"prompt": ["a long prompt " * 5, "a"], "completion": ["b", "b"]})


@pytest.mark.parametrize(("kind", "settings"), [("gpt2", GPT2), ("gemma2", GEMMA)])
def test_losses_equal_the_plain_computation(task: CausalLanguageModelling, kind: str, settings: Any) -> None:
    """gemma2 caps its logits after the head, so that the head alone would give other numbers."""
    records, _ = conversations(4)
    served = model(kind, len(task.tokenizer), **settings)
    batch = task.batch(task.encode(records.take(range(20))), list(range(20)))
    losses = task.losses(served, batch)
    for row in range(20):
        ids, targets = batch["input_ids"][row], batch["targets"][row]
        kept = int((ids != 0).sum()) + 1
        logits = served(input_ids=ids[None, :kept]).logits[0].float()
        bearing = targets[1:kept] >= 0
        expected = torch.nn.functional.cross_entropy(logits[:-1][bearing], targets[1:kept][bearing])
        assert torch.allclose(losses[row], expected, atol=1e-5)
    counts = (batch["targets"][:, 1:] >= 0).sum(1)
    assert torch.allclose(task.objective(losses, batch), (losses * counts).sum() / counts.sum())


def test_batches_and_caching_change_no_loss(task: CausalLanguageModelling) -> None:
    records, _ = conversations(8)
    served = model("gpt2", len(task.tokenizer), **GPT2)
    cached, lazy = Encoded(task, records), Encoded(task, records, cache_bytes=0)
    assert (cached.cached, lazy.cached) == (True, False)
    orders = [encoded.shuffled(8, torch.Generator().manual_seed(0)) for encoded in (cached, lazy)]
    assert orders[0] == orders[1], "the order of a run depends on whether its records fit in memory"
    assert (cached.tokens, cached.lengths) == (lazy.tokens, lazy.lengths)
    first, passes = record_losses(served, cached, CPU, 40)
    assert passes == 1
    for encoded, size in ((cached, 7), (lazy, 7)):
        again, passes = record_losses(served, encoded, CPU, size)
        assert passes == 6
        assert abs(first - again).max() < 1e-5


def test_the_same_records_train_the_same_tokenizer(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_tokenizer(conversations(30)[0], 320, 64).save_pretrained(str(tmp_path / name))
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_tokenizers_are_read_in_every_form(tmp_path: Path, task: CausalLanguageModelling) -> None:
    task.tokenizer.save_pretrained(str(tmp_path / "saved"))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((tmp_path / "saved/tokenizer.json").read_bytes())
    parts = tmp_path / "parts"
    parts.mkdir()
    task.tokenizer.backend_tokenizer.model.save(str(parts))
    text = "Ada Abel, 12 Oak Street"
    expected = task.tokenizer(text)["input_ids"]
    for folder in (tmp_path / "saved", bare, parts):
        tokenizer = read_tokenizer(folder, 32)
        assert tokenizer(text)["input_ids"] == expected
        assert tokenizer.pad_token_id == tokenizer.eos_token_id
        assert tokenizer.model_max_length == 32
    assert load_tokenizer(tmp_path / "saved").model_max_length == 64
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRecipe, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path / "empty", 32)


def test_labels_of_texts_are_checked(task: CausalLanguageModelling) -> None:
    texts = TextClassification(task.tokenizer, 16, 2)
    encoding = texts.encode({"text": ["good", "", "bad"], "label": [1, 0, 1]})
    batch = texts.batch(encoding, [2, 1])
    assert batch["labels"].tolist() == [1, 0]
    assert int(batch["attention_mask"].sum(1).min()) == 1
    with pytest.raises(BadDataset, match=r"label 2 is outside 0\.\.1"):
        texts.encode({"text": ["x"], "label": [2]})


def test_records_without_text_train_no_tokenizer() -> None:
    with pytest.raises(BadDataset, match="no text"):
        train_tokenizer(MemoryRecords("x", ["1"], ["s"], {"label": [0]}), 300, 8)
