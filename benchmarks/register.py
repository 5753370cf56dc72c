"""Accuracy of registration on known warps of real pairs, and the rate of wrong pairs that are trusted.

    python benchmarks/register.py [SAMPLE] [--checkpoint C] [--warps 20] [--wide 20] [--strangers 1000]
                                  [--methods log_gabor,cfog,...] [--state FILE] [--json]

SAMPLE is a tree of 256 px tiles with a manifest.csv that gives the position of each tile in its scene; tiles
of a scene are joined (4 x 4 make 1,024 px). The SAR image of a test scene is warped: shift to 20 px, rotation
to 3 degrees, scale 0.98 to 1.02; `wide`: shift to 200 px, any rotation. A method registers the warped pair
and the original pair. Real pairs are misaligned by some pixels, so the reference transform is the known warp
after the mean estimate that two methods give for the original pair: the two methods with the best
repeatability under warps. An error is the mean distance over a grid. Wrong pairs are 512 px squares of two
scenes; the SAR square is rotated by 0, 90, 180 or 270 degrees.

Each run appends one line of JSON to the state file. Runs in the file are not repeated.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from register_methods import BASELINES, NETWORK, TEMPLATES, Found, Pair, ours  # type: ignore[import-not-found]

import sdnet
from sdnet.registration.transform import Transform

SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/s1s2-sample"
EDGE, CROP = 1024, 512
GOALS = {
    "median_px": 0.15,
    "within_1_px": 1.0,
    "wide_within_1_px": 0.95,
    "false_accepts": 0.005,
    "seconds": 5.0,
}

_CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


@cache
def scenes(sample: Path) -> dict[str, Pair]:
    """Optical and SAR, uint8 [1024, 1024], by scene."""
    found: dict[str, Pair] = {}
    with (sample / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            empty = np.zeros((EDGE, EDGE), np.uint8), np.zeros((EDGE, EDGE), np.uint8)
            pair = found.setdefault(row["scene"], empty)
            top, left = 256 * int(row["row"]), 256 * int(row["col"])
            for image, name in zip(pair, (row["s2"], row["s1"]), strict=True):
                image[top : top + 256, left : left + 256] = cv2.imread(
                    str(sample / name), cv2.IMREAD_GRAYSCALE
                )
    return found


def warp_of(number: int, wide: bool) -> np.ndarray:
    """A random known warp about the middle of the image: float64 [3, 3] on (column, row)."""
    rng = np.random.default_rng([7, number, wide])
    angle = np.deg2rad(rng.uniform(-180, 180) if wide else rng.uniform(-3, 3))
    shift = rng.uniform(-1, 1, 2) * (200 if wide else 20)
    linear = rng.uniform(0.98, 1.02) * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    middle = np.full(2, (EDGE - 1) / 2)
    return np.vstack([np.column_stack([linear, middle - linear @ middle + shift]), [0, 0, 1]])


def warped(sar: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpPerspective(sar, matrix, (EDGE, EDGE), flags=cv2.INTER_CUBIC)


class Runs:
    """Finished runs, in a file of JSON lines."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {record["key"]: record for record in map(json.loads, lines)}

    def once(self, key: str, run: Callable[[Pair], Found], pair: Callable[[], Pair]) -> dict[str, Any]:
        """The record of a run; runs it unless the file has the record."""
        if key not in self.done:
            images = pair()
            wall, cpu = time.perf_counter(), time.process_time()
            matrix, trusted, evidence = run(images)
            record = {
                "key": key, "matrix": None if matrix is None else np.asarray(matrix).tolist(),
                "trusted": trusted, "evidence": round(float(evidence), 2),
                "cpu_s": round(time.process_time() - cpu, 3), "wall_s": round(time.perf_counter() - wall, 3),
            }  # fmt: skip
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            self.done[key] = record
        return self.done[key]


GRID = np.stack(np.meshgrid(np.linspace(64, 960, 8), np.linspace(64, 960, 8), indexing="ij"), -1).reshape(
    -1, 2
)


def places(record: dict[str, Any]) -> np.ndarray:
    """Where a run maps the grid, [64, 2]; NaN without a transform."""
    if record["matrix"] is None:
        return np.full(GRID.shape, np.nan)
    return Transform("affine", np.array(record["matrix"])).apply(GRID)


def errors_px(runs: list[dict[str, Any]], truths: list[np.ndarray]) -> np.ndarray:
    """Mean distance of each run's grid from the reference; infinite without a transform."""
    apart = [
        np.linalg.norm(places(run) - truth, axis=1).mean() for run, truth in zip(runs, truths, strict=True)
    ]
    return np.nan_to_num(np.array(apart), nan=np.inf)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    cv2.setNumThreads(1)
    pairs = scenes(arguments.sample)
    test = sorted(name for name in pairs if "2021" in name)
    net = sdnet.load(arguments.checkpoint) if arguments.checkpoint else None
    methods = arguments.methods.split(",")
    runs = Runs(arguments.state)
    if net is not None:  # the graphs are compiled outside the measured time
        ours("combined", False, net)(pairs[test[0]])
    functions = {name: ours(name, False, net) for name in methods if name in (*TEMPLATES, *NETWORK)}
    functions |= {name: BASELINES[name] for name in methods if name in BASELINES}
    scene_of = [test[number % len(test)] for number in range(max(arguments.warps, arguments.wide))]
    plain, near = {}, {}
    for name, run in functions.items():
        plain[name] = {
            s: runs.once(f"plain {name} {s}", run, partial(pairs.__getitem__, s))
            for s in dict.fromkeys(scene_of)
        }
        near[name] = [
            runs.once(f"near {name} {n}", run, partial(_warped_pair, pairs, scene_of[n], n, False))
            for n in range(arguments.warps)
        ]
    rows, best = _near_rows(plain, near, scene_of)
    truth = {s: np.mean([places(plain[name][s]) for name in best], axis=0) for s in dict.fromkeys(scene_of)}
    for name in arguments.wide_methods.split(",") if arguments.wide else []:
        found = [
            runs.once(
                f"wide {name} {n}",
                ours(name, True, net),
                partial(_warped_pair, pairs, scene_of[n], n, True),
            )
            for n in range(arguments.wide)
        ]
        truths = [_moved(truth[scene_of[n]], n, True) for n in range(arguments.wide)]
        rows.append(_row(f"{name}, wide", found, errors_px(found, truths)))
    strangers = _strangers(pairs, runs, arguments) if arguments.strangers else {}
    return _result(rows, best, strangers)


def _warped_pair(pairs: dict[str, Pair], scene: str, number: int, wide: bool) -> Pair:
    optical, sar = pairs[scene]
    return optical, warped(sar, warp_of(number, wide))


def _moved(grid: np.ndarray, number: int, wide: bool) -> np.ndarray:
    return Transform("affine", warp_of(number, wide)).apply(grid)


def _near_rows(plain: dict, near: dict, scene_of: list[str]) -> tuple[list[dict], list[str]]:
    """A row per method, and the two methods with the best repeatability under warps."""
    alone = {}
    for name, found in near.items():
        own = [_moved(places(plain[name][scene_of[n]]), n, False) for n in range(len(found))]
        alone[name] = float(np.median(errors_px(found, own)))
    best = sorted((name for name in alone if name in (*TEMPLATES, *NETWORK)), key=lambda name: alone[name])[
        :2
    ]
    rows = []
    for name, found in near.items():
        truths = [
            _moved(np.mean([places(plain[b][scene_of[n]]) for b in best], axis=0), n, False)
            for n in range(len(found))
        ]
        rows.append(_row(name, found, errors_px(found, truths)) | {"own_median_px": round(alone[name], 3)})
    return rows, best


def _row(name: str, found: list[dict[str, Any]], errors: np.ndarray) -> dict[str, Any]:
    trusted = np.array([run["trusted"] for run in found])
    return {
        "method": name,
        "median_px": round(float(np.median(errors)), 3),
        "worst_px": round(float(errors.max()), 2),
        "within_1_px": round(float((errors <= 1).mean()), 3),
        "trusted_and_beyond_3_px": int((trusted & (errors > 3)).sum()),
        "cpu_s": round(float(np.median([run["cpu_s"] for run in found])), 2), "runs": len(found),
    }  # fmt: skip


def _strangers(pairs: dict[str, Pair], runs: Runs, arguments: argparse.Namespace) -> dict[str, Any]:
    """Register squares of two scenes, and for comparison squares of the same place."""
    names, rng = sorted(pairs), np.random.default_rng(11)
    run = ours(arguments.stranger_method, False, None)

    def square(scene: str, sensor: int, corner: np.ndarray) -> np.ndarray:
        top, left = corner * (EDGE - CROP)
        return np.ascontiguousarray(pairs[scene][sensor][top : top + CROP, left : left + CROP])

    def strangers(first: str, second: str, corners: np.ndarray, turns: int) -> Pair:
        return square(first, 0, corners[0]), np.rot90(square(second, 1, corners[1]), turns).copy()

    def same_place(scene: str, corner: np.ndarray) -> Pair:
        return square(scene, 0, corner), square(scene, 1, corner)

    draws: list[tuple[str, str, np.ndarray, int]] = []
    while len(draws) < arguments.strangers:
        first, second = rng.integers(0, len(names), 2)
        corners, turns = rng.integers(0, 2, (2, 2)), int(rng.integers(0, 4))
        if first != second:
            draws.append((names[first], names[second], corners, turns))
    wrong = [
        runs.once(
            f"stranger {arguments.stranger_method} {number}", run,
            partial(strangers, *draw),
        )
        for number, draw in enumerate(draws)
    ]  # fmt: skip
    right = [
        runs.once(
            f"square {arguments.stranger_method} {scene} {corner}", run,
            partial(same_place, scene, _CORNERS[corner]),
        )
        for scene in names
        for corner in range(4)
    ]  # fmt: skip
    return {
        "method": arguments.stranger_method, "wrong_pairs": len(wrong), "right_pairs": len(right),
        "wrong_accepted": sum(run["trusted"] for run in wrong),
        "right_accepted": sum(run["trusted"] for run in right),
        "most_evidence_of_wrong": max(run["evidence"] for run in wrong),
        "least_evidence_of_right": min(run["evidence"] for run in right),
    }  # fmt: skip


def _result(rows: list[dict], best: list[str], strangers: dict[str, Any]) -> dict[str, Any]:
    near = [row for row in rows if row["method"] in (*TEMPLATES, *NETWORK)]
    chosen = min(near, key=lambda row: row["median_px"])
    return {
        "name": "register", "ratio": round(chosen["median_px"] / GOALS["median_px"], 3), "target": 1.0,
        "met": chosen["median_px"] <= GOALS["median_px"] and chosen["within_1_px"] >= GOALS["within_1_px"],
        "truth": best, "goals": GOALS, "rows": rows, "strangers": strangers,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    heads = ("method", "median_px", "worst_px", "within_1_px", "trusted_and_beyond_3_px", "cpu_s", "runs")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in result["rows"]]
    return "\n".join([*lines, "", f"Truth: {', '.join(result['truth'])}. Strangers: {result['strangers']}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sample", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--checkpoint", type=Path, help="for the methods `network` and `combined`")
    parser.add_argument("--warps", type=int, default=20)
    parser.add_argument("--wide", type=int, default=20)
    parser.add_argument("--strangers", type=int, default=1000)
    parser.add_argument("--methods", default=",".join((*TEMPLATES, *BASELINES)))
    parser.add_argument("--wide-methods", default="cfog_mind")
    parser.add_argument("--stranger-method", default="cfog_mind")
    parser.add_argument("--state", type=Path, default=Path("register_runs.jsonl"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments)
    print(json.dumps(result) if arguments.json else table(result))


if __name__ == "__main__":
    main()
