"""The table of recipes: what to train on what, with the values of the papers, and small ones for a laptop.

Where a paper counts steps, an epoch is the split's number of images over the batch size. [code] marks what the authors' code
says, [ours] what nothing published says. Scales are drawn from the whole range, where some papers choose among a few.
"""

from dataclasses import replace

from segue.recipes.recipe import Recipe
from segue.suggest import did_you_mean

__all__ = ["RECIPES", "Recipe", "get_recipe"]

# Of torchvision's weights, which want RGB from 0 to 1; Caffe's and TensorFlow's trunks had their own.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Section 5.1 and [code]: 300 epochs for each of the two stages.
ENET_CAMVID = Recipe(
    network="enet", data="camvid", epochs=300, batch_size=10, optimizer="adam", learning_rate=5e-4, weight_decay=2e-4,
    loss="weights", class_weights="enet", crop=(360, 480),
)  # fmt: skip

# [code]: the summed loss of whole images, one at a time; 100,000 steps. Bias lr x2 and no decay of biases are Caffe's custom.
# Images smaller than the crop lie somewhere in it, with void around them [ours].
FCN_VOC = Recipe(
    network="fcn32s", data="voc", split="train_aug", epochs=10, batch_size=1, optimizer="sgd", learning_rate=1e-10, momentum=0.99,
    weight_decay=5e-4, decay="weights", bias_rate=2, loss="sum", crop=(500, 500), flip=False, mean=MEAN, std=STD,
    classifier="imagenet",
)  # fmt: skip
# CVPR, section 4.3: the averaged loss over 20 images, at least 175 epochs.
FCN_AVERAGED = replace(FCN_VOC, epochs=175, batch_size=20, learning_rate=1e-4, momentum=0.9, loss="mean")

# [code]: 40,000 steps of 4 images; labels balanced by median frequency. The paper trains on whole images, without augmentation.
SEGNET_CAMVID = Recipe(
    network="segnet", data="camvid", epochs=435, batch_size=4, optimizer="sgd", learning_rate=1e-3, weight_decay=5e-4,
    decay="weights", bias_rate=2, class_weights="median_frequency", crop=(360, 480), flip=False, mean=MEAN, std=STD,
    classifier="imagenet",
)  # fmt: skip

# Section 4.2 with 64 windows a step; lr .01 falls to a tenth every 10,000 of 40,000 steps [code]. The first stage sees one object
# in the middle of each window. In place of edge boxes, the second sees windows at random places and sizes [ours].
DECONVNET_VOC = Recipe(
    network="deconvnet", data="voc", split="train_aug", before="deconvnet-voc-objects", epochs=242, batch_size=64,
    optimizer="sgd", learning_rate=0.01, weight_decay=5e-4, decay="weights", bias_rate=2, schedule="step", step_epochs=60,
    crop=(224, 224), scale=(0.4, 2.0), mean=MEAN, std=STD, classifier="imagenet",
)  # fmt: skip

# Section 3: batch 1, momentum .99, elastic deformation by 10 pixels. The rate is not published [ours].
UNET_EM = Recipe(
    network="unet", data="em", epochs=2000, batch_size=1, optimizer="sgd", learning_rate=1e-4, momentum=0.99, crop=(388, 388),
    rotate=180, elastic=10, mean=(0.0,), std=(1.0,),
)  # fmt: skip

# For two cores: a quarter of the width, batch norm, one cycle of the learning rate, turns and mirror images [ours].
UNET_EM_FAST = replace(
    UNET_EM, options={"width": 16, "batch_norm": True}, epochs=160, batch_size=4, optimizer="adam", learning_rate=1e-3,
    momentum=0.9, schedule="one_cycle", crop=(256, 256), jitter=0.2, mean=(0.5,), std=(0.25,), validate_every=20,
)  # fmt: skip
# Batches of mixed stains upset batch norm's statistics, and class weights fatten nuclei: the second stage is without both.
UNET_NUCLEI_START = replace(
    UNET_EM_FAST, data="nuclei", options={"width": 16, "batch_norm": True, "padding": "same"}, epochs=32,
    class_weights="median_frequency", border_weights=True, scale=(0.8, 1.25), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    validate_every=8,
)  # fmt: skip
UNET_NUCLEI_FAST = replace(
    UNET_NUCLEI_START, before="unet-nuclei-start", epochs=16, learning_rate=5e-4, class_weights="none", freeze_norms=True,
    validate_every=4,
)  # fmt: skip

# [ours]: half as wide; the data set has normalised the channels. Left and right are alike.
UNET_ISLES = replace(
    UNET_EM, data="isles", options={"width": 32}, epochs=100, batch_size=8, optimizer="adam", learning_rate=3e-4, momentum=0.9,
    schedule="poly", class_weights="median_frequency", crop=(244, 244), rotate=15, mean=(0.0,) * 5, std=(1.0,) * 5,
)  # fmt: skip

# [code]: prototxt of LargeFOV, 6,000 steps of 30 images.
DEEPLABV1_VOC = Recipe(
    network="deeplabv1", data="voc", split="train_aug", epochs=17, batch_size=30, optimizer="sgd", learning_rate=1e-3,
    weight_decay=5e-4, decay="weights", bias_rate=2, new_layers=10, schedule="step", step_epochs=6, crop=(321, 321), mean=MEAN,
    std=STD, classifier="imagenet",
)  # fmt: skip
# Of a port that repeats the authors' scores: 20,000 steps; the loss is the sum over three scales and their maximum.
DEEPLABV2_VOC = replace(
    DEEPLABV1_VOC, network="deeplabv2", epochs=19, batch_size=10, learning_rate=2.5e-4, schedule="poly", scale=(0.5, 1.5),
    freeze_norms=True,
)  # fmt: skip
# Section 4.1 and [code]: 30,000 steps at output stride 16; then the same at 8 from there, with the batch norms fixed.
DEEPLABV3_VOC = Recipe(
    network="deeplabv3", data="voc", split="train_aug", epochs=45, batch_size=16, optimizer="sgd", learning_rate=0.007,
    weight_decay=1e-4, decay="weights", schedule="poly", crop=(513, 513), scale=(0.5, 2.0), mean=MEAN, std=STD,
    classifier="imagenet",
)  # fmt: skip

# Section 4: batch 1, momentum .99; the rate and its schedule are not published [ours].
GCN_VOC = Recipe(
    network="gcn", data="voc", split="train_aug", epochs=30, batch_size=1, optimizer="sgd", learning_rate=1e-4, momentum=0.99,
    weight_decay=5e-4, schedule="poly", crop=(512, 512), mean=MEAN, std=STD, classifier="imagenet",
)  # fmt: skip

# [code]: 120 epochs; cross entropy at four stages and .1 of the focal loss at four borders.
DFN_VOC = Recipe(
    network="dfn", data="voc", split="train_aug", epochs=120, batch_size=32, optimizer="sgd", learning_rate=8e-4,
    weight_decay=1e-5, decay="weights", new_layers=10, schedule="poly", border=0.1, crop=(512, 512), scale=(0.5, 2.0), mean=MEAN,
    std=STD, classifier="imagenet",
)  # fmt: skip

# [code]: 80,000 steps of 16 crops, hard examples at all three outputs.
BISENETV1_CITYSCAPES = Recipe(
    network="bisenetv1", data="cityscapes", epochs=430, batch_size=16, optimizer="sgd", learning_rate=1e-2, weight_decay=5e-4,
    decay="weights", new_layers=10, schedule="poly", loss="ohem", crop=(1024, 1024), scale=(0.75, 2.0), mean=MEAN, std=STD,
    classifier="imagenet",
)  # fmt: skip

# [code]: the released settings, which are for another data set; 40,000 steps.
FANET_CITYSCAPES = Recipe(
    network="fanet18", data="cityscapes", epochs=215, batch_size=16, optimizer="sgd", learning_rate=1e-2, weight_decay=5e-4,
    schedule="poly", warmup=1000, loss="ohem", auxiliary=0.5, crop=(384, 384), scale=(0.5, 2.0), rotate=5, jitter=0.5, mean=MEAN,
    std=STD, classifier="imagenet",
)  # fmt: skip

# Section 4.1 and [code]: five scales, each with median-frequency weights; 1,500 epochs; the decay is the paper's, the code has
# 1e-4. Depth's mean and deviation are those of the code in metres: 19050 and 9650, 8 a millimetre. Jitter stands for its changes
# of hue.
REDNET_SUNRGBD = Recipe(
    network="rednet", data="sunrgbd", split="trainval", epochs=1500, batch_size=5, optimizer="sgd", learning_rate=2e-3,
    weight_decay=4e-4, schedule="step", step_epochs=100, step_factor=0.8, class_weights="median_frequency", short_side=480,
    crop=(480, 640), scale=(1.0, 1.4), jitter=0.1, mean=(*MEAN, 2.38125), std=(*STD, 1.20625), classifier="imagenet",
)  # fmt: skip

# Drawn scenes, for a first run without any data: whole ones, 120 x 160, so that the layout of a street helps.
ENET_STREETS = replace(
    ENET_CAMVID, data="streets", epochs=12, batch_size=8, optimizer="adamw", learning_rate=5e-3, weight_decay=1e-2,
    schedule="one_cycle", enet_c=1.1, crop=(120, 160), validate_every=12, workers=1, minutes=1.9,
)  # fmt: skip
# The same for the other networks, each with its own loss; narrow where the paper's is too large for two cores.
STREETS = replace(
    ENET_STREETS, learning_rate=2e-3, loss="mean", class_weights="none", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), minutes=0
)
CELLS = replace(
    STREETS, data="cells", batch_size=4, epochs=8, learning_rate=1e-3, crop=(128, 128), mean=(0.5,), std=(0.25,), validate_every=8
)

RECIPES: dict[str, Recipe] = {
    "bayesian_segnet-camvid": replace(SEGNET_CAMVID, network="bayesian_segnet", epochs=652),
    "bisenetv1-cityscapes": BISENETV1_CITYSCAPES,
    # For two cores: a small trunk with ImageNet weights, half the resolution, one cycle of the learning rate.
    "bisenetv1-camvid-fast": replace(
        BISENETV1_CITYSCAPES, data="camvid", options={"backbone": "tf_efficientnet_lite0"}, epochs=60, batch_size=8,
        optimizer="adamw", learning_rate=5e-4, weight_decay=1e-2, new_layers=5, schedule="one_cycle", crop=(192, 256),
        scale=(0.5, 1.5), jitter=0.25, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), validate_every=10,
    ),
    "bisenetv1-streets": replace(STREETS, network="bisenetv1", options={"backbone": "xception39"}, loss="ohem"),
    # From third parties, who quote the paper: 150,000 steps from scratch, of crops at half the resolution.
    "bisenetv2-cityscapes": replace(
        BISENETV1_CITYSCAPES, network="bisenetv2", epochs=807, learning_rate=5e-2, new_layers=1, warmup=1000, crop=(512, 1024),
        scale=(0.125, 1.0), classifier="",
    ),
    "bisenetv2-streets": replace(STREETS, network="bisenetv2", loss="ohem"),
    "deconvnet-streets": replace(
        STREETS, network="deconvnet", options={"width": 16}, epochs=8, short_side=224, crop=(224, 224), validate_every=8
    ),
    "deconvnet-voc": DECONVNET_VOC,
    "deconvnet-voc-objects": replace(
        DECONVNET_VOC, before="", epochs=120, step_epochs=54, objects=True, scale=(1.0, 1.0)
    ),
    "deeplabv1-streets": replace(STREETS, network="deeplabv1", options={"width": 16}, crop=(121, 161)),
    "deeplabv1-voc": DEEPLABV1_VOC,
    "deeplabv2-voc": DEEPLABV2_VOC,
    "deeplabv3-voc": replace(
        DEEPLABV3_VOC, before="deeplabv3-voc-16", options={"output_stride": 8}, learning_rate=1e-3, freeze_norms=True
    ),
    "deeplabv3-voc-16": replace(DEEPLABV3_VOC, options={"output_stride": 16}),
    "deeplabv3plus-cityscapes": replace(
        DEEPLABV3_VOC, network="deeplabv3plus", data="cityscapes", split="train", epochs=484, crop=(769, 769)
    ),
    "deeplabv3plus-streets": replace(STREETS, network="deeplabv3plus", options={"backbone": "resnet18"}, crop=(121, 161)),
    "deeplabv3plus-voc": replace(DEEPLABV3_VOC, network="deeplabv3plus"),
    "dfn-cityscapes": replace(
        DFN_VOC, data="cityscapes", split="train", epochs=430, batch_size=16, learning_rate=7e-4, weight_decay=1e-4,
        crop=(800, 800),
    ),
    "dfn-streets": replace(STREETS, network="dfn", options={"backbone": "resnet18", "width": 64}),
    "dfn-voc": DFN_VOC,
    "enet-camvid": replace(ENET_CAMVID, before="enet-camvid-encoder"),
    "enet-camvid-encoder": replace(ENET_CAMVID, options={"encoder_only": True}, enet_c=1.2),
    # For two cores: softer weights, more varied crops, one cycle of the learning rate.
    "enet-camvid-fast": replace(
        ENET_CAMVID, epochs=150, optimizer="adamw", learning_rate=4e-3, weight_decay=1e-2, schedule="one_cycle", enet_c=1.1,
        crop=(184, 240), scale=(0.5, 1.5), jitter=0.25, validate_every=10,
    ),
    "enet-streets": ENET_STREETS,
    "fanet18-cityscapes": FANET_CITYSCAPES,
    "fanet18-streets": replace(STREETS, network="fanet18", loss="ohem", auxiliary=0.5),
    "fanet34-cityscapes": replace(FANET_CITYSCAPES, network="fanet34"),
    "fcn32s-voc": FCN_VOC,
    "fcn16s-voc": replace(FCN_VOC, network="fcn16s", before="fcn32s-voc", learning_rate=1e-12),
    "fcn8s-voc": replace(FCN_VOC, network="fcn8s", before="fcn16s-voc", learning_rate=1e-14),
    "fcn8s_atonce-voc": replace(FCN_VOC, network="fcn8s_atonce", epochs=28),
    "fcn32s-voc-averaged": FCN_AVERAGED,
    "fcn16s-voc-averaged": replace(
        FCN_AVERAGED, network="fcn16s", before="fcn32s-voc-averaged", learning_rate=1e-6
    ),
    "fcn8s-voc-averaged": replace(
        FCN_AVERAGED, network="fcn8s", before="fcn16s-voc-averaged", learning_rate=1e-8
    ),
    # torchvision's AlexNet and GoogLeNet are other networks than Caffe's, whose weights are not at hand.
    "fcn32s_alexnet-voc": replace(
        FCN_AVERAGED, network="fcn32s_alexnet", options={"trunk": "torchvision"}, learning_rate=1e-3
    ),
    "fcn32s_googlenet-voc": replace(
        FCN_AVERAGED, network="fcn32s_googlenet", options={"trunk": "torchvision"}, learning_rate=5e-5, mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "fcn8s-streets": replace(STREETS, network="fcn8s", options={"width": 8}, loss="sum"),
    "fusionnet-cells": replace(CELLS, network="fusionnet", options={"width": 16}, loss="absolute"),
    # [code]: absolute error, Nadam at 1e-4 (Adam here), bending by up to 8 pixels (on a finer grid), turns and mirror images.
    # Left out: noise; images of 0 to 255, where ours go to 1.
    "fusionnet-em": replace(
        UNET_EM, network="fusionnet", optimizer="adam", learning_rate=1e-4, momentum=0.9, loss="absolute", crop=(512, 512),
        elastic=8,
    ),
    # With the absolute error of its paper and this rate it called everything cell, and learned nothing more.
    "fusionnet-em-fast": replace(UNET_EM_FAST, network="fusionnet", options={"width": 16}, epochs=80),
    "gcn-streets": replace(STREETS, network="gcn", options={"backbone": "resnet18", "k": 7}),
    "gcn-voc": GCN_VOC,
    # [ours]: as on SUN RGB-D, whose paper has no NYUv2; the depth's mean and deviation are those of ESANet's code, in metres.
    "rednet-nyuv2": replace(REDNET_SUNRGBD, data="nyuv2", mean=(*MEAN, 2.84), std=(*STD, 1.42)),
    "rednet-streets": replace(
        STREETS, network="rednet", options={"backbone": "resnet18"}, class_weights="median_frequency", mean=(0.5, 0.5, 0.5, 40.0),
        std=(0.25, 0.25, 0.25, 60.0),
    ),
    "rednet-sunrgbd": REDNET_SUNRGBD,
    "segnet-camvid": SEGNET_CAMVID,
    "segnet-streets": replace(STREETS, network="segnet", options={"width": 16}, class_weights="median_frequency"),
    # Section 4 and [code]: lr .1, 10,000 steps of 12 images. Its normalisation of the input wants values up to 255.
    "segnet_basic-camvid": replace(
        SEGNET_CAMVID, network="segnet_basic", epochs=327, batch_size=12, learning_rate=0.1, mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255), classifier="",
    ),
    "unet-brats": replace(UNET_ISLES, data="brats", epochs=20, crop=(228, 228), mean=(0.0,) * 4, std=(1.0,) * 4),
    "unet-cells": replace(
        CELLS, network="unet", options={"width": 16}, class_weights="median_frequency", border_weights=True, elastic=4
    ),
    "unet-em": UNET_EM,
    "unet-em-fast": UNET_EM_FAST,
    "unet-isles": UNET_ISLES,
    "unet-nuclei": replace(
        UNET_EM, data="nuclei", class_weights="median_frequency", border_weights=True, crop=(228, 228), mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
    "unet-nuclei-fast": UNET_NUCLEI_FAST,
    "unet-nuclei-start": UNET_NUCLEI_START,
}  # fmt: skip


def get_recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError with the nearest names if there is none."""
    if name not in RECIPES:
        raise ValueError(f'no recipe "{name}"{did_you_mean(name, RECIPES)}')
    return RECIPES[name]
