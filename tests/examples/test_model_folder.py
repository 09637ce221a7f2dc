import json

import pytest

from examples.demo.model_folder import RECORD, FolderError, is_made, publish

SETTINGS = {"seed": 0, "steps": 5}


def save_weights(folder):
    (folder / "weights").write_text("w")


def test_a_published_folder_is_whole_and_known_by_its_settings(tmp_path):
    out = tmp_path / "models" / "m"
    assert not is_made(out, SETTINGS)
    publish(out, SETTINGS, {"accuracy": 1.0}, save_weights)
    assert is_made(out, SETTINGS)
    assert (out / "weights").read_text() == "w"
    assert json.loads((out / RECORD).read_text()) == {"settings": SETTINGS, "results": {"accuracy": 1.0}}
    assert [path.name for path in out.parent.iterdir()] == ["m"]


def test_an_empty_folder_counts_as_nothing_and_is_filled(tmp_path):
    out = tmp_path / "m"
    out.mkdir()
    assert not is_made(out, SETTINGS)
    publish(out, SETTINGS, None, save_weights)
    assert is_made(out, SETTINGS)


def test_other_settings_are_an_error_that_names_them(tmp_path):
    publish(tmp_path / "m", SETTINGS, None, save_weights)
    with pytest.raises(FolderError, match=r"made with other settings \(steps\).*--out"):
        is_made(tmp_path / "m", SETTINGS | {"steps": 6})


@pytest.mark.parametrize("record", [None, "{", "[]", '{"results": 1}'])
def test_a_folder_of_something_else_is_an_error_and_stays(tmp_path, record):
    (tmp_path / "notes.txt").write_text("mine")
    if record is not None:
        (tmp_path / RECORD).write_text(record)
    with pytest.raises(FolderError, match="was not made by this script"):
        is_made(tmp_path, SETTINGS)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failure_while_saving_leaves_nothing(tmp_path):
    def fail(folder):
        save_weights(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "m", SETTINGS, None, fail)
    assert not list(tmp_path.iterdir())
