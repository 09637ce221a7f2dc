"""Which templates of a privileged message are accepted, and why the others are refused before anything starts."""

from __future__ import annotations

import pytest

from recipe.hdpo.algorithm import message_template
from recipe.hdpo.algorithm.default_templates import SOLUTION
from recipe.hdpo.algorithm.message_template import compile_template

# What it shows of problem P, solution "S s" and answer A.
ACCEPTED = [
    ("{{ problem }}|{{ solution|upper }}", "P|S S"),
    ("{{ problem }}|{{ solution|trim|title }}", "P|S S"),
    ("{{ problem }}|{{ answer }}", "P|A"),
    ("{{ problem }} <solution>{{ solution }}</solution>", "P <solution>S s</solution>"),
    (r"{{ problem }} \boxed{answer} {solution} {{ solution }}", r"P \boxed{answer} {solution} S s"),
    ("{% set shown = solution %}{{ problem }}{{ shown }}", "PS s"),
    ("{% set solution = solution|upper %}{{ problem }}{{ solution }}", "PS S"),
    ("{% if solution %}{{ problem }}|{{ solution }}{% else %}{{ problem }}{% endif %}", "P|S s"),
    ("{# {{ nonsense }} #}{{ problem }}{{ solution }}{{ answer if answer else '' }}", "PS sA"),
    ("{{ problem }} {% raw %}{{ solution }}{% endraw %} {{ solution }}", "P {{ solution }} S s"),
]
# These loop, call or compute, so they are tried in a process of their own.
ACCEPTED_AFTER_A_TRIAL = [
    ("{{ problem }}{% for line in solution.split() %}|{{ loop.index }} {{ line }}{% endfor %}", "P|1 S|2 s"),
    ("{{ problem }}|{{ solution.split('####')[-1] }}|{{ solution|truncate(60) }}", "P|S s|S s"),
]


@pytest.mark.parametrize(("template", "shows"), ACCEPTED + ACCEPTED_AFTER_A_TRIAL)
def test_a_template_that_shows_problem_and_solution_in_any_way_is_accepted(template: str, shows: str) -> None:
    assert compile_template(template, "user").render(problem="P", solution="S s", answer="A") == shows


@pytest.mark.parametrize("placement", SOLUTION.defaults)
def test_the_default_templates_are_accepted(placement: str) -> None:
    assert "S" in compile_template(None, placement).render(problem="P", solution="S", answer="A")


NOTHING, NO_PROBLEM = "nothing would be privileged", "must use {{ problem }}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ problem }} <solution>{solution}</solution>", f"single braces is only a word): {NOTHING}"),
        ("<problem> {{ solution }}", NO_PROBLEM),
        ("{ problem } {{ solution }}", NO_PROBLEM),
        ("{{ problem }}{# {{ solution }} #}", NOTHING),
        ("{{ problem }}{% raw %}{{ solution }}{% endraw %}", NOTHING),
        ("{{ problem }}{% set solution = 'x' %}{{ solution }}", NOTHING),
        ("{{ problem }}{% if false %}{{ solution }}{% endif %}", f"never rendered): {NOTHING}"),
        ("{{ problem }}{% set x = solution %}", NOTHING),
        ("{{ problem }}{{ solution|length }}", NOTHING),
        ("{{ problem }}{{ 'solution' }}", NOTHING),
        ("{{ solution }}{% if answer == '' %}{{ problem }}{% endif %}", f"{NO_PROBLEM} (the parts"),
        ("{{ problem }}{{ solution }}{{ SOLUTION }}", "'SOLUTION' is undefined"),
        ("{{ problem }}{{ solution }}{% if false %}{{ hint }}{% endif %}", "uses hint, which nothing defines"),
        ("{{ problem }}{{ solution }}{% if false %}{{ answer|shout }}{% endif %}", "the filter shout"),
        ("{{ problem }}{{ solution }}{% if answer is nice %}{% endif %}", "nice"),
        ("{{ problem }}{{ solution }}{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ problem }}\n{{ solution }", "line 2"),
        ("{{ problem }}{{ solution.nothing }}", "has no attribute 'nothing'"),
        ("{{ problem }}{{ solution }}{% include 'other.j2' %}", "another template"),
    ],
)
def test_what_would_show_nothing_or_cannot_be_rendered_is_refused_with_the_reason(template: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        compile_template(template, "user")
    assert said in str(error.value) and "hdpo.privileged.template" in str(error.value)


def test_the_system_placement_needs_no_problem() -> None:
    assert compile_template("{{ solution }}", "system").render(problem="P", solution="S", answer="A") == "S"


def test_a_file_that_is_no_text_is_refused(tmp_path) -> None:
    (tmp_path / "template.j2").write_bytes(b"{{ problem }}\xff{{ solution }}")
    with pytest.raises(ValueError, match=r"template\.j2: the file cannot be read"):
        compile_template(f"@{tmp_path / 'template.j2'}", "user")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("{{ 1/0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for i in range(999999) %}{% endfor %}", "Range too big"),
        ("{% for i in range(2000) %}{% for j in range(2000) %}x{% endfor %}{% endfor %}", "more than 1,000,000 char"),
        ("{{ solution * 9000 }}", "more than 1,000,000 characters"),
        ("{{ 'x' * 10**10 }}", "more than 1024 MiB of memory"),
        ("{{ 9**(9**9) }}", "does not end within 1 s of processor time"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does not end within 1 s"),
    ],
)
def test_code_that_fails_never_ends_or_makes_gigabytes_is_refused_within_limits(
    monkeypatch: pytest.MonkeyPatch, part: str, said: str
) -> None:
    monkeypatch.setattr(message_template, "CPU_SECONDS", 1)
    with pytest.raises(ValueError) as error:
        compile_template("{{ problem }}{{ solution }}" + part, "user")
    assert said in str(error.value)
