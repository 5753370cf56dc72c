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
    *_, last = [None, *_PLACEHOLDER.finditer(text)]
    if last is not None and (
        problem or not _exists(text[: last.end()] + text[last.end() :].partition("/")[0])
    ):
        problem = NOT_EXPANDED
    if problem:
        raise ValueError(problem)
    return text


def _exists(path: str) -> bool:
    return os.path.lexists(user_path(path))


# A path as `sdnet.paths.user_path` reads it.
PathText = Annotated[str, AfterValidator(_names_a_path)]


class Section(BaseModel):
    """A part of cluster.yaml: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
