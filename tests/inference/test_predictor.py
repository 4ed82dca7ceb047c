from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from torch import Tensor
from torch.nn import Conv2d

from helpers.commands import call
from helpers.training import write_camvid
from segue import Labels, Predictor, create_dataset, create_model, evaluate, load_checkpoint, save_checkpoint, train
from segue.checkpoint import Card
from segue.inference import Normalize
from segue.recipes import Recipe

LABELS = Labels.from_names(["dark", "light"])


def threshold(x: Tensor) -> Tensor:
    """A network that needs no training: two classes, parted at the middle grey."""
    return torch.cat([0.5 - x[:, :1], x[:, :1] - 0.5], dim=1)


def predictor(short_side: int = 0) -> Predictor:
    return Predictor(threshold, LABELS, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), short_side)


def half_light(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), 30, np.uint8)
    image[:, width // 2 :] = 220
    return image


@pytest.mark.parametrize("short_side", [0, 16, 64])
@pytest.mark.parametrize("size", [(40, 60), (61, 33)])
def test_the_map_has_the_images_own_size_and_lies_over_it(size: tuple[int, int], short_side: int) -> None:
    mask = predictor(short_side)(half_light(*size))
    assert mask.shape == size
    assert mask.dtype == np.uint8
    truth = half_light(*size)[..., 0] > 128
    assert (mask == truth).mean() > 0.97


def test_the_network_sees_the_side_that_it_was_trained_with() -> None:
    seen = []
    network = lambda x: seen.append(x.shape) or threshold(x)  # noqa: E731
    spy = Predictor(network, LABELS, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), short_side=36)
    spy(half_light(72, 96))
    spy(half_light(96, 72))
    spy(half_light(36, 48))
    assert [tuple(shape[-2:]) for shape in seen] == [(36, 48), (48, 36), (36, 48)]


def test_normalisation_is_value_over_255_less_mean_over_std() -> None:
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 3).repeat(1, 2, 1, 1)
    expected = (image / 255 - torch.tensor([0.1, 0.5]).view(1, 2, 1, 1)) / torch.tensor([2.0, 0.25]).view(1, 2, 1, 1)
    torch.testing.assert_close(Normalize((0.1, 0.5), (2.0, 0.25))(image), expected)


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) of uint8"):
        predictor()(image)


def test_too_small_an_image_is_refused() -> None:
    model = Predictor(create_model("enet", 2), LABELS, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match=r"4 x 9 pixels.*ENet takes 8 x 8 at least"):
        model(np.zeros((4, 9, 3), np.uint8))


def test_a_split_is_scored_as_its_images_one_by_one(tmp_path: Path) -> None:
    samples = create_dataset("camvid", str(write_camvid(tmp_path)), "val")
    network = create_model("enet", 11).eval()
    model = Predictor(network, samples.labels, (0.0,) * 3, (1.0,) * 3)
    right = total = 0
    for sample in (samples[index] for index in range(len(samples))):
        counted = sample["mask"] != 255
        right += (model(sample["image"]) == sample["mask"])[counted].sum()
        total += counted.sum()
    assert evaluate(model, samples).acc == pytest.approx(right / total)


def test_data_of_other_classes_are_refused(camvid: Path) -> None:
    with pytest.raises(ValueError, match=r"knows 2 classes \(dark, light\), but the data have 11"):
        evaluate(predictor(), create_dataset("camvid", str(camvid), "val"))


def test_depth_is_one_more_channel_in_metres() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return threshold(x)

    rgbd = Predictor(network, LABELS, (0.0, 0.0, 0.0, 2.0), (1.0, 1.0, 1.0, 4.0))
    rgbd(half_light(8, 12), np.full((8, 12), 10.0, np.float32))
    assert seen[0].shape == (1, 4, 8, 12)
    torch.testing.assert_close(seen[0][0, 3], torch.full((8, 12), 2.0))
    with pytest.raises(ValueError, match="depth="):
        rgbd(half_light(8, 12))
    with pytest.raises(ValueError, match="depth has the shape"):
        rgbd(half_light(8, 12), np.zeros((4, 4), np.float32))


def test_probabilities_are_the_softmax_whose_largest_is_the_map() -> None:
    image = half_light(9, 14)
    probabilities = predictor().probabilities(image)
    assert probabilities.shape == (2, 9, 14)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=0) == predictor()(image)).all()


def test_monte_carlo_dropout_is_sure_where_dropout_changes_nothing() -> None:
    """The left half's logits pass through dropout, the right half's do not."""

    class HalfSure(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            logits = 4 * threshold(self.norm(x))
            half = x.shape[-1] // 2
            return torch.cat([self.dropout(logits[..., :half]), logits[..., half:]], dim=-1)

    torch.manual_seed(0)
    network = Predictor(HalfSure(), LABELS, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    image = half_light(8, 12)
    mean, variance = network.sampled(image, samples=30)
    assert mean.shape == (2, 8, 12)
    assert (variance[:, :6] > 1e-3).all()
    assert (variance[:, 6:] < 1e-6).all()
    np.testing.assert_allclose(mean[:, :, 6:], network.probabilities(image)[:, :, 6:], rtol=1e-4)
    assert not any(module.training for module in network.network.modules())
    with pytest.raises(ValueError, match="bayesian_segnet"):
        predictor().sampled(image)


def test_a_fourth_channel_is_not_taken_for_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card("enet", LABELS, in_channels=4, mean=(0.0,) * 4, std=(1.0,) * 4, depth=True)
    save_checkpoint(tmp_path / "rgbd", create_model("enet", 2, 4), card)
    image = np.dstack([half_light(16, 24), np.full((16, 24), 255, np.uint8)])
    rgbd = Predictor.load(tmp_path / "rgbd", device="cpu")
    assert rgbd(image[..., :3], np.ones((16, 24), np.float32)).shape == (16, 24)
    for wrong in (image, image[..., :3]):
        with pytest.raises(ValueError, match=r"images of 3 channels and their depth, .* pass it as depth="):
            rgbd(wrong)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", image.astype(np.uint16) * 257, planarconfig="contig")
    for name in ("a.png", "a.tif"):
        assert call(monkeypatch, "predict", tmp_path / "rgbd", tmp_path / name, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert "depth in metres, which is no channel of an image" in said
        assert "Predictor.load(" in said
        assert "TIFF" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("depth", [True, False])
def test_a_training_notes_whether_it_used_depth(depth: bool, tmp_path: Path) -> None:
    image, far = half_light(16, 16), np.ones((16, 16), np.float32)
    mask = (image[..., 0] > 128).astype(np.uint8)
    samples = [{"image": image, "mask": mask, "depth": far}] if depth else [{"image": np.dstack([image, mask]), "mask": mask}]
    recipe = Recipe(
        "own", "folder", epochs=1, batch_size=1, learning_rate=0.1, crop=(16, 16), mean=(0.5,) * 4, std=(0.5,) * 4, workers=0
    )
    module = Conv2d(4, 2, 1)
    train(recipe, tmp_path / "run", train_data=samples, val_data=samples, labels=LABELS, model=module)  # type: ignore[arg-type]
    assert load_checkpoint(tmp_path / "run", Conv2d(4, 2, 1))[1].depth == depth


@pytest.mark.parametrize("name", ["case/flair.nii.gz", "case/flair.NII", "nyu_depth_v2_labeled.mat"])
def test_volumes_are_predicted_in_python(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"volume")
    for given in (path, tmp_path / "data"):
        assert call(monkeypatch, "predict", given, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert f"{path} is no image" in said
        assert "create_dataset(NAME, ROOT, SPLIT); Predictor.load(RUN)(samples[i]['image'])" in said
    PIL.Image.fromarray(half_light(16, 24)).save(tmp_path / "data" / "photo.png")
    assert call(monkeypatch, "predict", tmp_path / "data", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "photo.png").exists()


def reference(model: Predictor, image: np.ndarray, scale: float, mirrored: bool) -> Tensor:
    """The probabilities of one view, by torch alone."""
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()) / 255
    size = [round(scale * side) for side in image.shape[:2]]
    x = torch.nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True) if scale != 1 else x
    with torch.inference_mode():
        logits = model.network(x.flip(-1)).flip(-1) if mirrored else model.network(x)
    return torch.nn.functional.interpolate(logits, size=image.shape[:2], mode="bilinear").softmax(dim=1)[0]


@pytest.mark.parametrize(("name", "seed"), [("enet", 1), ("bisenetv2", 0), ("fanet18", 0)])  # whose classes are apart
def test_several_scales_and_mirror_images_are_averaged(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    network = create_model(name, 5).eval()
    image = np.random.default_rng(0).integers(0, 256, (96, 192, 3), np.uint8)
    labels = Labels.from_names(list("abcde"))
    scales = (1.0, 2.0)
    model = Predictor(network, labels, (0.0,) * 3, (1.0,) * 3, scales=scales, flip=True)
    views = [reference(model, image, scale, mirrored) for scale in scales for mirrored in (False, True)]
    expected = torch.stack(views).mean(dim=0)
    apart = (torch.from_numpy(model.probabilities(image)) - expected).abs().amax(dim=0)
    assert (apart < 2e-3).float().mean() > 0.99  # the reference interpolates twice, which cuts corners
    sure = expected.topk(2, dim=0).values.diff(dim=0).abs()[0].numpy() > 5e-3
    assert sure.mean() > 0.5
    sure &= (apart < 2e-3).numpy()
    assert np.array_equal(model(image)[sure], expected.argmax(dim=0).numpy()[sure])
    mask, confidence = model.with_confidence(image)
    assert np.array_equal(mask, model(image))
    np.testing.assert_allclose(confidence, model.probabilities(image).max(axis=0), rtol=1e-6)


def test_mirrored_images_of_odd_width_come_back_in_place() -> None:
    image = half_light(31, 45)
    model = Predictor(threshold, LABELS, (0.0,) * 3, (1.0,) * 3, flip=True)
    assert np.array_equal(model(image), predictor()(image))


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0, 1.0), (float("nan"),)])
def test_scales_that_are_none_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"scales .*above 0"):
        Predictor(threshold, LABELS, (0.0,) * 3, (1.0,) * 3, scales=scales)


@pytest.mark.parametrize("name", ["enet", "bisenetv2", "fanet18", "segnet_basic"])
def test_the_map_is_that_of_the_networks_logits(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, 5).eval()
    image = np.random.default_rng(0).integers(0, 256, (71, 101, 3), np.uint8)
    mask = Predictor(network, Labels.from_names(list("abcde")), (0.0,) * 3, (1.0,) * 3)(image)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()) / 255)[0]
    best, second = logits.topk(2, dim=0).values
    sure = (best - second > 1e-4).numpy()
    assert sure.mean() > 0.9
    assert np.array_equal(mask[sure], logits.argmax(dim=0).numpy()[sure])
