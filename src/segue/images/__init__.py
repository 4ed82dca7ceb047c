"""Files of pixels in and out: images, masks and label maps, whole."""

from segue.images.channels import read_channels
from segue.images.files import (
    IMAGE_SUFFIXES,
    ImageError,
    Raster,
    find_depth_fault,
    find_fault,
    to_grey,
    to_planes,
    white,
    write_image,
)
from segue.images.masks import read_mask
from segue.images.photos import check_image, photo_channels, read_image

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageError",
    "Raster",
    "check_image",
    "find_depth_fault",
    "find_fault",
    "photo_channels",
    "read_channels",
    "read_image",
    "read_mask",
    "to_grey",
    "to_planes",
    "white",
    "write_image",
]
