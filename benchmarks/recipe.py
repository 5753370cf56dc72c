"""What each ingredient of the recipe `modern` is worth: an ablation table on real patches.

Prepares the images once, then trains each row on the training scenes and appends one JSON line a run to
the results. Rows that exist are not trained again, so an interrupted table can be resumed. Choose
with `--split validation`, which holds every fourth training scene back and never opens the test set;
report with `--split test`. `--write` makes docs/recipes.md of the results and trains nothing.

usage: python benchmarks/recipe.py --images DIR --work DIR [--split validation] [--rows modern,published]
                                   [--seeds 0,1,2] [--steps 246] [--save DIR] [--write] [--json]
"""

import argparse
import json
import re
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from sdnet.config import PatchConfig, Recipe, SplitConfig
from sdnet.data.augment import middle
from sdnet.data.places import Places
from sdnet.data.store import PatchFile, open_patches, open_training_patches
from sdnet.evaluation.evaluate import Evaluation, num_chunks
from sdnet.evaluation.metrics import accuracy, fpr95
from sdnet.measures import MEASURES, patch_distances
from sdnet.parameters.weights import State
from sdnet.preparation.prepare import draw_negatives, prepare
from sdnet.preparation.work import plan_work
from sdnet.recipes import RECIPES, patches_for
from sdnet.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "recipe_202611.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
TARGETS = {246: 0.28, 1500: 0.15}  # of FPR95 on the test scenes, by steps
PATCHES = PatchConfig(per_pair=12)
SPLIT = SplitConfig(train_scenes=("ROIs2020_*",), test_scenes=("ROIs2021_*",))
HELD_BACK_EVERY = 4  # of the training scenes, for validation
EVALUATE_BATCH = 200

MODERN = replace(RECIPES["modern"], batch=100)
PUBLISHED = replace(RECIPES["sen1_2"], batch=100)
CONTRASTIVE = replace(PUBLISHED, objective="contrastive")
# Rows build `modern` up from the published recipe, then take one ingredient away or add one.
ROWS: dict[str, tuple[str, Recipe]] = {
    "published": ("the published recipe", PUBLISHED),
    "contrastive": ("InfoNCE instead of the published losses", CONTRASTIVE),
    "flips": ("... and flips", replace(CONTRASTIVE, flips=True)),
    "align": ("... and aligned scenes", replace(CONTRASTIVE, flips=True, align_scenes=True)),
    "modern": ("`modern`", MODERN),
    "modern-orientation": ("`modern` without orientation channels", replace(MODERN, orientation_channels=0)),
    "modern-modality": ("`modern` with shared statistics", replace(MODERN, normalisation="batch")),
    "modern-instance": ("`modern` with instance normalisation", replace(MODERN, normalisation="instance")),
    "modern-group": ("`modern` with group normalisation", replace(MODERN, normalisation="group")),
    "modern-frn": ("`modern` with filter response normalisation", replace(MODERN, normalisation="frn")),
    "modern-align": ("`modern` without alignment", replace(MODERN, align_scenes=False)),
    "modern-jitter": ("`modern` without jitter", replace(MODERN, jitter_px=0.0)),
    "modern-turns": ("`modern` without rotation and scale", replace(MODERN, rotation_deg=0.0, scale=0.0)),
    "modern+gamma": ("`modern` with photometric changes", replace(MODERN, gamma=0.5)),
    "modern+runs": ("`modern` with runs of 10 pairs of a scene", replace(MODERN, scene_run=10)),
    "modern+second": (
        "`modern` with second-order similarity (SOSNet)",
        replace(MODERN, second_order_weight=1.0),
    ),
    "modern+average": ("`modern` with averaged weights", replace(MODERN, average=0.98)),
    "modern+measured": (
        "`modern` with statistics measured at the end",
        replace(MODERN, measured_statistics=True),
    ),
    "modern+cold": ("`modern` with temperature 0.04", replace(MODERN, contrastive_temperature=0.04)),
    "modern+warm": ("`modern` with temperature 0.12", replace(MODERN, contrastive_temperature=0.12)),
    "modern+hardnet": ("`modern` with the triplet loss of HardNet", replace(MODERN, objective="triplet")),
    "modern+hynet": (
        "`modern` with the hybrid triplet loss of HyNet",
        replace(MODERN, objective="triplet", margin=1.2, hybrid=2.0),
    ),
}

# Without any training: the bar that a recipe must beat.
HAND_MADE = {f"measure:{name}": f"{name.replace('_', ' ')}, no training" for name in MEASURES}
TITLES = {**HAND_MADE, **{row: title for row, (title, _) in ROWS.items()}}


def prepared(images: Path, work: Path) -> Path:
    """The folder with train.npz and test.npz, which is made if it is not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    prepare(plan_work(images, work, patches_for(MODERN, PATCHES), SPLIT, 0.0))
    return work


def hold_back(train: PatchFile) -> tuple[PatchFile, PatchFile]:
    """Training pairs without every fourth scene, and a test set of those scenes."""
    places = Places.read(train.path, len(train))
    assert places is not None and train.shifts is not None and train.ground is not None
    held = places.scene % HELD_BACK_EVERY == 1
    kept = PatchFile(
        train.path,
        train.images[~held],
        np.ones(np.count_nonzero(~held), np.int32),
        train.shifts[~held],
        train.ground[~held],
    )
    matches, scenes = middle(train.images[held]), places.scene[held]
    optical, sar = draw_negatives(scenes, 1.0, seed=0)
    others = matches[optical].copy()
    others[:, :, 64:] = matches[sar][:, :, 64:]
    labels = np.repeat([1, 0], [len(matches), len(others)]).astype(np.int32)
    return kept, PatchFile(train.path, np.concatenate([matches, others]), labels)


def run(row: str, seed: int, steps: int, data: Path, split: str, save: Path | None) -> dict[str, Any]:
    """Train one row and evaluate it once, at the end."""
    train = open_training_patches(data / "train.npz")
    train, test = hold_back(train) if split == "validation" else (train, open_patches(data / "test.npz"))
    recipe = replace(ROWS[row][1], seed=seed)
    per_epoch = -(-len(train) // recipe.batch)
    recipe = replace(recipe, epochs=-(-steps // per_epoch))
    trainer = Trainer(recipe, train)
    trainer.total_steps = steps  # the schedule ends here, perhaps within an epoch
    began, cpu = time.perf_counter(), time.process_time()
    while trainer.progress.step < steps:
        trainer.step()
    trainer.wait()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    distances = trainer.distances(test, EVALUATE_BATCH)
    rates = {"fpr95": fpr95(distances, test.labels), "accuracy": accuracy(distances, test.labels)}
    snapshot = trainer.snapshot(rates)
    if save is not None:
        snapshot.write(save / f"{row}-{split}-{steps}-{seed}")
    trainer.close()
    rates |= adapted_rates(recipe, snapshot.model, test)
    return {"row": row, "split": split, "steps": steps, "seed": seed, **rates,
            "loss": trainer.finish_epoch()["total"], "seconds": round(seconds, 1), "cpu_s": round(cpu, 1),
            "recipe": asdict(recipe), "mindspore": ms.__version__}  # fmt: skip


def adapted_rates(recipe: Recipe, model: State, test: PatchFile) -> dict[str, float]:
    """The rates with BatchNorm statistics of the test images, found without their labels; none without statistics."""
    if recipe.normalisation not in ("batch", "modality"):
        return {}
    trained = Evaluation(recipe)
    trained.load(model)
    evaluation = trained.with_statistics(trained.statistics_of(test))
    distances = evaluation.distances(test, EVALUATE_BATCH, range(num_chunks(len(test), EVALUATE_BATCH)))
    return {
        "adapted_fpr95": fpr95(distances, test.labels),
        "adapted_accuracy": accuracy(distances, test.labels),
    }


def run_measure(row: str, data: Path, split: str) -> dict[str, Any]:
    """Evaluate a hand-made measure, which has neither steps nor seeds."""
    train = open_training_patches(data / "train.npz")
    test = hold_back(train)[1] if split == "validation" else open_patches(data / "test.npz")
    cpu = time.process_time()
    distances = patch_distances(test.images, MEASURES[row.removeprefix("measure:")])
    rates = {"fpr95": fpr95(distances, test.labels), "accuracy": accuracy(distances, test.labels)}
    return {"row": row, "split": split, "steps": 0, "seed": 0, **rates,
            "cpu_s": round(time.process_time() - cpu, 1)}  # fmt: skip


def read_results() -> list[dict[str, Any]]:
    """Every run so far; a last line that a kill cut short does not count."""
    if not RESULTS.exists():
        return []
    lines = RESULTS.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def key_of(result: dict[str, Any]) -> tuple[str, str, int, int]:
    """What must not be trained twice."""
    return result["row"], result["split"], result["steps"], result["seed"]


def append(result: dict[str, Any]) -> None:
    """Add a run to the results; what a kill cut short is taken off first."""
    whole = "".join(json.dumps(known) + "\n" for known in [*read_results(), result])
    temporary = RESULTS.with_suffix(".partial")
    temporary.write_text(whole, encoding="utf-8")
    temporary.replace(RESULTS)


def summarise(results: list[dict[str, Any]]) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    """The runs of each split, number of steps and row, in this order; rows in that of `TITLES`."""
    order = list(TITLES)
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for found in sorted(results, key=lambda one: (one["split"], one["steps"], order.index(one["row"]))):
        groups.setdefault((found["split"], found["steps"], found["row"]), []).append(found)
    return groups


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown: one table for each split and number of steps, and the rows without a run."""
    groups, lines, heading = summarise(results), [], None
    for (split, steps, row), runs in groups.items():
        if heading != (split, steps):
            heading = split, steps
            how = f"{steps} steps of batch 100" if steps else "no training"
            lines += ["", f"{split.capitalize()} scenes, {how}:", ""]
            lines += ["| row | what | seeds | FPR95 | accuracy | FPR95, `--adapt` | CPU s |"]
            lines += ["|---|---|---|---|---|---|---|"]
        fpr, right, adapted = (
            spread([found[name] for found in runs if name in found])
            for name in ("fpr95", "accuracy", "adapted_fpr95")
        )
        cpu = statistics.median(found["cpu_s"] for found in runs)
        lines.append(f"| `{row}` | {TITLES[row]} | {len(runs)} | {fpr} | {right} | {adapted} | {cpu:.0f} |")
    trained = {row for _, _, row in groups}
    missing = ", ".join(f"`{row}`" for row in TITLES if row not in trained)
    return "\n".join([*lines, "", f"Rows that have not run yet: {missing or 'none'}.", ""])


def spread(values: list[float]) -> str:
    """Mean, and how far the seeds lie from it at most; empty without values."""
    if not values:
        return ""
    mean = statistics.mean(values)
    widest = max(abs(value - mean) for value in values)
    return f"{mean:.3f}" + (f" +- {widest:.3f}" if len(values) > 1 else "")


def write_page(results: list[dict[str, Any]]) -> None:
    """Put the table between the markers of docs/recipes.md."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    pattern = re.compile(f"{begin}.*{end}", re.DOTALL)
    assert pattern.search(page), f"{PAGE} has no {begin} ... {end}"
    PAGE.write_text(pattern.sub(lambda _: f"{begin}\n{table(results)}{end}", page), encoding="utf-8")


def main() -> None:
    """Train what is missing, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a tree of SEN1-2's layout")
    parser.add_argument("--work", type=Path, help="where patches are prepared")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--rows", default=",".join(TITLES), help="names, separated by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=246)
    parser.add_argument("--save", type=Path, help="a folder for the checkpoint of each run")
    parser.add_argument("--write", action="store_true", help="make docs/recipes.md and train nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.write:
        write_page(read_results())
        return
    if arguments.images is None or arguments.work is None:
        parser.error("give --images and --work, or --write")
    rows, seeds = arguments.rows.split(","), [int(seed) for seed in arguments.seeds.split(",")]
    unknown = [row for row in rows if row not in TITLES]
    if unknown:
        parser.error(f"row {unknown[0]} is not known; it must be one of {', '.join(TITLES)}")
    ms.set_context(mode=ms.GRAPH_MODE)
    data = prepared(arguments.images, arguments.work)
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
    known = {key_of(result) for result in read_results()}
    for row, seed, steps in _runs(rows, seeds, arguments.steps):
        if (row, arguments.split, steps, seed) in known:
            continue
        if row in ROWS:
            found = run(row, seed, steps, data, arguments.split, arguments.save)
        else:
            found = run_measure(row, data, arguments.split)
        append(found)
        if not arguments.json:
            print(f"{row} seed {seed}: FPR95 {found['fpr95']:.4f}", flush=True)
    print(json.dumps(_outcome(arguments)) if arguments.json else table(read_results()))


def _runs(rows: list[str], seeds: list[int], steps: int) -> list[tuple[str, int, int]]:
    """Row, seed and steps: measures once, then a whole table of each seed."""
    measures = [(row, 0, 0) for row in rows if row in HAND_MADE]
    return measures + [(row, seed, steps) for seed in seeds for row in rows if row in ROWS]


def _outcome(arguments: argparse.Namespace) -> dict[str, Any]:
    """How far `modern` lies below the published recipe, of the runs asked for."""
    groups = summarise(read_results())
    of = {
        row: [found["fpr95"] for found in groups.get((arguments.split, arguments.steps, row), [])]
        for row in ("published", "modern")
    }
    mean = {row: statistics.mean(values) if values else None for row, values in of.items()}
    ratio = mean["published"] / mean["modern"] if mean["published"] and mean["modern"] else None
    target = TARGETS.get(arguments.steps)
    met = mean["modern"] is not None and target is not None and mean["modern"] <= target
    return {"name": "recipe", "ratio": ratio, "target": target, "met": met, "fpr95": of}


if __name__ == "__main__":
    main()
