"""Images too large for memory: read, labelled and written in bands of rows."""

from segue.bigimages.labelling import label_file
from segue.bigimages.sources import LARGE, is_large, suffix_for

__all__ = ["LARGE", "is_large", "label_file", "suffix_for"]
