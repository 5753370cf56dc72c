"""`sdnet-orchestrate`: the command line. Parses, calls, prints; knows nothing else.

Heavy imports (Ray, MindSpore) happen inside the commands that need them, so that `plan`,
`status` and `--help` answer at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.ascend.cli import rank_table_app
from orchestrator.ascend.published import job_of_rank_table
from orchestrator.ascend.rank_table import read_rank_table
from orchestrator.check.command import check
from orchestrator.drill.command import drill
from orchestrator.endings import EXIT_CODES, Commands, run_to_exit_code, tell
from orchestrator.interruption import exit_code_of, in_a_child
from orchestrator.ray_session import prepare_environment, refuse_storage_of_ray
from orchestrator.register.command import EPILOG as REGISTER_EPILOG
from orchestrator.register.command import register
from orchestrator.report import tables
from orchestrator.report.live import live_view
from orchestrator.report.reading import event_lines, existing_run, output_of, reading
from orchestrator.restart import begin_again
from orchestrator.run_directory import RunDirectory
from orchestrator.spec import JobSpec, load_spec, spec_from_dict
from orchestrator.terminal import plain_console
from sdnet.command_line import print_any_text
from sdnet.config import MOST_BATCH
from sdnet.errors import InputError
from sdnet.paths import path_option

app = typer.Typer(
    name="sdnet-orchestrate",
    cls=Commands,
    help="Train SDNet on a cluster, through whatever fails, from one file and one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
)
console = plain_console()

CheckpointPath = Annotated[
    Path,
    typer.Option(help="A checkpoint directory, or a .ckpt file (published ones too).", callback=path_option),
]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, <storage>/<name>.", callback=path_option)
]
JobFile = Annotated[
    Path,
    typer.Argument(
        metavar="CLUSTER_YAML", help="The job: see cluster_configs/ for examples.", callback=path_option
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key; the value is read as YAML. May be repeated."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


app.add_typer(rank_table_app, name="rank-table")
app.command(epilog="Example: sdnet-orchestrate check cluster_configs/ascend-1x8.yaml")(check)
app.command(
    epilog="Example: sdnet-orchestrate drill cluster.yaml --faults kill-rank,freeze --seed 7 --count 4"
)(drill)
app.command(epilog=REGISTER_EPILOG)(register)


@app.command(epilog="Example: sdnet-orchestrate launch cluster.yaml --set train.epochs=5")
def launch(
    job: Annotated[
        Path | None, typer.Argument(metavar="[CLUSTER_YAML]", help="The job.", callback=path_option)
    ] = None,
    set_: Overrides = None,
    rank_table: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a job: a rank table, as the published run_train.sh took.", callback=path_option
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --rank-table: the folder of the data.", callback=path_option)
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Begin again at step 1; what earlier launches left is moved to RUN/before_restart.<n>.",
        ),
    ] = False,
) -> None:
    """Run the job to its end; launched again, go on where it stopped."""
    if job is not None and rank_table is None and data is None:
        _launch(load_spec(job, tuple(set_ or ())), restart)
    elif job is None and rank_table is not None and data is not None:
        raw = job_of_rank_table(read_rank_table(rank_table), data)
        _launch(spec_from_dict(raw, str(rank_table), tuple(set_ or ())), restart)
    else:
        raise InputError("launch takes a cluster.yaml, or --rank-table FILE and --data FOLDER together")


@app.command(epilog="Example: sdnet-orchestrate demo --storage /tmp/runs")
def demo(storage: Annotated[str, typer.Option(help="Where the run is kept.")] = "./runs") -> None:
    """Make synthetic pairs, train SDNet on two ranks of this machine, and compare with raw pixels."""
    from orchestrator.demo import demo_spec, raw_pixel_rate

    spec = demo_spec(storage)
    summary = _launch(spec)
    raw = raw_pixel_rate(RunDirectory.of(spec.storage, spec.name))
    console.print(
        f"FPR95 of raw-pixel distance on the same pairs: {raw:.4f}; of SDNet: {summary['fpr95']:.4f}"
    )


@app.command(epilog="Example: sdnet-orchestrate plan cluster_configs/ascend-4x8.yaml --json")
def plan(job: JobFile, set_: Overrides = None, as_json: AsJson = False) -> None:
    """Print what `launch` would do, to the last environment variable, and touch nothing."""
    from orchestrator.plan import build_plan, plan_as_dict

    made = build_plan(load_spec(job, tuple(set_ or ())))
    if as_json:
        print(json.dumps(plan_as_dict(made), indent=2))
    else:
        tables.print_plan(console, made)


@app.command(epilog="Example: sdnet-orchestrate preprocess cluster.yaml")
def preprocess(job: JobFile, set_: Overrides = None) -> None:
    """Only cut the patches: train.npz, test.npz and manifest.json."""
    from orchestrator.launch import preprocess_only

    spec = load_spec(job, tuple(set_ or ()))
    refuse_storage_of_ray(spec.storage)
    run = RunDirectory.of(spec.storage, spec.name)
    run.create()
    with live_view(run.storage, console):
        manifest = preprocess_only(spec)
    patches = manifest["patches"]
    console.print(f"{patches['train']} training and {patches['test']} test patches in {run.data}")


@app.command(
    epilog="Example: sdnet-orchestrate evaluate --checkpoint runs/demo/checkpoints/step_00000060 "
    "--data runs/demo/data/test.npz"
)
def evaluate(
    checkpoint: CheckpointPath,
    data: Annotated[
        Path, typer.Option(help="A test.npz with matches and non-matches.", callback=path_option)
    ],
    workers: Annotated[int, typer.Option(min=1, help="Ranks that share the work.")] = 1,
    address: Annotated[str, typer.Option(help="local, auto or host:port, as cluster.address.")] = "local",
    batch: Annotated[
        int, typer.Option(min=1, max=MOST_BATCH, help="Pairs that go through the network at once.")
    ] = 600,
    distances: Annotated[
        Path | None,
        typer.Option(help="Write one distance a pair, in the file's order (.npy).", callback=path_option),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="A train.npz, from which the threshold of a match is taken.", callback=path_option),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint, also scene by scene; the same to the last bit for any number of workers."""
    from orchestrator.stages.evaluate import evaluate_checkpoint
    from sdnet.messages import assessment_lines

    cluster = spec_from_dict(
        {"name": "evaluate", "cluster": {"address": address, "workers": workers}}, "evaluate"
    ).cluster
    found = evaluate_checkpoint(
        checkpoint, data, cluster=cluster, batch=batch, distances_path=distances, train=train
    )
    if as_json:
        print(json.dumps(found))
    else:
        print("\n".join(assessment_lines(found)))
        print(f"weights SHA-256 {found['weights_sha256']}\nfile SHA-256    {found['checkpoint_sha256']}")
        if found["note"]:
            print(f"note: {found['note']}")


@app.command(
    epilog="Example: sdnet-orchestrate export --checkpoint runs/demo/checkpoints/step_00000060 "
    "--out sdnet.mindir"
)
def export(
    checkpoint: CheckpointPath,
    out: Annotated[Path, typer.Option(help="The file to write.", callback=path_option)],
    format_: Annotated[str, typer.Option("--format", help="mindir, or air (on an Ascend host).")] = "mindir",
) -> None:
    """Write the network as MindIR and prove that the file computes the same."""

    def work() -> str:
        from sdnet.export import export_checkpoint
        from sdnet.messages import exported_line

        return exported_line(out, export_checkpoint(checkpoint, out, format_))

    print(in_a_child(work))


@app.command(epilog="Example: sdnet-orchestrate status runs/s1s2")
def status(
    run: RunPath,
    as_json: AsJson = False,
) -> None:
    """Show where a running or finished job stands."""
    from orchestrator.report.status import read_status

    directory = existing_run(run)
    with reading(directory):
        found = read_status(directory)
    if as_json:
        print(json.dumps(found))
    else:
        tables.print_status(console, found)


@app.command(epilog="Example: sdnet-orchestrate logs runs/s1s2 --rank 1")
def logs(
    run: RunPath,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Print this rank's output instead of the events.")
    ] = None,
) -> None:
    """Print a run's events as lines, or one rank's output."""
    directory = existing_run(run)
    sys.stdout.writelines(event_lines(directory) if rank is None else output_of(directory, rank))


def _launch(spec: JobSpec, restart: bool = False) -> dict:
    from orchestrator.launch import launch as run_job

    refuse_storage_of_ray(spec.storage)
    run = RunDirectory.of(spec.storage, spec.name)
    if restart:
        moved_to = begin_again(run)
        console.print(f"moved the earlier run to {moved_to}" if moved_to else "there is no earlier run")
    run.create()
    try:
        with live_view(run.storage, console):
            result = run_job(spec)
    except KeyboardInterrupt as interruption:
        tell("interrupted; launch again to go on from the last checkpoint")
        raise typer.Exit(exit_code_of(interruption)) from None
    if result.already_done:
        console.print(f"{run.root} is finished; nothing to do")
    tables.print_summary(console, result.summary)
    return result.summary


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, never a traceback."""
    prepare_environment()
    print_any_text(sys.stdout)
    sys.exit(run_to_exit_code(app))


if __name__ == "__main__":
    main()
