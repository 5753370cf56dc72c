"""What all parts of a job file share: strict models, and texts that name paths."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from orchestrator.job.spec.yaml_syntax import NOT_EXPANDED
from sdnet.paths import path_problem

# A command in backticks, a placeholder `<path/to/storage>`, and a variable of Windows: only in paths, as patterns may
# have such signs.
_PLACEHOLDER = re.compile(r"`[^`]*`|<[^<>]+>|%[A-Z][A-Z0-9_]+%")


def _names_a_path(text: str) -> str:
    problem = NOT_EXPANDED if _PLACEHOLDER.search(text) else path_problem(text)
    if problem:
        raise ValueError(problem)
    return text


# A path as `sdnet.paths.user_path` reads it.
PathText = Annotated[str, AfterValidator(_names_a_path)]


class Section(BaseModel):
    """A part of cluster.yaml: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
