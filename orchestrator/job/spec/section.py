"""What all parts of a job file share: strict models, and texts that name paths."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from orchestrator.job.spec.yaml_syntax import NOT_EXPANDED
from sdnet.paths import path_problem, user_path

# A command in backticks, a placeholder `<path/to/storage>`, and a variable of Windows: only in paths, as patterns may
# have such signs. A folder that exists may have them, too.
_PLACEHOLDER = re.compile(r"`[^`]*`|<[^<>]+>|%[A-Z][A-Z0-9_]+%")


def _names_a_path(text: str) -> str:
    problem = path_problem(text)
    ends = [found.end() for found in _PLACEHOLDER.finditer(text)]
    if ends and (problem or not _exists_up_to(text, ends[-1])):
        problem = NOT_EXPANDED
    if problem:
        raise ValueError(problem)
    return text


def _exists_up_to(path: str, end: int) -> bool:
    """Whether the part of the path that ends with the name at the character `end` is there."""
    return os.path.lexists(user_path(path[:end] + path[end:].partition("/")[0]))


# A path as `sdnet.paths.user_path` reads it.
PathText = Annotated[str, AfterValidator(_names_a_path)]


class Section(BaseModel):
    """A part of cluster.yaml: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
