"""SDNet, a self-distillation feature network that matches optical and SAR patches.

The science alone: this package knows nothing of Ray or the orchestrator and takes
rank, world_size and paths as arguments.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
