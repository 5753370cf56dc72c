"""Pairs made up from a seed: one ground, seen by two sensors that disagree about it.

Fields, roads, water and buildings have a shape that both images share. What a pixel shows does
not: each class has another brightness in each sensor (and another one in each pair's SAR image,
so contrast inverts at random), fields have furrows only the optical sensor sees, buildings
throw shadows in one and glare in the other, and SAR carries speckle (multiplicative gamma noise
of a few looks, as in intensity images of several looks). So patches match by structure, not by
value.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from sdnet.config import SyntheticConfig

SIZE = 256  # edge of an image in pixels, as in SEN1-2
_LOOKS = 8
_FIELD_KINDS = 6
_VERSION = 1  # of the pictures that a seed makes


def make_pair(seed: int, scene: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Optical uint8 [256, 256, 3] (BGR) and SAR uint8 [256, 256] of one place; pure in its arguments."""
    rng = np.random.Generator(np.random.PCG64([seed, scene, number]))
    fields, borders = _fields(rng)
    water, roads, houses = _water(rng), _roads(rng), _houses(rng)
    return _optical(rng, fields, borders, water, roads, houses), _sar(
        rng, fields, borders, water, roads, houses
    )


def make_tree(root: Path, config: SyntheticConfig) -> None:
    """Write the pairs as a SEN1-2 tree, `ROIs0000_synthetic/s1_<scene>/...`; does nothing when it is there.

    The tree appears whole: it is written beside `root` and renamed, after what an earlier,
    interrupted or differently configured run left has been removed.
    """
    marker = json.dumps({"version": _VERSION, **asdict(config)}, sort_keys=True)
    stamp = root / "synthetic.json"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == marker:
        return
    building = root.with_name(f".{root.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    for index in range(config.pairs):
        scene, number = index % config.scenes, index // config.scenes + 1
        optical, sar = make_pair(config.seed, scene, number)
        for sensor, image in (("s1", sar), ("s2", optical)):
            folder = building / "ROIs0000_synthetic" / f"{sensor}_{scene}"
            folder.mkdir(parents=True, exist_ok=True)
            _write_png(folder / f"ROIs0000_synthetic_{sensor}_{scene}_p{number}.png", image)
    (building / stamp.name).write_text(marker, encoding="utf-8")
    if root.exists():
        shutil.rmtree(root)
    building.rename(root)


def _fields(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each field's pixel, int [H, W], and where fields meet, bool [H, W]: cells of random points."""
    count = rng.integers(14, 30)
    points = rng.uniform(-20, SIZE + 20, (count, 2)).astype(np.float32)
    stretch = rng.uniform(0.5, 2.0)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = (columns * np.cos(angle) - rows * np.sin(angle)) * stretch
    best = np.full((SIZE, SIZE), np.inf, np.float32)
    second = best.copy()
    owner = np.zeros((SIZE, SIZE), np.int64)
    for index, (y, x) in enumerate(points):
        a = y * np.cos(angle) + x * np.sin(angle)
        b = (x * np.cos(angle) - y * np.sin(angle)) * stretch
        distance = np.abs(along - a) + np.abs(across - b)
        second = np.minimum(second, np.maximum(best, distance))
        owner[distance < best] = index
        best = np.minimum(best, distance)
    kinds = rng.integers(0, _FIELD_KINDS, count)
    return kinds[owner], second - best < 2.0


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


def _optical(
    rng: np.random.Generator,
    fields: np.ndarray,
    borders: np.ndarray,
    water: np.ndarray,
    roads: np.ndarray,
    houses: np.ndarray,
) -> np.ndarray:
    grey = rng.uniform(60, 190, _FIELD_KINDS)[fields] + _clouding(rng, 10)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    furrows = np.sin((rows * rng.uniform(-1, 1) + columns * rng.uniform(-1, 1)) * rng.uniform(0.5, 1.5))
    grey += 5 * furrows
    grey[borders] -= rng.uniform(15, 50)
    grey[water] = rng.uniform(20, 60)
    grey[roads] = rng.uniform(150, 230)
    shadow = np.roll(houses, (2, 2), axis=(0, 1)) & ~houses
    grey[shadow] = 30
    grey[houses] = rng.uniform(170, 250)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.7) + rng.normal(0, 2.5, grey.shape)
    tint = rng.uniform(0.85, 1.1, 3)
    return np.clip(grey[..., None] * tint, 0, 255).astype(np.uint8)


def _sar(
    rng: np.random.Generator,
    fields: np.ndarray,
    borders: np.ndarray,
    water: np.ndarray,
    roads: np.ndarray,
    houses: np.ndarray,
) -> np.ndarray:
    power = rng.uniform(35, 140, _FIELD_KINDS)[fields] + _clouding(rng, 8)
    power[borders] += rng.uniform(-30, 60)
    power[water] = rng.uniform(4, 14)
    power[roads] = rng.uniform(12, 35)
    power[houses] = 90
    glare = houses & ~np.roll(houses, 2, axis=1)  # walls that face the radar
    power[glare] = 255
    power = cv2.GaussianBlur(np.maximum(power, 1), (0, 0), 0.9)
    speckle = rng.gamma(_LOOKS, 1 / _LOOKS, power.shape)
    return np.clip(power * speckle, 0, 255).astype(np.uint8)


def _clouding(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Slow changes of brightness, float64 [H, W]."""
    coarse = rng.normal(0, strength, (8, 8))
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _write_png(path: Path, image: np.ndarray) -> None:
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done, path
    path.write_bytes(encoded.tobytes())
