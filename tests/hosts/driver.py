"""Runs on a host of the bed and sends a test's requests to Ray: one JSON line each way.

A request is `{"do": name, "host": name}`; the answer is `{"ok": value}`, or `{"error": class
name}` for an error of Ray's. One driver serves many tests, because it takes seconds to start.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import ray

_AT_MOST_S = 60.0


class Resident:
    """Lives on one host; a call to it is retried until the host answers or is dead."""

    def address(self) -> str:
        return ray.util.get_node_ip_address()

    def stay(self) -> None:
        threading.Event().wait()


_residents: dict[str, Any] = {}


def addresses(host: str) -> list[str]:
    """Addresses of the hosts that Ray believes alive."""
    return sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])


def settle(host: str) -> str:
    """Start a new resident on the host; returns its address there."""
    place = {"num_cpus": 1, "resources": {host: 1}}
    _residents[host] = ray.remote(Resident).options(**place, max_concurrency=2, max_task_retries=-1).remote()
    return ask(host)


def ask(host: str) -> str:
    """The address of the host, as its resident reports it."""
    return ray.get(_residents[host].address.remote(), timeout=_AT_MOST_S)


def stay(host: str) -> None:
    """Wait for the resident, which never ends."""
    ray.get(_residents[host].stay.remote(), timeout=_AT_MOST_S)


def main() -> None:
    """Answer questions until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Ray's warnings must not be taken for answers
    ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    can: dict[str, Callable[[str], Any]] = {do.__name__: do for do in (addresses, settle, ask, stay)}
    for line in sys.stdin:
        question = json.loads(line)
        try:
            reply = {"ok": can[question["do"]](question["host"])}
        except ray.exceptions.RayError as error:
            reply = {"error": type(error).__name__}
        answers.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
