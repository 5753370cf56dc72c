"""What ends a job, beside the user's wrong input (`sdnet.errors.InputError`).

Errors cross processes: each passes its fields to `super().__init__` so that it unpickles.
"""


class OrchestratorError(Exception):
    """The job could not go on; the message is one line with the cause and the remedy."""
