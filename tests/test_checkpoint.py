import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from segue import Labels, create_model, load_checkpoint, save_checkpoint
from segue.checkpoint import Card, find_checkpoint

LABELS = Labels(("road", "sky"), ((128, 64, 128), (70, 130, 180)), ("flat", "sky"))
CARD = Card(
    "enet", LABELS, in_channels=4, mean=(0.1, 0.2, 0.3, 0.4), std=(1.0, 2.0, 3.0, 4.0), short_side=96, training={"seed": 3}
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "best", create_model("enet", 2, 4), CARD)
    return tmp_path / "best"


def test_a_checkpoint_brings_back_the_network_and_its_card(checkpoint: Path) -> None:
    model, card = load_checkpoint(checkpoint)
    assert card == CARD
    assert not model.training
    again, _ = load_checkpoint(checkpoint.parent)  # a run's folder
    x = torch.rand(1, 4, 24, 24)
    with torch.no_grad():
        assert torch.equal(model(x), again(x))


def test_options_of_the_network_are_kept(tmp_path: Path) -> None:
    model = create_model("unet", 2, 1, padding="same", batch_norm=True)
    card = Card("unet", LABELS, 1, {"padding": "same", "batch_norm": True}, (0.0,), (1.0,))
    save_checkpoint(tmp_path / "unet", model, card)
    loaded, _ = load_checkpoint(tmp_path / "unet")
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_it_holds_nothing_but_json_and_safetensors(checkpoint: Path) -> None:
    assert {path.name for path in checkpoint.iterdir()} == {"model.json", "model.safetensors"}
    assert {path.name for path in checkpoint.parent.iterdir()} == {"best"}
    assert json.loads((checkpoint / "model.json").read_text())["labels"]["names"] == ["road", "sky"]


def test_a_second_checkpoint_replaces_the_first(checkpoint: Path) -> None:
    model = create_model("enet", 2, 4)
    save_checkpoint(checkpoint, model, CARD)
    loaded, _ = load_checkpoint(checkpoint)
    assert torch.equal(loaded.fullconv.weight, model.fullconv.weight)
    assert {path.name for path in checkpoint.parent.iterdir()} == {"best"}


def test_an_enet_from_before_its_5x1_had_a_bias_gives_what_it_gave() -> None:
    """The one that comes with segue was saved then; logits of pixel (11, 17) were written down with the build that saved it."""
    old = load_file(find_checkpoint("enet-camvid") / "model.safetensors")  # type: ignore[operator]
    model, _ = load_checkpoint("enet-camvid")
    new = model.state_dict()
    added = sorted(new.keys() - old.keys())
    assert added == [f"stage{stage}.{block}.branch.3.1.bias" for stage in (2, 3) for block in (2, 6)]
    assert not any(new[name].any() for name in added)
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    with torch.no_grad():
        logits = model(torch.linspace(-1, 1, 3 * 32 * 40).reshape(1, 3, 32, 40).sin())
    expected = [-4.15998, 2.10413, 1.60534, -9.22323, -6.71553, 0.457704, 3.34775, -3.81683, -0.0766847, -1.33053, -2.69277]
    torch.testing.assert_close(logits[0, :, 11, 17], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def cut_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def edit_card(folder: Path, **fields: object) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, **fields}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, "model.safetensors is missing or damaged"),
        (flip_a_bit, "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing or damaged"),
        (lambda folder: (folder / "model.json").unlink(), "model.json is missing or damaged"),
        (lambda folder: (folder / "model.json").write_text('{"format": 1'), "model.json is missing or damaged"),
        (lambda folder: (folder / "model.json").write_text("[]"), "model.json is missing or damaged"),
        (lambda folder: edit_card(folder, format=9), "format 9.*use the segue that wrote it"),
        (lambda folder: edit_card(folder, network="netty"), "netty, which is not one of segue's networks"),
        (
            lambda folder: edit_card(folder, in_channels=3),
            r"initial.conv.weight is \(12, 4, 3, 3\) there, and \(13, 3, 3, 3\) here",
        ),
        (lambda folder: edit_card(folder, network="unet"), "do not fit UNet.*missing.*unknown"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_says_what_is_wrong(checkpoint: Path, damage: object, message: str) -> None:
    damage(checkpoint)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        load_checkpoint(checkpoint)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "weights.pt")
    for path in (tmp_path, tmp_path / "weights.pt", tmp_path / "nothing"):
        assert find_checkpoint(path) is None
        with pytest.raises(ValueError, match=r"is no checkpoint: that is a folder with model\.json"):
            load_checkpoint(path)


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match="road is there twice"):
        Labels.from_names(["road", "road"])
    with pytest.raises(ValueError, match="1 colours for 2 names"):
        Labels(("a", "b"), ((0, 0, 0),))
    with pytest.raises(ValueError, match="1 to 255 class names"):
        Labels((), ())
    assert len(set(Labels.from_names([str(i) for i in range(255)]).palette)) == 255


@pytest.mark.parametrize(("in_channels", "data", "depth"), [(4, "nyuv2", True), (3, "nyuv2", False), (4, "folder", False)])
def test_a_card_from_before_it_told_of_depth(in_channels: int, data: str, depth: bool, tmp_path: Path) -> None:
    colors = (0.0,) * in_channels, (1.0,) * in_channels
    save_checkpoint(
        tmp_path / "old",
        create_model("enet", 2, in_channels),
        Card("enet", LABELS, in_channels, {}, *colors, recipe={"data": data}),
    )
    card = json.loads((tmp_path / "old" / "model.json").read_text())
    del card["depth"]
    (tmp_path / "old" / "model.json").write_text(json.dumps(card))
    assert load_checkpoint(tmp_path / "old")[1].depth == depth
