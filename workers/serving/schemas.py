"""Bodies of the inference server: classification instances, and the OpenAI-compatible subset for completions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_INSTANCES = 256
MAX_PROMPTS = 64
MAX_TOKENS = 4096

Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Instance(_Body):
    """One thing to classify: a PNG or JPEG in base64, or a text, as the model's task asks."""

    image: str | None = None
    text: Text | None = None


class PredictBody(_Body):
    """Instances to classify; `top_k` labels are told for each."""

    instances: Annotated[list[Instance], Field(min_length=1, max_length=MAX_INSTANCES)]
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5


class CompletionBody(_Body):
    """`/v1/completions` as the OpenAI API has it, one choice a prompt.

    Parameters that would change the answer and are not built are taken only at their neutral value.
    """

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 16
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    n: Literal[1] = 1
    best_of: Literal[1] = 1
    stream: Literal[False] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    user: str | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)

    @property
    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)
