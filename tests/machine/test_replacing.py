import threading

import pytest

from segue.machine.replacing import replacing


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old" and new.parent == tmp_path and new.suffix == ".new"
    assert path.read_text() == "new" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_body_that_fails_leaves_the_old_file_and_no_rest(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as new:  # noqa: PT012
        new.write_text("half")
        raise error
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_body_that_writes_nothing_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path):
        pass
    assert not path.exists()
    path.write_text("old")
    with replacing(path):
        pass
    assert path.read_text() == "old"


def test_two_that_write_one_file_do_not_spoil_it(tmp_path):
    path, both = tmp_path / "a.txt", threading.Barrier(2)

    def write(text: str) -> None:
        with replacing(path, ".txt") as new, new.open("w") as file:
            file.write(text[:1])
            both.wait()
            file.write(text[1:])
        assert new.name.endswith(".new.txt")

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000) and [*tmp_path.iterdir()] == [path]
