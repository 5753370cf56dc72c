"""What the package raises: the caller's input cannot be used, or training ran away."""


class InputError(ValueError):
    """What the user gave cannot be used: a file, a value or a folder.

    The message is one line that names the thing, its value and the remedy.
    A command line prints it without a traceback and exits with 2.
    Example: a test.npz that is truncated, a batch larger than the data.
    """


class NonFiniteLoss(ArithmeticError):
    """The total loss became NaN or infinite at `step`, counted from 0 over the whole run.

    Example: a learning rate far too high. Training again from before it ends the same way.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the loss is not finite at step {self.step}; lower train.lr, or look at the data"


class NonFiniteWeights(NonFiniteLoss):
    """Weights or Adam's moments became NaN or infinite in the update after a finite loss."""

    def __str__(self) -> str:
        return f"the weights are not finite after step {self.step}; lower train.lr, or look at the data"
