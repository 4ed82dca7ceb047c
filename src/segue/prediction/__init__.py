"""Files in, files out: images, large images, videos."""

from segue.prediction.images import label_files
from segue.prediction.large_images import label_file
from segue.prediction.video import label_video

__all__ = ["label_file", "label_files", "label_video"]
