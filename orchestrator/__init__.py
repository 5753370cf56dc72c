"""Trains MindSpore models on clusters of Ascend hosts, through any failure.

The engine makes any training function survive; `sdnet-orchestrate` is the job that uses it for SDNet.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.arguments import RecoveryConfig
    from orchestrator.engine.config import MindSporeConfig
    from orchestrator.engine.session import get_session
    from orchestrator.engine.trainer import MindSporeTrainer

__all__ = ["MindSporeConfig", "MindSporeTrainer", "RecoveryConfig", "get_session"]

_HOMES = {
    "MindSporeConfig": "orchestrator.engine.config",
    "MindSporeTrainer": "orchestrator.engine.trainer",
    "RecoveryConfig": "orchestrator.engine.arguments",
    "get_session": "orchestrator.engine.session",
}


def __getattr__(name: str) -> object:
    """Import on first use: Ray must not be imported before its environment is set (`ray_cluster/session.py`)."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
