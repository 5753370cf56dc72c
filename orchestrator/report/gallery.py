"""Pictures for a run's report: the views of some patches that training uses."""

import base64
import html

import cv2
import numpy as np

from orchestrator.job.data.inputs import prepared_files
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from sdnet.config import Recipe
from sdnet.data.augment import VIEW, Views, Where, changes_patches, middle
from sdnet.data.store import PatchFile, open_training_patches
from sdnet.errors import InputError

_PAIRS, _VIEWS = 4, 5
_GAP = 4  # white pixels between pictures


def gallery_of(spec: JobSpec, run: RunDirectory) -> str:
    """HTML with the views that the recipe makes; empty without views, or when the patches are not there.

    A missing picture does not fail a run: if patches cannot be read, the HTML is a sentence with the reason.
    """
    path = run.train_npz if spec.data.prepared is None else prepared_files(spec.data.prepared)[0]
    if not changes_patches(spec.train) or not path.is_file():
        return ""
    title = "Views of training pairs"
    try:
        picture = views_picture(spec.train, open_training_patches(path))
    except (InputError, OSError) as error:
        return f"<h2>{title}</h2><p>They cannot be drawn: {html.escape(str(error))}</p>"
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    text = (
        "Each row is one pair, optical left and SAR right: first as it is stored, then the views that it would get "
        "in the first steps."
    )
    data = base64.b64encode(encoded).decode()
    return f'<h2>{title}</h2><p>{text}</p><img alt="{title}" src="data:image/png;base64,{data}"/>'


def views_picture(recipe: Recipe, patches: PatchFile) -> np.ndarray:
    """Some pairs, evenly spread over the file, one in each row: as stored, then their views; uint8 [H, W]."""
    rows = np.linspace(0, len(patches) - 1, min(len(patches), _PAIRS)).astype(np.int64)
    views, columns = Views(recipe, patches), [middle(np.asarray(patches.images[rows]))]
    for step in range(_VIEWS):
        seen = np.empty((len(rows), VIEW, 2 * VIEW), np.uint8)
        views.fill(Where(step, 0), rows, seen)
        columns.append(seen)
    framed = np.pad(np.stack(columns, axis=1), ((0, 0), (0, 0), (0, _GAP), (0, _GAP)), constant_values=255)
    count, across, height, width = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(count * height, across * width)
