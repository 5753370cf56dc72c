"""What registration compares: hand-crafted channels at every pixel, or SDNet's descriptors at every 8th."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from sdnet.measures import Measure
from sdnet.registration.config import Sensor

if TYPE_CHECKING:
    from sdnet.registration.matching.network import Network


class Features(Protocol):
    """Turns a chip into channels."""

    @property
    def stride(self) -> int:
        """Chip pixels between neighbouring entries of the channels."""

    @property
    def margin(self) -> int:
        """Chip pixels to cut off on each side."""

    def channels(self, grey: np.ndarray, valid: np.ndarray, sensor: Sensor) -> np.ndarray:
        """Float32 [C, h, w] of grey float32 [H, W]; 0 where valid, bool [H, W], is False."""


@dataclass(frozen=True, slots=True)
class Templates:
    """A hand-crafted measure."""

    measure: Measure
    stride: int = 1
    margin: int = 12  # filters are not reliable near the border

    def channels(self, grey: np.ndarray, valid: np.ndarray, sensor: Sensor) -> np.ndarray:
        """The measure's channels, which are the same for both sensors."""
        inside = slice(self.margin, len(grey) - self.margin)
        found = self.measure(grey)[:, inside, inside]
        if valid.all():
            return found
        # The border of the data is an edge in the image but not on the ground.
        quiet = cv2.erode(valid.view(np.uint8), np.ones((5, 5), np.uint8))[inside, inside]
        return found * quiet.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Descriptors:
    """SDNet's dense descriptors."""

    net: "Network"
    stride: int = 8
    margin: int = 0

    def channels(self, grey: np.ndarray, valid: np.ndarray, sensor: Sensor) -> np.ndarray:
        """Descriptors of patches of 64 x 64 px, 8 px apart."""
        found = self.net.dense(grey, sensor)
        if valid.all():
            return found
        share = cv2.blur(valid.astype(np.float32), (64, 64), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
        rows, columns = found.shape[1:]
        return found * (share[:: self.stride, :: self.stride][:rows, :columns] > 0.75)
