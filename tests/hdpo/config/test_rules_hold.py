"""No config switches the rules off: whatever a rule meets, the run ends before Ray starts, and the key is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from recipe.hdpo.config import checks
from recipe.hdpo.config.checks import ConfigCheckCallback, refusals
from recipe.hdpo.config.keys import INTEGERS, select
from tests.hdpo.composed_config import composed

ROLLOUT = "actor_rollout_ref.rollout"


@pytest.fixture(scope="module")
def plain() -> DictConfig:
    return composed()


def _changed(config: DictConfig, key: str, value: object) -> DictConfig:
    """A copy with one value changed, past the types that Hydra's config has."""
    changed = config.copy()
    OmegaConf.set_struct(changed, False)
    OmegaConf.update(changed, key, value)
    return changed


def _only_refusal(config: DictConfig) -> str:
    found = list(refusals(config))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("value", ["2048", "abc", 2.5, True], ids=repr)
@pytest.mark.parametrize("key", INTEGERS)
def test_a_number_that_is_none_is_refused_by_its_key(plain: DictConfig, key: str, value: object) -> None:
    # Other keys may take their value from this one.
    found = list(refusals(_changed(plain, key, value)))
    assert any(message.startswith(f"{key}={value!r} has to be a whole number") for message in found)
    assert all("has to be a whole number" in message for message in found)


@pytest.mark.parametrize("key", ["data.max_prompt_length", "data.max_response_length", f"{ROLLOUT}.n"])
def test_a_length_or_group_size_of_null_or_0_is_refused(plain: DictConfig, key: str) -> None:
    assert _only_refusal(_changed(plain, key, None)) == f"{key}=null: it has to be a number"
    assert _only_refusal(_changed(plain, key, 0)) == f"{key}=0 has to be at least 1"


def test_text_from_an_environment_variable_is_told_the_way_to_a_number(
    plain: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXT", "2048")
    key = f"{ROLLOUT}.max_model_len"
    text = _changed(plain, key, "${oc.env:CONTEXT}")
    assert "becomes a number by ${oc.decode:${oc.env:NAME}}" in _only_refusal(text)
    assert not list(refusals(_changed(plain, key, "${oc.decode:${oc.env:CONTEXT}}")))


def test_a_missing_environment_variable_is_named(plain: DictConfig) -> None:
    found = _only_refusal(_changed(plain, f"{ROLLOUT}.max_model_len", "${oc.env:NO_SUCH_VARIABLE}"))
    assert f"{ROLLOUT}.max_model_len" in found and "NO_SUCH_VARIABLE" in found
    found = _only_refusal(_changed(plain, "hdpo.topk", "${oc.env:NO_SUCH_VARIABLE}"))
    assert "full_key: hdpo.topk" in found and "NO_SUCH_VARIABLE" in found


@pytest.mark.parametrize("value", [0, 0.0, -1.0, float("nan"), float("inf"), None, "1.0", True], ids=repr)
def test_a_temperature_that_samples_nothing_is_refused(plain: DictConfig, value: object) -> None:
    assert f"{ROLLOUT}.temperature={value!r} has to be a number above 0" in _only_refusal(
        _changed(plain, f"{ROLLOUT}.temperature", value)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=repr)
@pytest.mark.parametrize(
    "knob", ["distillation_loss_coef", "success_reward", "collapse_warning", "poll_interval", "divergence.beta"]
)
def test_a_knob_that_is_no_finite_number_is_refused(plain: DictConfig, knob: str, value: float) -> None:
    assert _only_refusal(_changed(plain, f"hdpo.{knob}", value)) == f"hdpo.{knob}={value} must be a finite number"


def test_a_rule_that_raises_is_a_refusal_that_names_what_it_looked_at(
    plain: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd_rule(config: DictConfig, hdpo: object) -> None:
        raise TypeError(f"unorderable: {select(config, 'trainer.device')}")

    monkeypatch.setattr(checks, "RULES", (odd_rule, *checks.RULES))
    found = _only_refusal(plain)
    assert (
        found
        == "the check odd_rule cannot read this config (it looked at trainer.device): TypeError: unorderable: cuda"
    )


def test_a_broken_model_file_is_named(plain: DictConfig, tmp_path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    found = _only_refusal(_changed(plain, "actor_rollout_ref.model.path", str(tmp_path)))
    assert f"{tmp_path}/config.json" in found and "actor_rollout_ref.model.path" in found and "JSONDecodeError" in found


@pytest.mark.parametrize(
    "error", [TypeError("odd"), KeyError("odd"), ImportError("odd"), ValueError("odd"), RecursionError("odd")], ids=repr
)
@pytest.mark.parametrize("where", ["wrong_verl", "missing_registrations", "check_config"])
def test_whatever_is_raised_in_hydras_callback_ends_the_run(
    plain: DictConfig, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(checks, "not_ready", lambda config: ())  # there is neither model nor data
    original: Callable = getattr(checks, where)
    monkeypatch.setattr(checks, where, raises)
    with pytest.raises(SystemExit, match="odd"):
        ConfigCheckCallback().on_run_start(plain)
    monkeypatch.setattr(checks, where, original)
    ConfigCheckCallback().on_run_start(plain)
