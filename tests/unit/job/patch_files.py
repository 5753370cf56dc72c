"""train.npz and test.npz of black patches."""

from pathlib import Path

import numpy as np


def patches(folder: Path, train_labels: list[int], test_labels: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, labels in (("train.npz", train_labels), ("test.npz", test_labels)):
        np.savez(folder / name, np.zeros((len(labels), 64, 128), np.uint8), np.array(labels))
    return folder
