"""Makes synthetic pairs from a seed: the same ground as two sensors see it.

Both images have the same shapes: fields, roads, water and buildings. Their pixel values differ. Each
class has another brightness in each sensor, and in each pair's SAR image, so contrast inverts at
random. Only the optical image has furrows in fields. Buildings have shadows in one image and glare in
the other. SAR has speckle (multiplicative gamma noise, as in intensity images of a few looks). So
patches match by structure, not by value.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from sdnet.config import SyntheticConfig
from sdnet.files import undisturbed, whole_file

SIZE = 256  # edge of an image in pixels, as in SEN1-2
_SEASON = "ROIs0000_synthetic"
_LOOKS = 8
_FIELD_KINDS = 6
_VERSION = 2  # of the pictures that a seed makes


@dataclass(frozen=True, slots=True)
class Ground:
    """A map of the ground, [256, 256] each: `fields` uint8, the kind of field; the others bool."""

    fields: np.ndarray
    borders: np.ndarray
    water: np.ndarray
    roads: np.ndarray
    houses: np.ndarray


def make_pair(seed: int, scene: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Optical uint8 [256, 256, 3] (BGR) and SAR uint8 [256, 256] of one place; pure in its arguments."""
    rng = np.random.Generator(np.random.PCG64([seed, scene, number]))
    fields, borders = _fields(rng)
    ground = Ground(fields, borders, _water(rng), _roads(rng), _houses(rng))
    return _optical(rng, ground), _sar(rng, ground)


def scene_of_each_pair(config: SyntheticConfig) -> list[str]:
    """The scene of each pair of `make_tree`, in the order in which they are made."""
    return [f"{_SEASON}_{index % config.scenes}" for index in range(config.pairs)]


def make_tree(root: Path, config: SyntheticConfig) -> None:
    """Write the pairs as a SEN1-2 tree, `ROIs0000_synthetic/s1_<scene>/...`; does nothing if it exists.

    The tree is complete or absent: it is written next to `root` and renamed. What an earlier, interrupted or
    differently configured run left is removed.
    """
    marker = json.dumps({"version": _VERSION, **asdict(config)}, sort_keys=True)
    stamp = root / "synthetic.json"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == marker:
        return
    for left in root.parent.glob(f".{root.name}.*"):
        shutil.rmtree(left)
    building = root.with_name(f".{root.name}.{os.getpid()}")
    try:
        _write_pairs(building, config)
        (building / stamp.name).write_text(marker, encoding="utf-8")
        os.sync()  # one sync for all: syncing each small file takes longer than making it
        if root.exists():
            shutil.rmtree(root)
        building.rename(root)
    finally:
        with undisturbed():
            shutil.rmtree(building, ignore_errors=True)


def _write_pairs(root: Path, config: SyntheticConfig) -> None:
    for index in range(config.pairs):
        scene, number = index % config.scenes, index // config.scenes + 1
        optical, sar = make_pair(config.seed, scene, number)
        for sensor, image in (("s1", sar), ("s2", optical)):
            folder = root / _SEASON / f"{sensor}_{scene}"
            folder.mkdir(parents=True, exist_ok=True)
            _write_png(folder / f"{_SEASON}_{sensor}_{scene}_p{number}.png", image)


def _fields(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each pixel's field, uint8 [H, W], and the borders between fields, bool [H, W].

    Fields are the Voronoi cells of random points in a plane that is stretched and turned.
    """
    stretch, angle = rng.uniform(0.5, 2.0), rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_image = turn * (stretch, 1 / stretch)
    edge = 4 * SIZE  # a square of this edge covers the image at any rotation
    plane = cv2.Subdiv2D((-edge, -edge, 2 * edge, 2 * edge))
    points = rng.uniform(-SIZE, SIZE, (rng.integers(90, 180), 2))
    plane.insert(points.astype(np.float32).tolist())
    kinds, borders = np.zeros((2, SIZE, SIZE), np.uint8)
    for cell in plane.getVoronoiFacetList([])[0]:
        corners = [np.rint(cell @ to_image.T + SIZE / 2).astype(np.int32)]
        cv2.fillPoly(kinds, corners, int(rng.integers(_FIELD_KINDS)))
        cv2.polylines(borders, corners, True, 1)
    return kinds, borders > 0


def _water(rng: np.random.Generator) -> np.ndarray:
    """A river or a few ponds, bool [H, W]."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    if rng.random() < 0.5:
        x = np.linspace(-10, SIZE + 10, 24)
        y = rng.uniform(40, SIZE - 40) + np.cumsum(rng.normal(0, 9, 24))
        points = np.stack([x, y] if rng.random() < 0.5 else [y, x], axis=1).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, int(rng.integers(6, 16)))
    for _ in range(rng.integers(0, 4)):
        centre = tuple(int(v) for v in rng.integers(0, SIZE, 2))
        axes = tuple(int(v) for v in rng.integers(6, 26, 2))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return canvas > 0


def _roads(rng: np.random.Generator) -> np.ndarray:
    """Straight roads across the image, bool [H, W]."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(2, 6)):
        ends = rng.integers(-40, SIZE + 40, (2, 2))
        ends[0, rng.integers(0, 2)], ends[1, rng.integers(0, 2)] = -20, SIZE + 20
        first, last = (tuple(int(v) for v in end) for end in ends)
        cv2.line(canvas, first, last, 255, int(rng.integers(2, 5)))
    return canvas > 0


def _houses(rng: np.random.Generator) -> np.ndarray:
    """Clusters of small rectangles, bool [H, W]."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(2, 6)):
        middle = rng.uniform(20, SIZE - 20, 2)
        for _ in range(rng.integers(4, 16)):
            centre = tuple(float(v) for v in middle + rng.normal(0, 22, 2))
            size = tuple(float(v) for v in rng.uniform(4, 13, 2))
            box = cv2.boxPoints((centre, size, float(rng.uniform(0, 90))))
            cv2.fillPoly(canvas, [box.astype(np.int32)], 255)
    return canvas > 0


def _optical(rng: np.random.Generator, ground: Ground) -> np.ndarray:
    grey = rng.uniform(60, 190, _FIELD_KINDS).astype(np.float32)[ground.fields] + _clouding(rng, 10)
    across, down = rng.uniform(-1, 1, (2, 1)) * rng.uniform(0.5, 1.5) * np.arange(SIZE)
    grey += 5 * np.sin(np.add.outer(down, across), dtype=np.float32)
    grey[ground.borders] -= rng.uniform(15, 50)
    grey[ground.water] = rng.uniform(20, 60)
    grey[ground.roads] = rng.uniform(150, 230)
    grey[np.roll(ground.houses, (2, 2), axis=(0, 1))] = 30  # shadows, next to the houses drawn below
    grey[ground.houses] = rng.uniform(170, 250)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.7) + 2.5 * rng.standard_normal(grey.shape, np.float32)
    tint = rng.uniform(0.85, 1.1, 3)
    return cv2.merge([cv2.convertScaleAbs(grey.clip(0), alpha=strength) for strength in tint])


def _sar(rng: np.random.Generator, ground: Ground) -> np.ndarray:
    power = rng.uniform(35, 140, _FIELD_KINDS).astype(np.float32)[ground.fields] + _clouding(rng, 8)
    power[ground.borders] += rng.uniform(-30, 60)
    power[ground.water] = rng.uniform(4, 14)
    power[ground.roads] = rng.uniform(12, 35)
    power[ground.houses] = 90
    power[ground.houses & ~np.roll(ground.houses, 2, axis=1)] = 255  # walls that face the radar
    power = cv2.GaussianBlur(power.clip(1), (0, 0), 0.9)
    speckle = rng.standard_gamma(_LOOKS, power.shape, np.float32)
    return cv2.convertScaleAbs(power * speckle, alpha=1 / _LOOKS)


def _clouding(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Slow changes of brightness, float32 [H, W]."""
    coarse = rng.normal(0, strength, (8, 8)).astype(np.float32)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _write_png(path: Path, image: np.ndarray) -> None:
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done, path
    with whole_file(path, sync=False) as file:
        file.write(encoded.tobytes())
