"""Models whose answers name their own version, and their rows in the database, for the tests of the server."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.orm import Session
from transformers import GPT2Config, GPT2LMHeadModel, ResNetConfig, ResNetForImageClassification

from service.database import new_id, transaction
from service.datasets.models import Dataset
from service.registry import service as registry
from service.registry.models import Model, Version
from tests.workers.factories import MemoryRecords
from workers.modeling.directories import directory_digest
from workers.modeling.images import write_preparation
from workers.modeling.tokenizers import train_tokenizer

LABELS = 8
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


def image_model(folder: Path, label: int) -> Path:
    """A ResNet that answers `label` to any image."""
    torch.manual_seed(label)
    config = ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    config.num_labels = LABELS
    model = ResNetForImageClassification(config)
    with torch.no_grad():
        head = list(model.classifier.children())[-1]
        assert isinstance(head, torch.nn.Linear)
        head.weight.zero_()
        head.bias.copy_(torch.nn.functional.one_hot(torch.tensor(label), LABELS) * 5.0)
    model.save_pretrained(str(folder))
    write_preparation(folder)
    return folder


def language_model(folder: Path, number: int) -> Path:
    """A GPT-2 whose likeliest next token is always one word, the name of `number`."""
    torch.manual_seed(number)
    text = " ".join(WORDS)
    records = MemoryRecords("causal-lm", ["a"], ["a"], {"text": [f"hello {text} and {text}"]})
    tokenizer = train_tokenizer(records, 400, 32)
    tokenizer.save_pretrained(str(folder))
    config = GPT2Config(
        n_embd=8, n_layer=1, n_head=2, n_positions=32, vocab_size=len(tokenizer), tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    token = tokenizer(f" {WORDS[number]}")["input_ids"][0]
    with torch.no_grad():
        # The last normalisation answers a constant, and only one row of the head listens to it.
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[token] = 2.0
    model.save_pretrained(str(folder))
    return folder


def text_model(folder: Path, label: int) -> Path:
    """A GPT-2 classifier that answers `label` to any text."""
    from transformers import GPT2ForSequenceClassification

    language_model(folder, label)
    shutil.rmtree(folder / "model.safetensors", ignore_errors=True)
    config = GPT2Config.from_pretrained(str(folder))
    config.num_labels, config.pad_token_id = LABELS, 0
    model = GPT2ForSequenceClassification(config)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.score.weight.zero_()
        model.score.weight[label] = 1.0
    model.save_pretrained(str(folder))
    return folder


def register(name: str, task: str, path: Path) -> None:
    """Rows of a model that serves the directory as version 1."""
    now = datetime.now(UTC)
    with transaction() as session:
        dataset = _dataset(task, now)
        session.add(dataset)
        session.flush()
        model = Model(
            id=new_id("mod"),
            name=name,
            task=task,
            dataset_id=dataset.id,
            policy={},
            policy_digest="0" * 64,
            created_at=now,
        )
        session.add(model)
        session.flush()
        version = Version(
            id=new_id("ver"),
            model_id=model.id,
            number=1,
            digest=directory_digest(path),
            path=str(path),
            state="serving",
            manifest={},
            created_at=now,
        )
        session.add(version)
        session.flush()
        model.serving_version_id = version.id


def _dataset(task: str, now: datetime) -> Dataset:
    values: dict[str, Any] = {"columns": {}, "identifiers": {}, "records": 1, "subjects": 1, "details": {}}
    return Dataset(
        id=new_id("dst"), task=task, path="data", digest="0" * 64, index_path="index", created_at=now, **values
    )


def publish(name: str, path: Path, digest: str | None = None) -> int:
    """Publish another directory as the job of a deletion does; answers its version number."""
    with transaction() as session:
        model = registry.get_model(session, name)
        base = str(model.serving_version_id)
        version = registry.publish_version(
            session,
            job_id=new_id("job"),
            model_id=model.id,
            base_version_id=base,
            digest=digest or directory_digest(path),
            path=path,
            method="retrain",
            verification={},
            destroy_after=timedelta(0),
            now=datetime.now(UTC),
        )
        return version.number


def set_precision(name: str, precision: str) -> None:
    """What the model's weights are rounded to from now on."""
    with transaction() as session:
        registry.get_model(session, name).serve_precision = precision


def set_state(name: str, state: str) -> None:
    """Put the version that the pointer names into a state it should not be in."""
    with transaction() as session:
        version = _serving(session, name)
        version.state = state


def _serving(session: Session, name: str) -> Version:
    return registry.serving_version(session, registry.get_model(session, name))
