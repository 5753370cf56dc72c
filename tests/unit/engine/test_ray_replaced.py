"""Each name of Ray that we replace has its effect inside the block, and Ray has its own name back after it."""

import os
import signal
import subprocess
import sys

import pytest
from ray._private import parameter, services, utils

from orchestrator.engine.ray_train.ray_start import command_line_shown_as, job_settings, ray_for_one_job


def test_a_process_of_ray_leads_its_own_group_and_can_be_ended_although_the_launcher_blocks_sigterm() -> None:
    show = "import os, signal; print(os.getpgrp() == os.getpid(), signal.pthread_sigmask(0, []), os.environ['A'])"
    prepared = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with ray_for_one_job():
            process = services.ConsolePopen(
                [sys.executable, "-c", show],
                preexec_fn=lambda: prepared.append(os.write(2, b"prepared")),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "A": "given"},
            )
            output, errors = process.communicate()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (output, errors) == (b"True set() given\n", b"prepared")


def test_ray_for_one_job_starts_no_monitor_and_keeps_a_loopback_address() -> None:
    with ray_for_one_job():
        params = parameter.RayParams(node_ip_address="127.0.0.1")
        assert (params.node_ip_address, params.no_monitor, params.include_log_monitor) == (
            "127.0.0.1",
            True,
            False,
        )
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"


def test_ray_records_the_command_line_that_it_is_given() -> None:
    with command_line_shown_as("launch a.yaml"):
        assert utils.get_entrypoint_name() == "launch a.yaml"


def test_workers_import_from_the_current_directory_only_if_this_process_does(monkeypatch, tmp_path) -> None:
    assert not job_settings()._client_job  # the tests run in the checkout
    monkeypatch.chdir(tmp_path)
    assert job_settings()._client_job
    assert not job_settings(submitted=True)._client_job
    monkeypatch.syspath_prepend(tmp_path)
    assert not job_settings()._client_job


def test_ray_has_its_own_names_back_however_the_block_ended() -> None:
    names = (services, "ConsolePopen"), (parameter, "RayParams"), (services, "resolve_ip_for_localhost")
    entrypoint = utils.get_entrypoint_name
    before = [getattr(module, name) for module, name in names]
    with pytest.raises(KeyError), ray_for_one_job(), command_line_shown_as("x"):
        raise KeyError("x")
    assert [getattr(module, name) for module, name in names] == before
    assert utils.get_entrypoint_name is entrypoint
