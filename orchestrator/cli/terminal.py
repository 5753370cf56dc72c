"""Consoles that print text unchanged."""

from rich.console import Console

from sdnet.cli.command_line import ignore_unusable_width

_PIPE_COLUMNS = 160


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints every text unchanged: a path may contain `[/]` or `:key:`, which rich would interpret."""
    ignore_unusable_width()  # rich reads it when a console is made
    return Console(stderr=stderr, markup=False, emoji=False)


def wide_console() -> Console:
    """A console as wide as the terminal. For a file or a pipe, where rich assumes 80 columns, it is wide."""
    console = plain_console()
    return console if console.is_terminal else Console(width=_PIPE_COLUMNS, markup=False, emoji=False)
