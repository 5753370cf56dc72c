"""`sdnet-orchestrate preprocess`: only cut the patches of a job."""

from orchestrator.cli.options import JobFile, Overrides, console
from orchestrator.job.new_run import check_new_run, no_folder_if_refused, read_job
from orchestrator.job.run_directory import RunDirectory
from orchestrator.ray_cluster.session import refuse_storage_of_ray
from orchestrator.report.live import live_view


def preprocess(job: JobFile, set_: Overrides = None) -> None:
    """Only cut the patches: train.npz, test.npz and manifest.json."""
    from orchestrator.job.launch import preprocess_only

    spec = read_job(job, tuple(set_ or ()))
    refuse_storage_of_ray(spec.storage)
    check_new_run(spec)
    run = RunDirectory.of(spec.storage, spec.name)
    with no_folder_if_refused(run):
        run.create()
        with live_view(run.storage, console):
            manifest = preprocess_only(spec)
    patches = manifest["patches"]
    console.print(f"{patches['train']} training and {patches['test']} test patches in {run.data}")
