"""Names of graders, and of those that older results name by a digest."""

import json

import pytest

from recipe.hdpo.evaluation import graders
from recipe.hdpo.evaluation.graders import REWARD_FILE, grader_name
from recipe.hdpo.evaluation.records import META, read_meta
from recipe.hdpo.reward import GRADER_VERSION
from tests.hdpo.evaluation.made_results import write_results

DIGEST = "09fea437167a1698f0a735b90a93a15126fb554699e189520a0f0dff8abe0f4c"


def test_the_recipes_grader_is_named_by_its_version_and_math_verifys(monkeypatch):
    monkeypatch.setattr(graders, "version", lambda name: {"math-verify": "7.1"}[name])
    assert grader_name(REWARD_FILE) == f"hdpo {GRADER_VERSION}, math-verify 7.1"


def test_another_file_is_named_by_its_content(tmp_path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("1")
    second.write_text("2")
    names = [grader_name(first), grader_name(first), grader_name(second)]
    assert names[0] == names[1] != names[2] and names[0].endswith(grader_name(REWARD_FILE))


@pytest.mark.parametrize(("digest", "name"), [(DIGEST, "hdpo 1, math-verify 0.9.0"), ("abc", "abc")])
def test_a_folder_from_before_the_versions_is_read_under_the_version_that_it_was_made_with(tmp_path, digest, name):
    folder = write_results(tmp_path / "old", {"p1": [1, 0, 1]})
    content = json.loads((folder / META).read_text())
    content["settings"]["grader_sha256"] = digest
    del content["settings"]["grader"]
    (folder / META).write_text(json.dumps(content))
    before = (folder / META).read_bytes()
    settings = read_meta(folder).settings
    assert settings["grader"] == name and "grader_sha256" not in settings
    assert (folder / META).read_bytes() == before
