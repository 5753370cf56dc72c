"""What a rank needs and takes seconds to read: imported ahead, while something else is waited for."""


def preload() -> None:
    """On a worker: import MindSpore and the loop of a rank."""
    import mindspore  # noqa: F401

    import orchestrator.training.worker  # noqa: F401
