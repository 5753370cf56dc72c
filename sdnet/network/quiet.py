"""Silences MindSpore's log where our own message says what went wrong."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mindspore import log


@contextmanager
def quiet_mindspore() -> Iterator[None]:
    """Keep MindSpore's Python log off the screen; nothing else is silenced."""
    logger = log._get_logger()  # there is no public function, and its name contains a process id
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
