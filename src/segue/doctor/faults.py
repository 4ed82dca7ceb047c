"""What can be wrong with a data set: the kinds of faults, in plain words, each with its way out."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Kind(NamedTuple):
    """What a fault means, how to mend it, and whether nothing can be learnt before that is done."""

    meaning: str
    mending: str
    broken: bool = True


KINDS = {
    "layout": Kind("The files do not lie as the data set needs them.", "Put the files where they belong."),
    "no-description": Kind(
        "There is no segue.yaml, so nobody knows what the numbers in the masks mean.",
        "Put this into a file segue.yaml in that folder, with the names that your classes have:",
    ),
    "no-partner": Kind(
        "These images have no mask, or these masks have no image: a mask must have the name of its image, but for the suffix.",
        "Add what is missing, give both the same name, or move these files away.",
    ),
    "unreadable": Kind("These files cannot be read: they are cut off, empty, or no pictures.", "Copy them anew, or delete them."),
    "unsuitable": Kind(
        "These files are whole, but are not as they must be.", "Mend what is named; there is nothing to copy anew or to delete."
    ),
    "misplaced": Kind(
        "The volumes of a case do not lie on the same voxels, by what their heads say: the labels are not on what they label.",
        "Resample them to the voxels of the first, labels by nearest neighbour; or correct the head that is wrong. The files are "
        "whole: there is nothing to copy anew or to delete.",
    ),
    "size-differs": Kind(
        "An image and its mask have different sizes, so the labels do not lie on what they label.",
        "Export the masks at the size of the images; enlarge or shrink a mask by nearest neighbour alone.",
    ),
    "orientation": Kind(
        "The mask lies a quarter turn beside its image: cameras store a photo lying and note in EXIF how to turn it, which segue "
        "does, and the masks were drawn on the photo as it is stored, or the other way round.",
        "Turn the masks, or save the images as they are stored without their EXIF tag.",
    ),
    "colours": Kind(
        "The masks hold colours, where one number for each pixel is needed.",
        "Take the masks of numbers that the data come with, or write such.",
    ),
    "sixteen-bit": Kind(
        "The masks hold numbers that are not 0 to 255 and not mapped; class numbers are 0 to 254, and 255 is what is ignored.",
        "Say in segue.yaml what they mean, in mapping or in ignore, or write class numbers in their place.",
    ),
    "jpeg-mask": Kind(
        "The masks are JPEGs, which blur numbers as they blur colours: at every edge stand labels that nobody has drawn.",
        "Export them anew as PNG. To save them as PNG now does not bring back what was there.",
    ),
    "anti-aliased": Kind(
        "Numbers between two labels lie along the edges: the masks were drawn with smooth edges, resized with blending, or were "
        "JPEGs once.",
        "Export them anew without smoothing, and resize masks by nearest neighbour alone.",
    ),
    "one-class": Kind(
        "There is one class alone, so a network has nothing to tell it from: all is that class, and the score is always 100.",
        "Name what is around it as a class of its own.",
    ),
    "off-by-one": Kind("The labels are counted from 1, but classes are counted from 0.", "Take 1 from each label."),
    "background-is-a-class": Kind(
        "There is one label more than there are names. Either 0 is background, which has no name, so that each class would be "
        "taken for the one before it; or the last label is void, and the others are right.",
        "Only you know which it is. Name the background as the first class; or ignore it, and take 1 from each label; or "
        "ignore the last label.",
    ),
    "zero-255": Kind(
        "The masks are black and white, 0 and 255; but 255 is what is ignored, so a class that it stands for is never learnt.",
        "Write 1 where the masks have 255.",
    ),
    "label-ids": Kind(
        "The masks hold the 34 label ids of Cityscapes, where the 19 training ids are needed.",
        "Take the files *_labelTrainIds.png, or map the ids.",
    ),
    "train-ids": Kind(
        "The masks hold Cityscapes' training ids, where its label ids are needed.", "Take the files *_labelIds.png."
    ),
    "unknown-label": Kind("The masks hold labels that are no class.", "Correct the masks."),
    "empty-mask": Kind(
        "These masks hold nothing: the labelling was forgotten, or there is nothing to see.", "Look at them.", False
    ),
    "class-missing": Kind("A class never occurs, so it cannot be learnt.", "Add images that show it.", False),
    "class-only-in-val": Kind(
        "A class occurs in validation alone, so it is asked for but never learnt.", "Move some of its images to train.", False
    ),
    "duplicate": Kind(
        "The same image is in train and in validation, so the score tells what was learnt by heart.",
        "Delete it from one of the two.",
        False,
    ),
}
"""By name. Those which are not `broken` are told before a training, which goes on."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where."""

    name: str
    """One of KINDS."""
    files: Sequence[str] = ()
    found: str = ""
    """What was found here, a sentence."""
    mending: str = ""
    """The way out here, where it is known better than the kind's."""
    lines: str = ""
    """Lines for segue.yaml that mend it, or a table."""
    stops: bool | None = None
    """Whether nothing can be learnt before this is mended, where that is known better than the kind's `broken`."""

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def broken(self) -> bool:
        return self.kind.broken if self.stops is None else self.stops

    @property
    def way_out(self) -> str:
        return self.mending or self.kind.mending

    def sentence(self) -> str:
        """The fault in one line."""
        where = f"{some(self.files)}: " if self.files else ""
        lines = "; ".join(self.lines.splitlines())
        return f"{self.name}: {where}" + " ".join(filter(None, (ended(self.found) or self.kind.meaning, self.way_out, lines)))

    def page(self, width: int = 100) -> str:
        """The fault in some lines, for a terminal."""
        text = [f"{self.name}{': ' + some(self.files) if self.files else ''}"]
        for paragraph in (f"{self.kind.meaning} {ended(self.found)}", self.way_out):
            text += textwrap.wrap(
                paragraph, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
        return "\n".join(text + [f"      {line}" for line in self.lines.splitlines()])


def ended(words: str) -> str:
    """With a full stop."""
    return words if not words or words.endswith(".") else f"{words}."


def some(files: Sequence[str], shown: int = 3) -> str:
    """How many files, and the first of them."""
    count = f"{len(files)} files: " if len(files) > 1 else ""
    more = f" and {len(files) - shown} more" if len(files) > shown else ""
    return f"{count}{', '.join(files[:shown])}{more}"
