"""What ends a job. Each message has what is wrong, the value, and the remedy.

Errors cross processes: each passes its fields to `super().__init__` so that it can be unpickled.
"""


class OrchestratorError(Exception):
    """The base of all errors that a person can act on."""


class InputError(OrchestratorError, ValueError):
    """The user's input is wrong; trying again cannot help."""


class ClusterError(OrchestratorError):
    """Hosts, devices or processes did not do what they must. Example: a rank did not join."""


class CorruptData(OrchestratorError):
    """Bytes that were read are not the bytes that were written."""

    def __init__(self, name: str, detail: str, remedy: str):
        super().__init__(name, detail, remedy)
        self.name, self.detail, self.remedy = name, detail, remedy

    def __str__(self) -> str:
        return f"{self.name} is corrupt ({self.detail}); {self.remedy}"


class InvariantBroken(OrchestratorError):
    """This program contradicts itself; please report it."""


def headline(error: BaseException) -> str:
    """The first line of an error's text that says something, without line ends; empty if there is none.

    MindSpore writes a rule of dashes, a title such as `- Memory not enough:`, a rule, and then the text. A line that
    ends with a colon is returned with the next one.
    """
    stripped = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    lines = [line for line in stripped if line.strip("-")]
    return " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
