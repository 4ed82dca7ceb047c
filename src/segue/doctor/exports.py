"""Exports of annotation tools, told by how they name their files, with the way to a folder that can be trained on."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segue.images import IMAGE_SUFFIXES

LABEL_STUDIO = re.compile(r"task-\d+-annotation-\d+-by-\d+-tag-(.+)-\d+")


def beside_images(root: Path) -> str:
    """What to say of folders in which masks lie beside their images as NAME_mask.png, as Roboflow exports them; else nothing."""
    for folder in sorted([root, *root.glob("*/")]):
        files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
        masks = {path.stem for path in files if path.stem.endswith("_mask")}
        images = {path.stem for path in files} - masks
        if masks and {f"{stem}_mask" for stem in images} == masks:
            names = "; the names stand in _classes.csv, in the order of their numbers" * (folder / "_classes.csv").exists()
            return (
                f". These are masks NAME_mask.png beside images NAME, as Roboflow exports them: put the images of {folder.name} "
                f"into {folder.name}/images, and the masks into {folder.name}/masks without _mask at the end of their names; "
                f"call the folder valid val{names}"
            )
    return ""


def several_a_class(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str]:
    """What is found, and the way out, where each image has several masks, one a class; else two empty texts. Both: stems."""
    tags = [match[1] for mask in masks if (match := LABEL_STUDIO.fullmatch(mask))]
    if masks and len(tags) > 0.9 * len(masks):
        found = (
            f"The masks are named as Label Studio exports them: by the number of their task and by their class ({listed(tags)}), "
            "each of one class alone."
        )
        return found, (
            "Merge those of each task into one mask of class numbers, with the name of its image: which image a task has stands "
            "in the JSON export of the same project, by the id of the task."
        )
    ends = [(image, mask[len(image) :]) for image in images for mask in masks if mask.startswith(image)]
    kinds = Counter(end for _, end in ends if re.match(r"[^0-9a-zA-Z]+.", end))
    common = [end for end, count in kinds.items() if count > 0.5 * len(images)]
    if len(images) < 2 or len(common) < 2:
        return "", ""
    found = f"Each image has several masks, one a class: NAME{common[0]}, NAME{common[1]}{' and so on' * (len(common) > 2)}."
    return found, "Merge those of each image into one mask of class numbers, with the name of the image: 0 where none of them is."


def listed(names: Sequence[str]) -> str:
    kinds = sorted({*names})
    return ", ".join(kinds[:4]) + ", ..." * (len(kinds) > 4)
