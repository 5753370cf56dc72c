"""`sdnet`: prepare, train, evaluate, export and register on one device, without a cluster.

MindSpore is imported inside the commands that compute, so that `--help` answers at once.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from sdnet.cli.command_line import (
    AdaptOption,
    MeasureOption,
    ModelOption,
    NetworkOption,
    SearchOption,
    ignore_unusable_width,
    print_any_text,
    refuse_empty,
    refuse_small_address_space,
    refuse_what_mindspore_fails_on,
    run_command,
)
from sdnet.cli.interruption import interruptible_in_one_line, signals_admitted_beside_mindspore
from sdnet.cli.path_option import path_option
from sdnet.cli.streams import standard_streams
from sdnet.config import MOST_BATCH, ImageConfig, Layout, PatchConfig, Recipe, SplitConfig, SyntheticConfig
from sdnet.errors import InputError, one_line
from sdnet.evaluation.metrics import accuracy, check_labels, fpr95
from sdnet.files import alone_in, is_permanent, made_folder, refuse_run, remove, undisturbed
from sdnet.recipes import RECIPES, patches_for

# Begins the name of the folder for synthetic images.
_SYNTHETIC = ".sdnet-synthetic-"

app = typer.Typer(
    name="sdnet",
    help="SDNet, a network that matches optical and SAR patches, on one device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 the input is wrong, 130 interrupted by Ctrl-C, 143 by SIGTERM, "
    "129 by SIGHUP, 138 by SIGUSR1; register: 3 a match cannot be trusted.",
)
CheckpointPath = Annotated[
    Path,
    typer.Option(help="A checkpoint directory, or a .ckpt file (published ones too).", callback=path_option),
]


@app.command(epilog="Example: sdnet prepare --images /data/sen1-2 --out /data/patches")
def prepare(
    out: Annotated[
        Path, typer.Option(help="Folder for train.npz, test.npz and manifest.json.", callback=path_option)
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of image pairs; without it, synthetic pairs are made.", callback=path_option
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(help=f"Layout of the images: {', '.join(get_args(Layout))}.")
    ] = "auto",
    scene_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression for the names of pairs; its one group is the scene."),
    ] = None,
    max_pixels: Annotated[int, typer.Option(help="An image with more pixels counts as bad.")] = 1 << 24,
    per_pair: Annotated[int, typer.Option(min=1, help="Most patches from one pair.")] = 3,
    recipe: Annotated[
        str, typer.Option(help="Store what this recipe needs, such as larger patches or scene shifts.")
    ] = "sen1_2",
    train: Annotated[float, typer.Option(help="Share of the scenes for training.")] = 0.7,
    train_scenes: Annotated[
        list[str] | None, typer.Option(help="Training scenes, such as 'ROIs2020_*'; may be repeated.")
    ] = None,
    test_scenes: Annotated[
        list[str] | None, typer.Option(help="Test scenes; give --train-scenes too.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the synthetic pairs.")] = 0,
    max_bad_images: Annotated[
        float, typer.Option(help="Largest share of bad images before the command fails.")
    ] = 0.01,
) -> None:
    """Cut patches from image pairs into train.npz and test.npz."""
    from sdnet.preparation.prepare import notes_on_result
    from sdnet.preparation.prepare import prepare as prepare_data
    from sdnet.preparation.synthetic import make_tree
    from sdnet.preparation.work import SHARDS, Work, notes, plan_work

    if layout not in get_args(Layout):
        raise InputError(f"layout is {layout!r}; it must be one of {', '.join(get_args(Layout))}")
    unused = "--layout" if layout != "auto" else "--scene-pattern" if scene_pattern is not None else ""
    if images is None and unused:
        raise InputError(f"{unused} describes images, and there are none; give --images, or remove it")

    refuse_run(out)
    patches = patches_for(_recipe(recipe), PatchConfig(per_pair=per_pair))
    split = SplitConfig(
        train=train,
        seed=seed,
        train_scenes=tuple(train_scenes) if train_scenes else None,
        test_scenes=tuple(test_scenes) if test_scenes else None,
        scene_pattern=scene_pattern,
    )
    read = ImageConfig(layout=cast(Layout, layout), max_pixels=max_pixels)

    def work_of(folder: Path) -> Work:
        return plan_work(folder, out, patches, split, max_bad_images, read)

    work = work_of(images) if images is not None else None  # before `out` is made: a refusal leaves no folder
    with made_folder(out, out / SHARDS), alone_in(out), _synthetic_folder(out) as synthetic:
        if work is None:
            # make_tree builds next to its target, so keep its target one level down.
            make_tree(synthetic / "tree", SyntheticConfig(seed=seed))
            work = work_of(synthetic / "tree")
        for note in notes(work, split):
            print(f"note: {note}", file=sys.stderr)
        manifest = prepare_data(work)
        for note in notes_on_result(manifest):
            print(f"note: {note}", file=sys.stderr)
    counts, of = manifest["patches"], "" if images else " of synthetic pairs"
    print(f"{counts['train']} training and {counts['test']} test patches{of} in {one_line(str(out))}")


@app.command(epilog="Example: sdnet train --data /data/patches --out runs/one --recipe demo")
def train(
    data: Annotated[Path, typer.Option(help="Folder with train.npz and test.npz.", callback=path_option)],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for checkpoints; training resumes from the newest one there.", callback=path_option
        ),
    ],
    recipe: Annotated[str, typer.Option(help=f"One of: {', '.join(RECIPES)}.")] = "sen1_2",
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Batch, instead of the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, instead of the recipe's.")] = None,
    evaluate_batch: Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Pairs embedded at once.")] = 600,
) -> None:
    """Train; evaluate and save a checkpoint after each epoch. Run it again to resume."""
    base = _recipe(recipe)
    given: dict[str, Any] = {"epochs": epochs, "batch": batch, "lr": lr}
    chosen = replace(base, **{name: value for name, value in given.items() if value is not None})
    _use_graphs()
    from sdnet.cli.train_folder import train_in_folder
    from sdnet.data.checksums import checksums_of
    from sdnet.data.store import open_patches, open_training_patches

    patches, test = open_training_patches(data / "train.npz"), open_patches(data / "test.npz")
    check_labels(test.labels, test.path)
    checksums = checksums_of(patches.path, test.path)
    train_in_folder(out, chosen, patches, test, data=checksums, evaluate_batch=evaluate_batch)


@app.command(
    name="eval", epilog="Example: sdnet eval --checkpoint runs/one/checkpoints/step_00000030 --data test.npz"
)
def evaluate(
    checkpoint: CheckpointPath,
    data: Annotated[Path, typer.Option(help="A test.npz.", callback=path_option)],
    batch: Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Pairs embedded at once.")] = 600,
    adapt: AdaptOption = False,
) -> None:
    """Print FPR95 and accuracy of a checkpoint."""
    _use_graphs()
    from sdnet.cli.messages import accuracy_line, origin_line
    from sdnet.data.store import open_patches, refuse_corrupt
    from sdnet.evaluation.evaluate import Evaluation, num_chunks
    from sdnet.preparation.copies import refuse_equal_halves

    patches = open_patches(data)
    check_labels(patches.labels, data)
    refuse_corrupt(data)
    refuse_equal_halves(patches)
    evaluation, model = Evaluation.of_checkpoint(checkpoint)
    if adapt:
        evaluation = evaluation.with_statistics(evaluation.statistics_of(patches))
    distances = evaluation.distances(patches, batch, range(num_chunks(len(patches), batch)))
    print(accuracy_line(fpr95(distances, patches.labels), accuracy(distances, patches.labels)))
    print(origin_line(model))


@app.command(
    epilog="Example: sdnet export --checkpoint runs/one/checkpoints/step_00000030 --out sdnet.mindir"
)
def export(
    checkpoint: CheckpointPath,
    out: Annotated[Path, typer.Option(help="The file to write.", callback=path_option)],
    file_format: Annotated[
        str, typer.Option("--format", help="mindir, or air (on an Ascend host).")
    ] = "mindir",
    batch: Annotated[int, typer.Option(help="Pairs that the file takes at once.")] = 1,
) -> None:
    """Write the network as MindIR and prove that the file computes the same."""
    _use_graphs()
    from sdnet.cli.messages import exported_line
    from sdnet.export import export_checkpoint

    print(exported_line(out, export_checkpoint(checkpoint, out, file_format, batch)))


@contextmanager
def _synthetic_folder(out: Path) -> Iterator[Path]:
    for left in out.glob(f"{_SYNTHETIC}*"):  # a killed process left it
        remove(left)
    folder = Path(tempfile.mkdtemp(prefix=_SYNTHETIC, dir=out))
    try:
        yield folder
    finally:
        with undisturbed():
            remove(folder, ignore_errors=True)


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise InputError(f"recipe {name} is not known; it must be one of {', '.join(RECIPES)}")
    return RECIPES[name]


@app.command(
    epilog="Example: sdnet register optical.png sar.png -o registered. "
    "Exit code 3: the images were read, but their match cannot be trusted; no image is warped."
)
def register(
    optical: Annotated[
        Path, typer.Argument(help="The image that stays: PNG, TIFF or GeoTIFF.", callback=path_option)
    ],
    sar: Annotated[Path, typer.Argument(help="The image that is warped onto it.", callback=path_option)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", callback=path_option)],
    checkpoint: NetworkOption = None,
    model: ModelOption = "affine",
    search: SearchOption = "near",
    measure: MeasureOption = "cfog_mind",
    adapt: AdaptOption = False,
) -> None:
    """Align a SAR image with an optical one, and warp it onto the optical pixels."""
    from sdnet.registration.command import config_of, register_files

    config = config_of(model, search, measure, checkpoint is not None, adapt)
    net = None
    if checkpoint is not None:
        from sdnet.api import load
        from sdnet.registration.files.outputs import refuse_results_as_inputs, result_paths

        refuse_results_as_inputs((checkpoint,), result_paths(out))
        net = load(checkpoint)
    facts = register_files(optical, sar, out, config, net)
    if net is not None and net.note:
        print(f"note: {net.note}", file=sys.stderr)
    if not facts["trusted"]:
        print(f"not trusted: {facts['reason']}; see {one_line(str(out / 'report.html'))}", file=sys.stderr)
        raise typer.Exit(3)
    print(
        f"{facts['agreeing']} of {facts['tie_points']} tie points agree, held-out median "
        f"{facts['held_out_median_px']:.2f} px; wrote {one_line(str(out / facts['warped']))}"
    )


def _use_graphs() -> None:
    refuse_what_mindspore_fails_on()
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)


def main() -> None:
    """Run the command line; wrong input is one line on stderr and exit code 2."""
    print_any_text(sys.stdout, sys.stderr)
    ignore_unusable_width()
    with standard_streams() as streams, interruptible_in_one_line("sdnet"):
        code = _run()
        lost = streams.why_output_was_lost()
        if lost:
            print(f"sdnet: standard output could not be written ({lost})", file=sys.stderr)
            # The results of all other commands are on disk; their output only describes them.
            code = code or int(sys.argv[1:2] == ["eval"])
    sys.exit(code)


def _run() -> int:
    try:
        with signals_admitted_beside_mindspore():
            refuse_small_address_space()
            refuse_empty(sys.argv[1:])
            return run_command(app)
    except InputError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        place = error.filename2 or error.filename
        if place is None or not is_permanent(error):
            what = f"{place}: {error.strerror}" if place else str(error)
            print(f"failed: {one_line(what)}; look at the disk and at `ulimit -a`", file=sys.stderr)
            return 1
        what = f"{place} cannot be used ({error.strerror})"
        print(f"error: {one_line(what)}; move away what is there, or give access to it", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
