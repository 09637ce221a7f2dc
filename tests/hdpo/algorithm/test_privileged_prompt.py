"""Privileged prompts: what they contain, what survives, what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.hdpo.algorithm.message_template import compile_template
from recipe.hdpo.algorithm.privileged_prompt import NoPrivilegedText, PrivilegedPromptBuilder, prompt_id, text_at

LATEX = r"Let $x = \frac{a}{b}$, {{ solution }} {% raw %} {# no #} \boxed{{42}} 100% \\ {braces}"


def _builder(**changes: str | None) -> PrivilegedPromptBuilder:
    options = {"placement": "user", "source": "solution", "template": None, **changes}
    return PrivilegedPromptBuilder(
        template=compile_template(options["template"], options["placement"]),
        placement=options["placement"],
        source=options["source"],
        solution_key="extra_info.solution",
        answer_key="reward_model.ground_truth",
    )


def _row(solution: str | None = "S", answer: str = "A") -> dict:
    return {"extra_info": {"solution": solution}, "reward_model": {"ground_truth": answer}}


# Any text that shows something.
SHOWN = st.tuples(st.text(), st.sampled_from("1é\N{CJK UNIFIED IDEOGRAPH-89E3}"), st.text()).map("".join)


@given(SHOWN, SHOWN)
def test_problem_and_solution_survive_whatever_they_contain(problem: str, solution: str) -> None:
    [message] = _builder().build([{"role": "user", "content": problem}], _row(solution))
    assert problem in message["content"] and solution in message["content"]


def test_braces_and_latex_in_the_texts_are_not_template_code() -> None:
    [message] = _builder().build([{"role": "user", "content": LATEX}], _row(LATEX))
    assert message["content"].count(LATEX) == 2


def test_user_placement_replaces_the_last_user_message_and_keeps_the_others() -> None:
    messages = [
        {"role": "system", "content": "sys"},
        {"role": "user", "content": "example"},
        {"role": "assistant", "content": "shown"},
        {"role": "user", "content": "P"},
    ]
    built = _builder().build(messages, _row())
    assert built[:3] == messages[:3]
    assert built[3]["role"] == "user" and "P" in built[3]["content"] and "S" in built[3]["content"]
    assert messages[3]["content"] == "P"


def test_system_placement_extends_or_makes_the_system_message_and_leaves_the_problem_alone() -> None:
    builder = _builder(placement="system")
    made = builder.build([{"role": "user", "content": "P"}], _row("THE WAY"))
    assert [m["role"] for m in made] == ["system", "user"]
    assert "THE WAY" in made[0]["content"] and made[1]["content"] == "P"
    extended = builder.build([{"role": "system", "content": "sys"}, {"role": "user", "content": "P"}], _row("THE WAY"))
    assert extended[0]["content"].startswith("sys\n") and "THE WAY" in extended[0]["content"]


def test_source_answer_shows_the_answer_and_never_the_solution() -> None:
    [message] = _builder(source="answer").build([{"role": "user", "content": "P"}], _row("SECRET WAY", "42"))
    assert "42" in message["content"] and "SECRET WAY" not in message["content"]


@pytest.mark.parametrize("solution", [None, "", "  \n"])
def test_a_row_without_solution_is_named_by_its_key(solution: str | None) -> None:
    with pytest.raises(NoPrivilegedText, match=r"extra_info\.solution"):
        _builder().build([{"role": "user", "content": "P"}], _row(solution))


def test_own_templates_come_from_text_or_file(tmp_path: Path) -> None:
    file = tmp_path / "template.j2"
    file.write_text("{{ problem }}|{{ solution }}|{{ answer }}")
    for template in (f"@{file}", file.read_text()):
        [message] = _builder(template=template).build([{"role": "user", "content": "P"}], _row())
        assert message["content"] == "P|S|A"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ problem }} {{ nonsense }} {{ solution }}", "nonsense"),
        ("{{ problem }", "hdpo.privileged.template"),
        ("{{ problem }}", "nothing would be privileged"),
        ("{{ solution }}", "must use {{ problem }}"),
        ("@/nowhere/at/all", "cannot be read"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}{{ problem }}{{ solution }}", "unsafe"),
    ],
)
def test_bad_templates_are_refused_with_the_reason(template: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        compile_template(template, "user")
    assert said in str(error.value)


@pytest.mark.parametrize("placement", ["user", "system"])
@pytest.mark.parametrize("line_break", [r"\n", r"\n\n", r"\r\n", r"\nReference:\n", r"\n\nnu ", r"\nnot so: "])
def test_a_line_break_that_nobody_unescaped_is_refused_with_the_way_to_write_it(
    line_break: str, placement: str, tmp_path: Path
) -> None:
    template = "{{ problem }}" + line_break + "{{ solution }}"
    (tmp_path / "template.j2").write_text(template)
    for form in (template, f"@{tmp_path / 'template.j2'}"):
        with pytest.raises(ValueError, match=r"a backslash and an n, not a line break.*\$'hdpo\.privileged\.template="):
            compile_template(form, placement)


@pytest.mark.parametrize("text", ["\n", r"{{ '\n' }}", r" $a \neq b$ ", r" \nu, ", r"\newline ", r" C:\data ", "n"])
def test_a_real_line_break_and_latex_are_accepted(text: str) -> None:
    made = compile_template("{{ problem }}" + text + "{{ solution }}", "user").render(problem="P", solution="S")
    assert made == "P" + text.replace(r"{{ '\n' }}", "\n") + "S"


def test_backslashes_of_problem_and_solution_are_theirs() -> None:
    [message] = _builder(template="{{ problem }}\n{{ solution }}").build(
        [{"role": "user", "content": r"P\nQ"}], _row(r"\nA")
    )
    assert message["content"] == "P\\nQ\n\\nA"


def test_text_at_walks_dotted_paths_and_refuses_blanks() -> None:
    assert text_at({"a": {"b": 7}}, "a.b") == "7"
    assert text_at({"a": {"b": " "}}, "a.b") is None
    assert text_at({"a": "x"}, "a.b") is None


def test_prompt_id_depends_on_what_the_student_reads_and_on_nothing_else() -> None:
    messages = [{"role": "user", "content": "P"}]
    assert prompt_id(messages, "d") == prompt_id([{"content": "P", "role": "user", "extra": 1}], "d")
    assert (
        len({prompt_id(messages, "d"), prompt_id(messages, "e"), prompt_id([{"role": "user", "content": "Q"}], "d")})
        == 3
    )
