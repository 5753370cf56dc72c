"""SDNet, a self-distillation feature network that matches optical and SAR patches.

The science alone: this package knows nothing of Ray or the orchestrator and takes
rank, world_size and paths as arguments.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdnet.api import describe, load, match, register

__all__ = ["__version__", "describe", "load", "match", "register"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the public functions when they are first used, so that a command's --help answers at once."""
    if name in __all__:
        from sdnet import api

        return getattr(api, name)
    raise AttributeError(f"module 'sdnet' has no attribute {name!r}")
