"""Whatever the events of a run contain, their readers keep working."""

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import spec_from_dict
from orchestrator.report.html import render_report
from orchestrator.report.lines import line_of
from orchestrator.report.status import read_status
from orchestrator.report.summary import build_summary
from orchestrator.telemetry.record import EventReader

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=4,
)
NAMES = (
    "run_started", "run_finished", "stage_started", "stage_finished", "shard_done", "group_starting",
    "group_started", "rank_joined", "first_step", "progress", "epoch", "resumed", "checkpoint_saved",
    "checkpoint_corrupt", "checkpoint_failed", "hang_found", "group_ended", "drain_noticed", "leaving",
    "straggler", "failure_detected", "group_restarting", "giving_up", "fault_injected", "host_returned",
    "evaluated", "unheard_of",
)  # fmt: skip
KEYS = (
    "stage", "status", "kind", "checkpoint", "detail", "reason", "generation", "world_size", "hosts",
    "ranks", "host", "rank", "pid", "started", "step", "steps", "epoch", "seconds", "loss", "lr", "fpr95",
    "accuracy", "evaluate_s", "done", "shards", "pairs_per_s", "factor", "fault", "proof", "problem",
)  # fmt: skip
LINES = (
    st.fixed_dictionaries(
        {"event": st.sampled_from(NAMES)},
        optional={"t": JSON | st.floats(0, 2e9), **{key: JSON | st.integers(0, 9) for key in KEYS}},
    )
    | JSON
)


@given(lines=st.lists(LINES, max_size=6))
def test_any_line_of_json_in_the_events_leaves_every_reader_at_work(tmp_path_factory, lines) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    run.events.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    spec = spec_from_dict({"name": "j"}, "job")
    history = EventReader(run.storage).read()
    for one in history:
        assert line_of(one.event) is None or isinstance(line_of(one.event), str)
    summary = build_summary(spec, run, history, "failed")
    assert render_report(summary, history).startswith("<!doctype html>")
    assert read_status(run)["name"] == run.root.name
