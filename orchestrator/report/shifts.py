"""What a plan reports about the shifts of scenes: their distribution, from the manifest beside the patches."""

from typing import Any

from orchestrator.job.data.inputs import prepared_files
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from sdnet.errors import InputError
from sdnet.files import read_json


def shifts_line(spec: JobSpec, run: RunDirectory) -> str:
    """The shift of SAR against optical in the training scenes, or that it is unknown yet; empty if no shift is used.

    Raises InputError for a manifest that is not one.
    """
    if not spec.train.align_scenes:
        return ""
    manifest = run.manifest
    if spec.data.prepared is not None:
        manifest = prepared_files(spec.data.prepared)[0].with_name("manifest.json")
    try:
        content = read_json(manifest)
    except FileNotFoundError:
        if spec.data.prepared is not None:
            return "the shifts of scenes in train.npz are used; there is no manifest that describes them"
        return "one shift a training scene is estimated"
    except (OSError, ValueError) as error:
        raise InputError(f"{manifest} cannot be read ({error}); remove it, or prepare again") from None
    alignment = content.get("alignment") if isinstance(content, dict) else None
    if not isinstance(alignment, dict):
        return f"{manifest} gives no shifts of scenes"
    try:
        return _described(alignment)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{manifest} does not describe shifts of scenes; prepare again") from None


def _described(alignment: dict[str, Any]) -> str:
    """The part `alignment` of a manifest, as `sdnet.preparation.scenes.alignment_table` makes it, in words."""
    trusted, others, strays = (len(alignment[key]) for key in ("scenes", "not_trusted", "misregistered"))
    line = f"shifts of scenes: {trusted} of {trusted + others} trusted"
    if trusted:
        line += f", median {alignment['median_px']:.1f} px, largest {alignment['largest_px']:.1f} px"
    return f"{line}; {strays} misregistered pair(s)"
