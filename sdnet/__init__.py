"""SDNet, a self-distillation feature network that matches optical and SAR patches.

This package imports neither Ray nor the orchestrator. Callers pass rank, world_size and paths.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdnet.api import describe, load, match, register

__all__ = ["__version__", "describe", "load", "match", "register"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the public functions on first use, so that a command's --help answers at once."""
    if name in __all__:
        from sdnet import api

        return getattr(api, name)
    raise AttributeError(f"module 'sdnet' has no attribute {name!r}")
