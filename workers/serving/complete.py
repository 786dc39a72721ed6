"""Answers of `POST /v1/completions`: text by greedy decoding or sampling, cut at stop strings."""

import time
import uuid
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, StoppingCriteria, StoppingCriteriaList

from service.errors import Invalid
from workers.modeling.language import CausalLanguageModelling
from workers.serving.loader import Served
from workers.serving.schemas import CompletionBody


@dataclass(frozen=True)
class Completion:
    """Text that follows a prompt. `finish_reason` is "stop" (end token or stop string) or "length"."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def complete(served: Served, body: CompletionBody) -> dict[str, Any]:
    """The answer object. Raises Invalid for a prompt that leaves no room in the model's positions."""
    if body.model is not None and body.model != served.pointer.name:
        raise Invalid(f"/model: this server serves {served.pointer.name!r}", pointer="/model")
    with served.lock:
        if body.seed is not None:
            torch.manual_seed(body.seed)
        done = _generate(served, body)
    prompt_tokens, completion_tokens = (
        sum(one.prompt_tokens for one in done),
        sum(one.completion_tokens for one in done),
    )
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "choices": [
            {"text": one.text, "index": at, "logprobs": None, "finish_reason": one.finish_reason}
            for at, one in enumerate(done)
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _generate(served: Served, body: CompletionBody) -> list[Completion]:
    task, model = served.loaded.task, served.loaded.model
    assert isinstance(task, CausalLanguageModelling)  # noqa: S101 - the route is only for language models
    tokenizer, end = task.tokenizer, int(task.tokenizer.eos_token_id)
    prompts = [tokenizer(prompt)["input_ids"] or [end] for prompt in body.prompts]
    width = max(len(tokens) for tokens in prompts)
    room = _positions(served) - width
    if room < 1:
        raise Invalid(
            f"/prompt: {width} tokens, but the model has {_positions(served)} positions: shorten it", pointer="/prompt"
        )
    # Padded on the left, so that every prompt ends where generation begins.
    ids = torch.tensor([[end] * (width - len(tokens)) + tokens for tokens in prompts], device=model.device)
    lengths = torch.tensor([[len(tokens)] for tokens in prompts], device=model.device)
    mask = (torch.arange(width, device=model.device)[None, :] >= width - lengths).long()
    sampling = {"do_sample": True, "temperature": body.temperature, "top_k": 0} if body.temperature else {}
    plan = GenerationConfig(
        max_new_tokens=min(body.max_tokens, room),
        pad_token_id=end,
        eos_token_id=end,
        **(sampling or {"do_sample": False}),
    )
    stops = StoppingCriteriaList([_AtStop(tokenizer, body.stops, width)] if body.stops else [])
    with torch.inference_mode():
        # `generate` is not typed as callable on every model class.
        out = model.generate(ids, attention_mask=mask, generation_config=plan, stopping_criteria=stops)  # type: ignore[operator]
    rows = out[:, width:].tolist()
    return [_cut(tokenizer, row, body.stops, len(prompt)) for row, prompt in zip(rows, prompts, strict=True)]


def _positions(served: Served) -> int:
    return int(getattr(served.loaded.model.config, "max_position_embeddings", None) or 4096)


def _cut(tokenizer: PreTrainedTokenizerFast, row: list[int], stops: list[str], prompt_tokens: int) -> Completion:
    end = int(tokenizer.eos_token_id)
    ended = end in row
    kept = row[: row.index(end)] if ended else row
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    reason = "stop" if ended or found else "length"
    return Completion(text[: min(found)] if found else text, reason, prompt_tokens, len(kept))


class _AtStop(StoppingCriteria):
    """Ends the rows whose new text holds a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stops: list[str], start: int) -> None:
        self._tokenizer, self._stops, self._start = tokenizer, stops, start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = self._tokenizer.batch_decode(input_ids[:, self._start :])
        done = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)
