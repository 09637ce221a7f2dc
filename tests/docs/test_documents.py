"""What the documents say of the code is so: refusals, defaults, commands, examples, and the files that they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from recipe.hdpo.algorithm.default_templates import FEEDBACK_USER_TEMPLATE, USER_TEMPLATE
from recipe.hdpo.config.checks import check_config, refusals
from tests.hdpo.composed_config import composed, hydra_composed

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
QUOTE = re.compile(r'refused: "([^"]*)"')


def rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the body of the first table under a heading."""
    lines = page.partition(f"## {heading}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| "))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start + 2 : end]]


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.splitlines()) <= 150
    # Bars of tables and dots between links are no words.
    assert len([word for word in README.split() if any(map(str.isalnum, word))]) <= 1350


def test_every_setting_that_the_setup_table_calls_refused_is_refused_with_the_words_that_it_quotes() -> None:
    config, tried = composed(), 0
    for cells in rows(PAGES["own_job"], "Does my verl setup work?"):
        text = " ".join(cells)
        quotes, spans = QUOTE.findall(text), re.findall(r"`([^`]*=[^`]*)`", text)
        for span in spans if quotes else []:
            overrides = dict(override.split("=", 1) for override in shlex.split(span))
            before = {key: OmegaConf.select(config, key) for key in overrides}
            for key, value in overrides.items():
                OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
            assert any(quotes[0] in message for message in refusals(config)), span
            for key, value in before.items():
                OmegaConf.update(config, key, value)
            tried += 1
    assert tried >= 15 and not list(refusals(config))


def test_the_readmes_refusals_are_those_of_the_whole_table() -> None:
    said = QUOTE.findall(README)
    assert len(said) >= 4 and set(said) <= set(QUOTE.findall(PAGES["own_job"]))


def test_the_readmes_knobs_have_their_defaults() -> None:
    defaults = OmegaConf.load(ROOT / "recipe/hdpo/config/hdpo/default.yaml")
    table = [[cell.strip("`") for cell in cells] for cells in rows(README, "Six knobs")]
    assert len(table) == 6
    for key, default, _ in table:
        assert OmegaConf.select(defaults, key) == yaml.safe_load(default), key


def test_the_command_of_the_recipes_config_composes_what_verl_and_the_recipe_accept() -> None:
    from verl.utils.config import validate_config
    from verl.utils.import_utils import load_extern_object

    blocks = re.findall(r"```bash\n(.*?)```", PAGES["own_job"], re.DOTALL)
    command = next(block for block in blocks if "verl.trainer.main_ppo" in block)
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    overrides = words[words.index("hdpo_trainer") + 1 :]
    config = hydra_composed(*overrides)
    check_config(config)
    validate_config(config, use_reference_policy=False, use_critic=False)
    reward = config.reward.custom_reward_function
    assert load_extern_object(reward.path, reward.name)("hdpo/sums", "#### 4", "4")["score"] == 1.0


def test_the_flags_for_a_command_of_ones_own_are_the_same_in_the_readme_and_on_the_page() -> None:
    assert "```bash\n+use=hdpo\n```" in README and "```bash\n+use=hdpo\n```" in PAGES["own_job"]
    assert "```bash\n'hydra.searchpath=[pkg://recipe.hdpo.config]' +hdpo=default +use=hdpo\n```" in PAGES["own_job"]


# Folders that paths in the documents are relative to.
BASES = ("", "recipe/hdpo", "tests/hdpo", *(f"recipe/hdpo/{x}" for x in ("rollout", "training", "tracking", "config")))
BASES += tuple(f"tests/hdpo/{x}" for x in ("algorithm", "rollout", "training"))


@pytest.mark.parametrize("page", ["README", *PAGES])
def test_every_file_that_a_document_names_exists(page: str) -> None:
    text = README if page == "README" else PAGES[page]
    # not the reader's own files
    named = set(re.findall(r"`([\w./-]+\.(?:py|yaml|sh|lock))`", text)) - {"my_reward.py"}
    assert [name for name in sorted(named) if not any((ROOT / base / name).is_file() for base in BASES)] == []


def test_every_file_that_the_figure_names_exists() -> None:
    texts = re.findall(r">([^<>]*\.py)<", (ROOT / "docs/figures/one_prompt.svg").read_text(encoding="utf-8"))
    named = [name for text in texts for name in text.split(", ")]
    bases = (*BASES, "recipe/hdpo/algorithm")
    assert len(named) > 10
    assert [name for name in named if not any((ROOT / base / name).is_file() for base in bases)] == []


def test_the_default_template_on_the_page_is_that_of_the_code() -> None:
    for template in (USER_TEMPLATE, FEEDBACK_USER_TEMPLATE):
        assert f"```jinja\n{template}\n```" in PAGES["data"]


def _examples(page: str) -> dict:
    """What the Python blocks of a page that define a function define."""
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        if block.startswith("def "):
            exec(block, scope)
    return scope


def test_the_example_of_a_divergence_has_the_derivative_that_autograd_finds() -> None:
    scope = _examples("extending")
    torch.manual_seed(0)
    teacher = torch.randn(3, 7, dtype=torch.float64).log_softmax(-1)
    log_p, ids = teacher.topk(4, dim=-1)
    q = torch.randn(3, 7, dtype=torch.float64).softmax(-1).requires_grad_()
    log_q = q.gather(-1, ids).log()
    value = scope["hellinger_value"](log_p, log_q, 1.0 - log_q.exp().sum(-1))
    p = torch.zeros_like(q).scatter(-1, ids, log_p.softmax(-1))
    torch.testing.assert_close(value, 1.0 - (p * q).sqrt().sum(-1))
    g, g_rest = scope["hellinger_derivative"](log_p, log_q, 1.0 - log_q.exp().sum(-1))
    [found] = torch.autograd.grad(value.sum(), q)
    torch.testing.assert_close(found.gather(-1, ids), g)
    assert g_rest.shape == (3,) and bool((found.scatter(-1, ids, 0.0) == g_rest[:, None]).all())


@pytest.mark.parametrize(("response", "score"), [("Answer: 4", 1.0), ("Answer: 5", 0.0), ("It is 4", 0.0)])
def test_the_example_of_a_grader_wants_a_marked_answer(response: str, score: float) -> None:
    assert _examples("extending")["compute_score"]("mine", response, "4") == {"score": score, "acc": score}
