"""What the papers say of their networks' size and scores."""

from dataclasses import dataclass
from typing import Any

Options = dict[str, Any]
Network = tuple[str, Options]  # a name in MODELS and options


@dataclass(frozen=True)
class Paper:
    """What a docstring does not hold. Figures are from the paper or its authors' code unless their text says otherwise."""

    name: str
    year: int
    classes: int
    channels: int
    size: tuple[int, int]  # height, width at which multiply-adds are counted
    reference: tuple[str, ...]  # parameters and multiply-adds to compare with
    scores: tuple[str, ...]
    held: tuple[str, ...]  # against which definition, and how far it differs in float64


# Published figures by the name of the network's file.
PAPERS = {
    "fcn": Paper(
        "FCN", 2015, 21, 3, (500, 500),
        (
            "The paper: 134 M parameters.",
            "The released graph, counted: 181.37 G multiply-adds for 32s, 181.45 G for 16s, 181.53 G for 8s.",
            "There the last upsampling runs over all pairs of classes, here one of each class alone; the result is the same.",
        ),
        (
            "PASCAL VOC 2011 val, 736 images, mean IU: 32s 59.4, 16s 62.4, 8s 62.7",
            "The released models on the same images: 32s 63.6, 16s 65.0, 8s 65.5, 8s at once 65.4",
            "FCN-8s on test: VOC 2011 62.7, VOC 2012 62.2",
            "NYUDv2, mean IU: RGB 29.2, RGB-D 30.5, RGB-HHA 16s 34.0; SIFT Flow 16s 39.5",
        ),
        (
            "The authors' prototxts interpreted, shelhamer/fcn.berkeleyvision.org 1305c73, voc-fcn32s, 16s, 8s and 8s-atonce, "
            "last upsampling as their surgery.interp fills it: equal to the bit.",
        ),
    ),
    "fcn_alexnet": Paper(
        "FCN-AlexNet", 2015, 21, 3, (500, 500),
        ("The paper: 57 M parameters.", "The released graph, its upsampling over all pairs of classes: 21.42 G."),
        ("PASCAL VOC 2011 val, mean IU: 39.8; with the additional SBD images 48.0",),
        (
            "The authors' prototxt interpreted, shelhamer/fcn.berkeleyvision.org 1305c73, voc-fcn-alexnet: equal to the bit.",
        ),
    ),
    "fcn_googlenet": Paper(
        "FCN-GoogLeNet", 2015, 21, 3, (500, 500),
        (
            "The paper: 6 M parameters.",
            "GoogLeNet with a scoring layer and no padding, counted: 5,995,077 and 8.17 G multiply-adds.",
            "There the upsampling is a convolution over all pairs of classes, here one of each class alone.",
        ),
        ("PASCAL VOC 2011 val, mean IU: 42.5",),
        (
            "BVLC/caffe 9b89154, bvlc_googlenet up to inception_5b, interpreted: 8e-16 of the largest logit.",
            "What stands behind it was never released: scores, kernel and offset are segue's.",
        ),
    ),
    "unet": Paper(
        "U-Net", 2015, 2, 1, (388, 388),
        ("Fig. 1, counted: 31,030,658 parameters, 150.43 G multiply-adds for a tile of 572 x 572, whose output is 388 x 388.",),
        (
            "ISBI 2012 EM, mean over 7 rotated inputs: warping error 0.000353, Rand error 0.0382, pixel error 0.0611",
            "PhC-U373 IoU 0.9203, DIC-HeLa IoU 0.7756",
        ),
        (
            "Fig. 1 restated as a plain graph, with the facts of the released phseg_v5-train.prototxt: equal to the bit.",
            "The variants with same padding and with a trunk are ours; their logits are held against themselves alone.",
        ),
    ),
    "fusionnet": Paper(
        "FusionNet", 2016, 1, 1, (640, 640),
        (
            "The released code, counted with one batch norm a channel: 62,804,545 parameters, 483.4 G multiply-adds.",
            "A network of the paper's figure, with three convolutions in a residual layer, counted: 78,531,649 and 664.9 G.",
        ),
        ("ISBI 2012 EM: sources disagree about the figures, so none is given",),
        (
            "Model.py of tmquan/FusionNet ee91f6f restated layer by layer in TensorFlow 2.15, batch norm over channels with "
            "given statistics: 1e-15 of the largest logit.",
            "Of the paper's form there is no definition that can be run; its logits are held against themselves alone.",
        ),
    ),
    "deconvnet": Paper(
        "DeconvNet", 2015, 21, 3, (224, 224),
        ("The paper: about 252 M parameters.", "The released graph, counted: 251,805,653 and 32.75 G multiply-adds."),
        ("PASCAL VOC 2012 test, mean IU: 69.6, with a CRF 70.5, with FCN-8s (EDeconvNet) 71.7, with both 72.5",),
        (
            "The authors' prototxt interpreted, HyeonwooNoh/DeconvNet 87dd133, DeconvNet_inference_deploy, one window: 5e-16 "
            "of the largest logit.",
        ),
    ),
    "segnet": Paper(
        "SegNet", 2015, 11, 3, (360, 480),
        (
            "The paper: 29.5 M parameters, SegNet-Basic 1.425 M.",
            "The released graphs, counted: 29,449,355 and 106.7 G multiply-adds, SegNet-Basic 1,416,587 and 59.2 G.",
        ),
        (
            "CamVid test, trained on 3,433 further road images: mean IU 60.10, class average 71.20, global 90.40",
            "CamVid test, SegNet-Basic trained on CamVid's 367 images: mean IU 47.7, class average 62.0, global 82.7",
            "SUN RGB-D: mean IU 31.84",
            "Bayesian SegNet, quoted from third parties' tables: CamVid mean IU 63.1, VOC 2012 60.5, SUN RGB-D 30.7",
        ),
        (
            "The authors' prototxts interpreted, alexgkendall/SegNet-Tutorial bb68b64, Models/segnet, segnet_basic and "
            "bayesian_segnet, the dropouts of the last marked: 7e-16 of the largest logit.",
        ),
    ),
    "enet": Paper(
        "ENet", 2016, 20, 3, (360, 640),
        (
            "The authors' code, counted with 20 classes: 364,376 parameters; with 19, 364,311.",
            "The paper, quoted from a third party: 0.37 M parameters, 3.83 GFLOPs; a multiply-add is two of them.",
        ),
        (
            "Cityscapes test: class IU 58.3, category IU 80.4",
            "CamVid test: mean IU 51.3, class average 68.3",
            "SUN RGB-D: mean IU 19.7",
        ),
        (
            "encoder.lua and decoder.lua of e-lab/ENet-training f762144 restated layer by layer, the encoder alone too: 3e-15 "
            "of the largest logit.",
        ),
    ),
    "deeplabv1": Paper(
        "DeepLab v1", 2015, 21, 3, (321, 321),
        (
            "A port of the released LargeFOV, counted: 20,505,429 parameters, 50.93 G multiply-adds.",
            "The paper, not checked against the paper: 20.5 M.",
        ),
        ("PASCAL VOC 2012 test, mean IU of the best released model, with a CRF: 73.6",),
        (
            "A copy of the released prototxt interpreted, DrSleep/tensorflow-deeplab-lfov c9b8d17, util/deploy.prototxt: "
            "1e-15 of the largest logit.",
        ),
    ),
    "deeplabv2": Paper(
        "DeepLab v2", 2016, 21, 3, (513, 513),
        ("A port on ResNet-101, counted at one scale: 44,048,532 parameters, 188.9 G multiply-adds; here at three.",),
        ("PASCAL VOC 2012 val on ResNet-101, mean IU as a faithful port quotes it: 76.35, with a CRF 77.69",),
        (
            "The authors' train.prototxt on ResNet-101 in kinglintianxia/deeplab_v2 745f9bf interpreted: each scale, their "
            "fusion and the enlarged scores, 7e-15 of the largest logit.",
            "The authors' test.prototxt on VGG16 in xmojiao/deeplab_v2 da09c8b interpreted: 3e-16.",
        ),
    ),
    "deeplabv3": Paper(
        "DeepLab v3", 2017, 21, 3, (513, 513),
        ("A port on ResNet-101 at output stride 16, counted: 58,040,661 parameters, 70.2 G multiply-adds.",),
        ("PASCAL VOC 2012 val, mean IU, not checked against the paper: 77.21 at output stride 16, 78.51 at 8",),
        (
            "Trunk and ASPP of a port on ResNet-101 run, jfzhang95/pytorch-deeplab-xception 9135e10, at output stride 8 with "
            "the first 3x3 of the third stage undilated as in the authors' code: equal to the bit at 16 and 8.",
            "The authors' TensorFlow code was run once, in a copy (Huangongshu/deeplab3plus_tf_syncbn 18f7057): 3 to 4 % of "
            "the largest logit, for the place of the strides; with the strides moved 2e-6, in float32.",
        ),
    ),
    "deeplabv3plus": Paper(
        "DeepLab v3+", 2018, 21, 3, (513, 513),
        (
            "A port on ResNet-101, counted: 59,344,309 parameters, 92.0 G multiply-adds.",
            "Xception-65, the authors' zoo: 54.17 G multiply-adds; counted from the authors' graph: 41,055,413 parameters.",
        ),
        (
            "Xception-65, the authors' zoo: VOC 2012 val 82.20, with scales, mirroring and output stride 8 83.58, test 87.80",
            "Xception-65, the authors' zoo: Cityscapes val 78.79, with scales and mirroring 80.42",
            "The paper: VOC 2012 test 89.0 (with JFT), Cityscapes test 82.1",
        ),
        (
            "A port on ResNet-101 run, jfzhang95/pytorch-deeplab-xception 9135e10, at output stride 8 with the first 3x3 of "
            "the third stage undilated as in the authors' code: equal to the bit at 16 and 8.",
            "The authors' TensorFlow code run on Xception-65, in a copy (Huangongshu/deeplab3plus_tf_syncbn 18f7057), its "
            "resizing in float64: 2e-15 of the largest logit.",
        ),
    ),
    "gcn": Paper(
        "GCN", 2017, 21, 3, (512, 512),
        ("A port on ResNet-152, counted: 60,688,084 parameters, 68.3 G multiply-adds for k = 15.",),
        ("PASCAL VOC 2012 test 82.2, Cityscapes test 76.9, mean IU",),
        (
            "The authors published no code. A port run, zijundeng/pytorch-semantic-segmentation 4a1721f, with k = 15 and the "
            "corners of its interpolations not aligned: equal to the bit. As it stands, with aligned corners: 30 % of the "
            "largest logit.",
        ),
    ),
    "dfn": Paper(
        "DFN", 2018, 21, 3, (512, 512),
        (
            "The authors' code, counted: 90,724,344 parameters with 21 classes, 90,217,888 with 19.",
            "280.0 G multiply-adds, where the border network runs in prediction too; here it runs in training alone.",
        ),
        (
            "PASCAL VOC 2012 val: 79.67, with scales and mirroring 80.6; test 82.7, with COCO 86.2",
            "Cityscapes val: 78.5, with scales and mirroring 79.3; test 79.3, with coarse labels 80.3",
        ),
        (
            "The authors' code run, ycszen/TorchSeg 62eeb15, model/dfn/voc.dfn.R101_v1c: all four scores and four borders "
            "equal to the bit.",
        ),
    ),
    "bisenetv1": Paper(
        "BiSeNet", 2018, 19, 3, (768, 1536),
        (
            "The authors' code on ResNet-18, counted: 12,894,163 parameters (13,194,489 with auxiliary heads), 58.3 G.",
            "The authors' code on Xception-39, counted: 1,541,963 (1,842,289), 15.6 G.",
        ),
        (
            "Cityscapes val, ResNet-18: 76.21, with scales and mirroring 78.57; ResNet-101 80.3; Xception-39 70.1 and 72",
            "Cityscapes test, Xception-39: 68.4",
        ),
        (
            "The authors' code run, ycszen/TorchSeg 62eeb15, model/bisenet R18.speed, X39.speed and R101, scores at 1/8 as in "
            "the other settings: main and both auxiliary outputs equal to the bit.",
        ),
    ),
    "bisenetv2": Paper(
        "BiSeNet V2", 2020, 19, 3, (512, 1024),
        (
            "A port, counted: 3,358,627 parameters (5,231,487 with the boosters), 24.60 G multiply-adds.",
            "The paper, not checked against the paper: 21.15 GFLOPs; its head is narrower than the port's, or counted otherwise.",
        ),
        ("Cityscapes test: 72.6, the network run at 512 x 1024",),
        (
            "The authors published no code. A port run, CoinCheung/BiSeNet 6b4b67a, without its three ReLUs that the figures "
            "have not and with bilinear upsampling: all outputs equal to the bit. As it stands: 83 to 95 % of the largest "
            "logit.",
        ),
    ),
    "fanet": Paper(
        "FANet", 2020, 19, 3, (1024, 2048),
        (
            "The authors' code, counted without auxiliary heads: FANet-18 13,820,032 parameters, 47.1 G multiply-adds.",
            "FANet-34: 23,928,192 parameters, 66.5 G. Of both, layers that no prediction uses are left out here.",
            "The paper, not checked against the paper: 49 and 65 G.",
        ),
        ("Cityscapes test: FANet-18 74.4, FANet-34 75.5",),
        (
            "The authors' code run, feinanshan/FANet d4e5e3c, Train/ptsemseg/models/fanet, for FANet-34 with the blocks of "
            "its ResNet-34: main and both auxiliary outputs 2e-15 of the largest logit.",
        ),
    ),
    "rednet": Paper(
        "RedNet", 2018, 37, 4, (480, 640),
        ("The authors' code, counted: 81,970,233 parameters with the side heads, 91.2 G multiply-adds.",),
        ("SUN RGB-D, 37 classes: mean IU 47.8",),
        (
            "The authors' code run, JindongJiang/RedNet 1835eb5: all five outputs equal to the bit.",
        ),
    ),
}  # fmt: skip

# What the papers, their authors' code or many users have as networks of their own, and MODELS has as options.
VARIANTS: list[Network] = [
    ("bisenetv1", {"backbone": "xception39"}),
    ("bisenetv1", {"backbone": "resnet101"}),
    ("deeplabv2", {"backbone": "vgg16"}),
    ("deeplabv3plus", {"backbone": "xception65"}),
    ("enet", {"encoder_only": True}),
    ("fusionnet", {"variant": "paper"}),
    ("gcn", {"k": 7}),
    ("unet", {"backbone": "resnet34"}),
]
