"""How folders of image pairs are laid out, and which scene each image belongs to.

The split never cuts a scene: images of one scene may overlap or be neighbours on the ground. The layouts are
described in docs/data.md.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdnet.config import Layout
from sdnet.errors import InputError

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg"})
Sensor = Literal["optical", "sar"]
# Maps the path of an image to its scene, and to the name that it shares with its partner.
Naming = Callable[[Path], tuple[str, str]]

_SEN12_NAME = re.compile(r"(?P<roi>.+)_(?P<sensor>s[12])_(?P<scene>[^_]+)_(?P<patch>p\d+)")
_SENTINELS: dict[str, Sensor] = {"s1": "sar", "s2": "optical"}
_QXSLAB_FOLDERS: dict[str, Sensor] = {"opt_256_oc_0.2": "optical", "sar_256_oc_0.2": "sar"}
_QXSLAB_BLOCK = 1000
# The sensor, as a separate word in the name of a file.
_SENTINEL_NAME = re.compile(r"(?<![0-9A-Za-z])s[12](?![0-9A-Za-z])")
_OSDATASET_PARTS = ("train", "val", "test")
_OSDATASET_NAME = re.compile(r"(opt|sar)_?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a pair. The two images of a pair have the same scene and name."""

    sensor: Sensor
    scene: str
    name: str
    path: Path


def images_of(root: Path, layout: Layout) -> Iterator[Image]:
    """Every image below `root` that belongs to the layout. `auto` uses the only layout that fits.

    Raises InputError for a root that fits none, or several.
    """
    if layout == "auto":
        fitting = [name for name, finds in _LAYOUTS.items() if next(finds(root), None) is not None]
        if len(fitting) > 1:
            raise InputError(
                f"images {root} fits the layouts {' and '.join(fitting)}; "
                "set data.layout to one of them, or give a folder that holds one"
            )
        if not fitting:
            raise InputError(f"images {root} holds no pair (0 optical, 0 SAR images); {_where(root)}")
        return _LAYOUTS[fitting[0]](root)
    return _LAYOUTS[layout](root)


def _where(root: Path) -> str:
    inside = [path.name for path in sorted(root.iterdir()) if path.is_dir() and _fits_any(path)]
    if inside:
        return f"give a folder inside it: {', '.join(inside[:3])}"
    if any(next(image_files(folder), None) is not None for folder in root.glob("s[12]_*")):
        return f"it is one season of SEN1-2; give the folder above it, {root.absolute().parent}"
    return (
        f"{where_images_belong('auto')}, as {', '.join(sorted(SUFFIXES))}; other layouts are in docs/data.md"
    )


def where_images_belong(layout: Layout) -> str:
    """The folders of a layout, for messages."""
    return _PLACES[layout]


def _fits_any(root: Path) -> bool:
    return any(next(finds(root), None) is not None for finds in _LAYOUTS.values())


def _sen12(root: Path) -> Iterator[Image]:
    """`<ROI>_<season>/s1_<scene>/<ROI>_<season>_s1_<scene>_p<k>.png`, and s2 for optical."""
    for prefix, sensor in _SENTINELS.items():
        for folder in root.glob(f"*/{prefix}_*"):
            if not folder.parent.name.startswith("."):
                yield from _files(folder, sensor, _scene_and_name)


def _flat(root: Path) -> Iterator[Image]:
    """Two folders, `s1/` for SAR and `s2/` for optical; partners have equal names."""
    for name, sensor in _SENTINELS.items():
        yield from _files(root / name, sensor, _scene_and_name)


def _qxslab(root: Path) -> Iterator[Image]:
    """QXS-SAROPT: `opt_256_oc_0.2/<number>.png` and `sar_256_oc_0.2/<number>.png`."""

    def block_and_name(path: Path) -> tuple[str, str]:
        if not path.stem.isdecimal():
            raise InputError(f"{path} is not named by a number as in QXS-SAROPT; rename or remove it")
        # Neighbours overlap by a fifth. Names do not say which tiles are neighbours, but those were cut in sequence.
        return f"block_{int(path.stem) // _QXSLAB_BLOCK:02d}", path.stem

    for name, sensor in _QXSLAB_FOLDERS.items():
        yield from _files(root / name, sensor, block_and_name)


def _osdataset(root: Path) -> Iterator[Image]:
    """OSdataset: `train|val|test/opt<number>.png` and `sar<number>.png`, or these in `opt/` and `sar/`.

    Raises InputError for a name of one sensor in the folder of the other.
    """
    for part in _OSDATASET_PARTS:
        for folder in (root / part, root / part / "opt", root / part / "sar"):
            for path in image_files(folder):
                match = _OSDATASET_NAME.fullmatch(path.stem)
                if match:
                    sensor, name = match[1].lower(), f"{part}_{int(match[2])}"
                    if folder.name not in (part, sensor):
                        raise InputError(
                            f"{path} is named {sensor}, but its folder is {folder.name}; rename or move it"
                        )
                    yield Image("optical" if sensor == "opt" else "sar", name, name, path)


_LAYOUTS: dict[Layout, Callable[[Path], Iterator[Image]]] = {
    "sen12": _sen12,
    "flat": _flat,
    "qxslab_saropt": _qxslab,
    "osdataset": _osdataset,
}


_PLACES: dict[Layout, str] = {
    "auto": "SAR belongs in s1_<scene>/ and optical in s2_<scene>/, or in s1/ and s2/, under equal names",
    "sen12": "SAR belongs in <ROI>_<season>/s1_<scene>/, and optical in s2_<scene>/ next to it",
    "flat": "SAR belongs in s1/, and optical in s2/, under equal names",
    "qxslab_saropt": "optical belongs in opt_256_oc_0.2/, and SAR in sar_256_oc_0.2/, under equal numbers",
    "osdataset": "images belong in train/, val/ or test/, optical as opt<number>.png and SAR as sar<number>.png",
}


def _files(folder: Path, sensor: Sensor, naming: Naming) -> Iterator[Image]:
    for path in image_files(folder):
        yield Image(sensor, *naming(path), path)


def image_files(folder: Path) -> Iterator[Path]:
    """Images directly in a folder, without hidden files; none if the folder does not exist."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield path


def _scene_and_name(path: Path) -> tuple[str, str]:
    """Scene and name, by SEN1-2's rule for names. For other names the scene is the part before the last `_`."""
    match = _SEN12_NAME.fullmatch(path.stem)
    if match:
        scene = f"{match['roi']}_{match['scene']}"
        return scene, f"{scene}_{match['patch']}"
    name = _SENTINEL_NAME.sub("s", path.stem)
    return name.rpartition("_")[0] or name, name


def are_swapped(optical: Path, sar: Path) -> bool:
    """Whether the file names of a pair say that each image is in the folder of the other sensor.

    One name alone may differ from its folder: partners in `s1/` and `s2/` may have equal names.
    """
    return set(_SENTINEL_NAME.findall(optical.stem)) == {"s1"} and set(_SENTINEL_NAME.findall(sar.stem)) == {
        "s2"
    }
