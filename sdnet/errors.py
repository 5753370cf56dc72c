"""The one error of the package: the caller's input cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used: a file, a value or a folder.

    The message is one line that names the thing, its value and the remedy.
    A command line prints it without a traceback and exits with 2.
    Example: a test.npz that is truncated, a batch larger than the data.
    """
