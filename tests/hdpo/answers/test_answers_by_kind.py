r"""Answers that are easily graded wrongly, by kind: ground truth, answer, and whether they are the same.

The comparison is the whole one, with math-verify, but in this process.
"""

# ruff: noqa: RUF001 - letters and signs of other scripts.

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.hdpo.answers.expression import UnreadableTruth, equal_expressions, same_in_text, same_marked

RESTATED = [
    ("24", "4*6", False),
    ("24", r"4\times6", False),
    ("24", "4*6 = 24", True),
    ("24", "4*7 = 24", False),
    ("24", "24 = 24", True),
    ("24", "23 = 24", False),
    ("24", "x=23=24", False),
    ("24", "x = y = 24", True),
    ("24", "24 = x", True),
    ("24", "a+b = 24", True),
    ("24", "2x = 24", False),
    ("24", "x+1 = 24", False),
    ("24", r"\text{total} = 24", True),
    ("24", "f(2) = 24", True),
    ("24", "P(X=1) = 24", True),
    ("24", r"x \approx 24", True),
    ("24", r"23\to 24", False),
    ("24", "23 < 24", False),
    ("24", "23, 24", False),
    ("24", "23 or 24", False),
    ("24", "4!", False),
    ("24", "48/2", False),
    ("24", r"\frac{48}{2} = 24", True),
    ("24", r"\lim_{n\to\infty} 24 = 24", True),
    ("100", "10^2", False),
    ("24", r"\frac{48}{2}", False),
    ("24", r"\lcm(8,12)", False),
    ("24", r"\sum_{k=1}^{24} 1", False),
    ("24", r"\sqrt{576}", False),
    ("24", r"\cancel{23} 24", False),
    ("24", r"\pm 24", False),
    ("24", r"\{24\}", True),
    ("24", "(24)", True),
    ("x = 24", "x = 4*6", False),
    ("x = 24", "2x = 48", False),
    ("x = 24", "24", True),
    ("2^{10}", "1024", True),
    ("1024", "2^{10}", False),
]
SIZES = [
    (r"3.1\times10^{-20}", r"3.2\times10^{-20}", False),
    (r"3.1\times10^{-20}", "0", False),
    (r"3.1\times10^{-20}", "3.1e-20", True),
    ("0.00000042", r"4.2 \cdot 10^{-7}", True),
    ("0", "10^{-12}", False),
    ("10^{-400}", "10^{-401}", False),
    (r"\frac{1}{30!}", r"\frac{1}{31!}", False),
    (r"\frac{1}{30!}", r"\frac{1}{30\cdot 29!}", True),
    (r"\frac{\pi}{10^{30}}", r"\frac{2\pi}{10^{30}}", False),
    ("e^{-90}", "e^{-91}", False),
    ("10^{-20}x", "10^{-21}x", False),
    ("0.25", "0.25000001", False),
    (r"\sqrt{3}", "1.7320508", False),
    (r"\frac{1}{6}", "0.166667", False),
    (r"\frac{1}{6}", r"0.1\overline{6}", True),
    (r"2\sqrt{3}", r"2\sqrt{3} \approx 3.46", True),
]
PERCENT = [
    ("35", r"35\%", True),
    (r"35\%", "35", True),
    (r"35\%", "0.35", True),
    ("0.35", "35 percent", True),
    ("35", r"35\text{\%}", True),
    (r"37.50\%", "37.5", True),
    (r"35\%", r"36\%", False),
    (r"0.5\%", r"50\%", False),
    ("35", "0.35", False),
    (r"66\frac{2}{3}\%", r"\frac{2}{3}", True),
    (r"10\%, 15\%", "15, 10", True),
]
BASES = [
    ("2101_3", "2101_4", False),
    ("2101_3", "2101_{3}", True),
    ("2101_3", "(2101)_3", True),
    ("2101_3", r"2101_{\text{three}}", True),
    ("2101_3", "2101", False),
    ("64", "2101_3", False),
    ("3F_{16}", "3f_{16}", True),
    ("a_5", "a_6", False),
]
LISTS = [
    ("4", "4,4", False),
    ("4,4", "4", False),
    ("4, 7", "7 and 4", True),
    ("4,7,7", "4,4,7", False),
    ("4,7", "(4,7)", False),
    ("(4,7)", "(7,4)", False),
    ("(4,7)", r"\{4,7\}", False),
    ("(4,7)", "[4,7]", False),
    ("[4,7)", "[4,7)", True),
    (r"\{4,7\}", "(7,4)", False),
    (r"\{4,7\}", r"\{7,4,4\}", True),
    (r"\{4,7\}", r"\{4\}", False),
    (r"\{4,7\}", "x=4 or x=7", True),
    (r"\{4,7\}", r"x \in \{7,4\}", True),
    (r"\pm 4", "4,-4", True),
    (r"\pm 4", "4", False),
    (r"1\pm\sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}", True),
    ("p = 4, q = 7", "4, 7", True),
    ("p = 4, q = 7", "7, 4", False),
    ("p = 4, q = 7", "q = 7, p = 4", True),
    ("(p,q) = (4,7)", "(4,7)", True),
    ("(1,2),(3,4)", "(3,4),(1,2)", True),
    ("(1,2),(3,4)", "(3,4),(2,1)", False),
    ("1,000, 2,000", "2000, 1000", True),
    ("1234", "1,23,4", False),
    (r"\emptyset", r"\{\}", True),
    (r"\emptyset", r"\{0\}", False),
    (r"(-\infty,1)\cup(2,3)", r"(2,3)\cup(-\infty,1)", True),
    ("x < 4", r"(-\infty,4)", True),
]
WORDS = [
    ("saw", "was", False),
    ("EAT", "TEA", False),
    ("EAT", "eat", True),
    (r"\text{Friday}", "friday", True),
    ("Friday", r"\textbf{Friday}", True),
    ("D", "(D)", True),
    ("D", "C", False),
    ("xy", "yx", True),
    ("Ann and Tom", "Tom and Ann", True),
    ("seven", "7", False),
    ("not enough information", r"\text{Not enough information}", True),
    ("北京", "上海", False),
    ("北京", "北京。", True),
    ("да", "нет", False),
    ("да", "Да", True),
    ("ναι", "όχι", False),
    ("café", "naïve", False),
    ("Café", r"\text{café}", True),
    ("café, thé", "thé, café", True),
    ("café, thé", "thé, lait", False),
    ("第3行", "第4行", False),
    ("✓", "✗", False),
    ("ℝ", r"\mathbb{R}", True),
    ("ℝ", r"\mathbb{Q}", False),
]
CHOICES = [
    ("B", r"\textbf{(B)}\ 12", True),
    ("(B)", "B. 12", True),
    (r"\text{(B)}", "(B) 12", True),
    ("C", r"\textbf{(B)}\ 12", False),
    ("12", r"\text{(B) } 12", True),
    ("12", r"(B)\ 12", True),
    ("12", "B) 12", True),
    ("13", r"\textbf{(B)}\ 12", False),
    ("-3", "(A) -3", True),
    (r"\frac{1}{2}", r"\textbf{(D)}\ \frac{1}{2}", True),
    (r"\textbf{(B)}\ 12", "B", True),
    (r"\textbf{(B)}\ 12", "12", True),
    (r"\textbf{(B)}\ 12", "(B) 12", True),
    (r"\textbf{(B)}\ 12", "(C) 12", False),
    (r"\textbf{(B)}\ 12", "(B) 13", False),
    (r"\textbf{(B)}\ 12", "C", False),
    ("3+A", "(A) + 3", True),
    ("Monday", "(C) Monday", True),
    ("Monday", "(C) Tuesday", False),
    ("B", "B: Paris", True),
    ("B", "C: Paris", False),
    ("Paris", "B: Paris", True),
    ("Paris", "B: London", False),
    ("B", "Option B", True),
    ("B", "Option C", False),
    ("A", r"\text{Option A}", True),
    ("Option B", "(B)", True),
    ("B", "choice (B): Paris", True),
    ("B. Paris", "Option B", True),
    ("B. Paris", "Option C", False),
    ("A: 3, B: 4", "A", False),
    ("A", "(A) 3 (B) 4", False),
    ("A:B", "B:A", False),
]
TIMES = [
    ("4:30 p.m.", "4:30 PM", True),
    ("4:30 p.m.", "4:30\\text{ p.m.}", True),
    ("4:30 p.m.", "04:30 pm", True),
    ("4:30 p.m.", "16:30", True),
    ("4:30 p.m.", "4:15 p.m.", False),
    ("4:30 p.m.", "4:30 a.m.", False),
    ("4:30 p.m.", "4:30", False),
    ("4:30 p.m.", "990", False),
    ("4:30", "4:30 PM", True),
    ("16:30", "4:30 PM", True),
    ("10:45 AM", "10:45 a.m.", True),
    ("12:15 AM", "0:15", True),
    ("12:15 PM", "12:15", True),
    ("4 PM", "4:00 p.m.", True),
    ("4 PM", "4", False),
    ("5", "4:30 PM", False),
    ("09:05", "9:05", True),
    ("July 4", "July 4th", True),
    ("July 4", "July 5th", False),
]
SERIES = [
    ("2023-05-10", "2023-10-05", False),
    ("2023-05-10", "2023-5-10", True),
    ("2023-05-10", r"\text{2023-05-10}", True),
    ("2024-01-15", "2008", False),
    ("2024-01-15", "2024-02-14", False),
    ("2023/05/10", "2023/10/05", False),
    ("01/02/2020", "1/2/2020", True),
    ("1914-1918", "1939-1943", False),
    ("1914-1918", "-4", False),
    ("1914-1918", "1914\u20131918", True),
    ("1914\u20131918", "1914 -- 1918", True),
    ("3-2", "2-1", False),
    ("3-2", "1", False),
    ("3-2", "score = 3 - 2", True),
    ("3-2, 2-1", "2-1, 3-2", True),
    ("3-2, 2-1", "1, 1", False),
    ("10-15", "20-25", False),
    ("555-0123", "555-123", False),
    ("192.168.0.1", "192.168.0.2", False),
    ("192.168.0.1", "192.168.0.1", True),
    ("15:04:10", "30:08:10", False),
    ("1:2:3", "1:3:2", False),
    ("1:2:3", "1 : 2 : 3", True),
    ("1914--1918", "1914-1918", True),
    ("12 - 5", "7", True),
    ("3/4", "6/8", True),
    ("-5-3", "-8", True),
]
UNITS = [
    ("8 kg", "8 g", False),
    ("8 kg", "8", True),
    ("8", r"8\,\text{kg}", True),
    ("8 kg", "8 kilograms", True),
    ("8 m^2", "8 m", False),
    ("8 m^2", "8 square meters", True),
    ("8 km/h", "8 kmh", True),
    ("8 km/h", "8 km", False),
    ("8", "8 brown eggs", True),
    ("8 eggs", "8 nuts", False),
    ("8", "8 (eight)", True),
    ("8", "8 (not 9)", False),
    ("8", "8 hundred", False),
    ("8", "8 dozen", False),
    ("8", "8x", False),
    ("8", "8 ab", False),
    ("8", "8 or more", False),
    (r"8^\circ", "8 degrees", True),
    (r"8^\circ\text{C}", r"8^\circ\text{F}", False),
    (r"3\sqrt{2}\text{ cm}", r"3\sqrt{2}", True),
    (r"3\sqrt{2}\text{ cm}", r"3\sqrt{2}\text{ m}", False),
    (r"3\sqrt{2}", r"3\sqrt{2} cm^2", True),
    (r"3\sqrt{2}", r"3\sqrt{2}cm", True),
    (r"3\sqrt{2}", r"3\sqrt{2}m", True),
    (r"3\sqrt{2}", r"3\sqrt{2}x", False),
    (r"3\sqrt{2}", r"3\sqrt{2}s^2", False),
    (r"25\pi", r"25\pi cm^2", True),
    (r"25\pi", r"25\pi m", True),
    (r"25\pi", r"25\pi m^2", True),
    (r"25\pi", "25π square feet", True),
    (r"25\pi", r"25\pi t", False),
    (r"25\pi cm", r"25\pi", True),
    (r"25\pi cm", r"25\pi m", False),
    (r"25\pi m", r"25\pi", False),
    (r"25\pi\text{ cm}^2", r"25\pi cm", False),
    (r"\pi rs", r"\pi", False),
    (r"2\pi in", r"2\pi", False),
    (r"\sqrt{3} mg", r"\sqrt{3}", False),
    ("2rs", "2", False),
    ("2x", "2x cm", True),
    ("50", "50 kWh", True),
    ("50 kWh", "50", True),
    ("50 kWh", "50 kilowatt hours", True),
    ("50 kWh", "50 kW", False),
    ("50", "50 kJ", True),
    ("50", "50GB", True),
    ("50 GB", "50 MB", False),
    ("8 mb", "8", False),
    ("8", "8kb", False),
    ("12", "12 años", True),
    ("12 años", "12", True),
    ("12 años", "12 meses", False),
    ("12", "12 рублей", True),
    ("12 рублей", "13 рублей", False),
    ("12", "12元", True),
    ("12", "12万", False),
    ("12", "12 миллионов", False),
    ("12", "12 millones", False),
    ("8", "8х", False),
    ("8", "8 ψ", False),
    ("8", "8αβψ", False),
    ("8", "8αβγ", False),
    ("18", "18 €", True),
    ("18 €", "18", True),
    ("18 €", "19", False),
    ("50", "50¢", True),
    ("50 cents", "50¢", True),
    ("50 dollars", "50¢", False),
    ("50", "Rs. 50", True),
    ("18", "USD 18", True),
    ("18", "USD 19", False),
    ("$12 per hour", "12 dollars per hour", True),
    ("12 dollars per hour", "$12/hr", True),
    ("$12 per hour", "12 cents per hour", False),
    ("$12 per hour", "12 dollars per day", False),
    ("12:30", "2:05", False),
    ("2:3", "2/3", True),
]
NOTATION = [
    (r"\frac{3\pi}{4}", "3*pi/4", True),
    ("x^3", "x**3", True),
    ("cos(x)", r"\cos x", True),
    (r"\sqrt{x^2+1}", "sqrt(x^2+1)", True),
    (r"x\ge 2", "x >= 2", True),
    (r"\sqrt{5}", "√5", True),
    ("x^2", "x²", True),
    ("3pi/4", r"\frac{\pi}{4}", False),
    ("2 3/4", r"\frac{11}{4}", True),
    ("2 3/4", "23/4", False),
    (r"2\frac34", "2.75", True),
    ("4000", r"4\,000", True),
    (r"45,\!678", "45678", True),
    ("45678", "45 678", True),
    ("4000", "4.000", False),
    ("\u22124", "\u20134", True),
    ("1 / 2", ".5", True),
    (r"6.02\times10^{23}", "6.02×10²³", True),
    (r"3\times10^{-7}", "3×10⁻⁷", True),
    (r"3\times10^{-7}", "3×10⁷", False),
    ("2^{15}", "2¹⁵", True),
    ("x^{10}", "x¹⁰", True),
    ("x^{n+1}", "xⁿ⁺¹", True),
    ("x_1+x_2", "x₁+x₂", True),
    ("10110_2", "10110₂", True),
    ("10110_2", "10110₃", False),
    (r"\sigma+\delta", "δ+σ", True),
    (r"2\pi\alpha", "2πα", True),
    (r"2\pi\alpha\beta", "2παβ", True),
]
FORMULAS = [
    ("x^2+1=0", "x^2+2=0", False),
    ("y=3x-2", "3x-y-2=0", True),
    ("y=3x-2", "3x-2", True),
    ("xy=1", "y=1/x", True),
    ("a^2-b^2", "(a-b)(a+b)", True),
    ("a^2-b^2", "(a-b)^2", False),
    (r"\sqrt{13}", r"\sqrt{12} = \sqrt{13}", False),
    (r"\sqrt{12}", r"\sqrt{12} = 2\sqrt{3}", True),
    (r"\sqrt{2}+\sqrt{3}-\sqrt{5+2\sqrt{6}}", r"\sqrt{6}-\sqrt{2}\sqrt{3}", True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}", True),
    (r"\infty", r"-\infty", False),
    ("2ab", "2", False),
    ("4ab", "4ba", True),
    ("16t", "16", False),
    ("8t", "8m", False),
    (r"\pi r^2h", r"\pi r^2", False),
    (r"\pi r^2", r"\pi r^2h", False),
    (r"\pi r^2", r"\pi r^2 h", False),
    ("x^2+5m", "x^2+5", False),
    (r"\frac{1}{2}ab", r"\frac12", False),
    (r"\frac12", r"\frac{1}{2}bc", False),
    (r"2^{10}\text{ million}", "2^{10}", False),
]
COMPLEX = [
    ("6 - 5i", "6 - 5 i", True),
    ("6 - 5i", "6 + 5 i", False),
    ("3i", "3", False),
    (r"\frac{3}{5}+\frac{4}{5}i", r"\frac{3+4i}{5}", True),
    ("2i", "(1+i)^2", True),
    ("-2i", "(1+i)^2", False),
    (r"e^{\pi i}", "-1", True),
    (r"e^{i\pi/3}", r"\frac12+\frac{\sqrt3}{2}i", True),
    (r"e^{i\pi/3}", r"\frac12-\frac{\sqrt3}{2}i", False),
    ("x^2+1", "(x+i)(x-i)", True),
    ("x = i", "x = -i", False),
    ("z^2 = i", "z^2 = -i", False),
    ("x=5i", "x = 5 i", True),
    (r"\begin{pmatrix} i & 1\end{pmatrix}", r"\begin{pmatrix} 1 \cdot i & 1\end{pmatrix}", True),
    (r"\sum_{i=1}^{n} i", r"\frac{n(n+1)}{2}", True),
    (r"\sum_{i=1}^{n} i", r"\sum_{i=1}^{n} i^2", False),
    (r"1 \le i \le n", r"1 \le i \le n+1", False),
    (r"0 \le x < \infty", r"[0,\infty)", True),
]
KINDS = {
    "restated": RESTATED, "size": SIZES, "percent": PERCENT, "base": BASES, "list": LISTS, "words": WORDS,
    "choice": CHOICES, "time": TIMES, "series": SERIES, "complex": COMPLEX,
    "unit": UNITS, "notation": NOTATION, "formula": FORMULAS,
}  # fmt: skip
CASES = [pytest.param(*case, id=f"{kind}: {case[1]} for {case[0]}") for kind, cases in KINDS.items() for case in cases]


@pytest.mark.parametrize(("truth", "answer", "same"), CASES)
def test_an_answer_is_graded_by_its_kind(truth, answer, same):
    assert same_marked(answer, truth) is same


@pytest.mark.parametrize(
    ("truth", "text", "same"),
    [
        ("16", "the answer is $16t$", False),
        (r"\pi r^2", r"the volume is $\pi r^2h$", False),
        ("16t", "it is $16t$", True),
        ("16", r"it is $16 \text{ cm}$", True),
        ("16 cm", "it is 16", True),
        ("16", "it is 16 cm", True),
        (r"3\sqrt{2}", r"it is $3\sqrt{2}\text{ cm}$", True),
    ],
)
def test_a_variable_in_free_text_is_no_unit(truth, text, same):
    assert same_in_text(text, truth) is same


def test_a_ground_truth_that_is_no_mathematics_is_an_error():
    with pytest.raises(UnreadableTruth, match="can't be read as mathematics"):
        equal_expressions("x", r"\frac{1")


WRITINGS = ["{}", "{}.", "{},", " {}", "**{}**", "`{}`", "${}$", r"\({}\)", r"\text{{{}}}", "{} eggs", "Answer: {}"]
WRITINGS += ["x = {}", "{}.0", "+{}", "{}\u200b", "\ufeff{}", "{} (in total)", r"{}\,\text{{kg}}", "00{}", "${}.00"]
whole_numbers = st.integers(0, 10**12)


@given(whole_numbers, whole_numbers, st.sampled_from(WRITINGS))
@settings(deadline=None)
def test_a_whole_number_in_any_writing_is_itself_and_no_other(number, other, writing):
    assert same_marked(writing.format(number), str(number))
    assert same_marked(writing.format(number), str(other)) is (number == other)


@given(st.decimals(0, 1000, places=3), st.sampled_from([r"{}\%", "{}%", "{} percent", r"{}\text{{ percent}}"]))
@settings(deadline=None)
def test_percent_is_the_number_both_ways_and_its_hundredth(number, writing):
    share = writing.format(number)
    assert same_marked(share, str(number)) and same_marked(str(number), share)
    assert same_marked(share, f"{number.scaleb(-2):f}") and same_marked(f"{number.scaleb(-2):f}", share)
    assert not same_marked(share, f"{number + 1000}")


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6), st.randoms())
@settings(deadline=None)
def test_order_and_repetitions_count_as_the_type_says(numbers, random):
    shuffled = random.sample(numbers, len(numbers))
    text, other = (", ".join(map(str, some)) for some in (numbers, shuffled))
    assert same_marked(other, text)
    assert same_marked(rf"\{{{other}, {numbers[0]}\}}", rf"\{{{text}\}}")
    assert not same_marked(f"{other}, {numbers[0]}", text)
    assert same_marked(f"({other})", f"({text})") is (numbers == shuffled)
    assert not same_marked(f"({text})", text) and not same_marked(f"({text})", rf"\{{{text}\}}")


@given(st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None)
def test_powers_of_ten_differ_however_small(left, right):
    assert same_marked(f"10^{{-{left}}}", f"10^{{-{right}}}") is (left == right)
    assert same_marked(rf"\frac{{\pi}}{{10^{{{left}}}}}", rf"\pi\cdot10^{{-{right}}}") is (left == right)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 200))
@settings(deadline=None)
def test_a_problem_restated_is_no_answer_until_it_is_carried_out(left, right, more):
    result = left * right + more
    assert not same_marked(rf"{left}\times{right}+{more}", str(result))
    assert same_marked(rf"{left}\times{right}+{more} = {result}", str(result))
    assert not same_marked(rf"{left}\times{right}+{more} = {result + 1}", str(result + 1))
