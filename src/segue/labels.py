"""Labels: what the numbers in a mask mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
"""The label that is not trained on and not scored: void, unlabelled, padding. It is 255 everywhere in segue."""

Image = NDArray[np.uint8]
"""(H, W, C), 0 to 255; RGB where C is 3."""

Mask = NDArray[np.uint8]
"""(H, W), one class number for each pixel, or IGNORE."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Labels:
    """The classes of a data set or of a trained network, in the order of their numbers."""

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    """One RGB colour for each class, 0 to 255."""
    categories: tuple[str, ...] = ()
    """The category of each class, where the data set has them (Cityscapes)."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f"names (={len(self.names)} of them) must be 1 to {IGNORE} class names")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"names must differ from each other, but {', '.join(twice)} is there twice")
        if len(self.palette) != len(self.names):
            raise ValueError(f"palette has {len(self.palette)} colours for {len(self.names)} names; give one for each class")
        if self.categories and len(self.categories) != len(self.names):
            raise ValueError(f"categories has {len(self.categories)} entries for {len(self.names)} names; give one for each")

    def __len__(self) -> int:
        return len(self.names)

    def colorize(self, mask: Mask) -> Image:
        """The mask as an RGB picture (H, W, 3); whatever is no class is black."""
        import cv2

        table = np.zeros((256, 1, 3), np.uint8)
        table[: len(self), 0] = self.palette
        return cv2.applyColorMap(mask, table).astype(np.uint8, copy=False)  # NumPy takes eight times as long

    def to_json(self) -> dict[str, Any]:
        return {"names": self.names, "palette": self.palette, "categories": self.categories}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Labels":
        palette = tuple((int(r), int(g), int(b)) for r, g, b in fields["palette"])
        return cls(tuple(fields["names"]), palette, tuple(fields.get("categories", ())))

    @classmethod
    def from_names(cls, names: Sequence[str]) -> "Labels":
        """Labels with colours that are easy to tell apart, for data that brings none."""
        return cls(tuple(names), tuple(distinct_color(i) for i in range(len(names))))


def distinct_color(index: int) -> Color:
    """The colour of class `index` in the PASCAL VOC colour map: the bits of the number, spread over red, green and blue."""
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= ((index + 1) >> (3 * bit + channel) & 1) << (7 - bit)
    return (color[0], color[1], color[2])


Probabilities = NDArray[np.float32]


Confidence = NDArray[np.float32]
