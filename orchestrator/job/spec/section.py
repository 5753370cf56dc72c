"""What all parts of a job file share: strict models, and texts that name paths."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from sdnet.paths import path_problem


def _names_a_path(text: str) -> str:
    problem = path_problem(text)
    if problem:
        raise ValueError(problem)
    return text


# A path as `sdnet.paths.user_path` reads it.
PathText = Annotated[str, AfterValidator(_names_a_path)]


class Section(BaseModel):
    """A part of cluster.yaml: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
