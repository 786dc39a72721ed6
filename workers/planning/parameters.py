"""Parameters of a method as they were given, checked and with their defaults."""

from typing import Any

from pydantic import BaseModel, ValidationError

from service.catalogue.specs import MethodSpec
from service.errors import BadParameters


def parse_params(spec: MethodSpec, params: dict[str, Any]) -> BaseModel:
    """The parameters of a run as the method takes them. Raises BadParameters, one line that names what is wrong."""
    try:
        return spec.params.model_validate(params)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise BadParameters(f"{spec.name}: {place}: {fault['msg']}") from error


def full_params(spec: MethodSpec, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with their defaults, as records of runs state them. Raises as `parse_params`."""
    return parse_params(spec, params).model_dump(mode="json")
