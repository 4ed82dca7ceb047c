"""Names and colours of classes."""

from segue.labels import Labels


def test_the_palette_is_vocs() -> None:
    """Colours that segue chooses are those of PASCAL VOC's map from 1 on."""
    dark, light = (128, 0, 0), (192, 0, 0)
    assert Labels.from_names("abcde").palette == (dark, (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128))
    assert Labels.from_names([str(number) for number in range(9)]).palette[7:] == ((64, 0, 0), light)
