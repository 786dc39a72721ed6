"""The unlearning methods by family. Adding one: a file in workers/methods, an entry in its family, a test."""

from service.catalogue.families.baselines import BASELINES
from service.catalogue.families.descent import DESCENT
from service.catalogue.families.exact import EXACT
from service.catalogue.families.founding import FOUNDING
from service.catalogue.families.influence import INFLUENCE
from service.catalogue.families.language import LANGUAGE
from service.catalogue.families.references import REFERENCE_METHODS
from service.catalogue.families.selective import SELECTIVE
from service.catalogue.specs import MethodSpec
from service.errors import BadParameters

METHODS: tuple[MethodSpec, ...] = (
    *EXACT,
    *DESCENT,
    *BASELINES,
    *SELECTIVE,
    *LANGUAGE,
    *FOUNDING,
    *INFLUENCE,
    *REFERENCE_METHODS,
)


def find_method(name: str) -> MethodSpec:
    """The entry of this name. Raises BadParameters listing the known ones."""
    for spec in METHODS:
        if spec.name == name:
            return spec
    raise BadParameters(f"unknown method {name!r}; known ones are {', '.join(spec.name for spec in METHODS)}")
