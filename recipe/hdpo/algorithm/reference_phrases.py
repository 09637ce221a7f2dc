"""Phrases by which a response speaks of a reference that it was shown, by language.

Regular expressions of Python's, as :func:`~recipe.hdpo.algorithm.leakage.reference_pattern` reads them. "the solution"
by itself is none: "the solution of the equation is x = 3" speaks of no reference.
"""

from __future__ import annotations

_GIVEN = "(?:given|provided|reference|sample|official|suggested|supplied)"
_SAYS = "(?:says|said|states|stated|shows|showed|uses|used|explains|tells|suggests|indicates|mentions)"

PHRASES: dict[str, tuple[str, ...]] = {
    "English": (
        f"(?:the|a|this|that|your) {_GIVEN} (?:worked |full |final |correct )?(?:solution|answer)s?",
        f"the (?:solution|answer) (?:that is |that was |which is |which was |as )?{_GIVEN}(?: above| below| here)?"
        "(?! (?:that|by|the|an?|any) )",
        # A frame or a point of reference is physics.
        "the reference(?! (?:frame|point|angle|line|plane|axis|level|value|temperature|system|direction|number|book))",
        f"the (?:worked )?solution (?:above |below |already |here )?{_SAYS}",
        "(?:as|like|just as) (?:shown |stated |given |described |explained |said |seen |done )?(?:in|by) the "
        "(?:worked |given |reference )?solution",
        "(?:according to|based on|following|looking at|referring to|compared? (?:to|with)|per) the "
        "(?:worked )?solution(?! (?:set|of|to))",
        "the (?:solution|answer) (?:above|below|I was (?:given|shown)|you (?:gave|provided|showed))",
        "(?:matches|agrees with|consistent with) the (?:known|given) (?:solution|answer|result)",
        "the (?:hint|privileged (?:text|information|solution))",
    ),
    "Chinese": (
        "(?:参考|标准|给定|给出的|提供的|已给|示例)(?:的)?(?:答案|解答|解法|解析(?![式几函]))",
        "(?:根据|按照|依据|参照|参考)(?:上述|上面的?|以上的?|该)?(?:答案|解答|解析(?![式几函]))",
        "答案(?:已经)?(?:给出|告诉|提示)",
    ),
    "Japanese": (
        "(?:参考|模範|与えられた|提示された)(?:の)?(?:解答|回答|答え|解法)",
        "解答(?:によると|によれば|に示された)",
    ),
    "Korean": ("(?:참고|주어진|제공된|모범) ?(?:풀이|해답|답안|정답|해설)", "(?:풀이|해답|해설)에 (?:따르면|의하면)"),
    "German": (
        "(?:die|der|eine[r]?) (?:gegebenen?|angegebenen?|vorgegebenen?|bereitgestellten?) (?:Lösung|Antwort)",
        "(?:Musterlösung|Referenzlösung|Beispiellösung)",
        "(?:laut|gemäß) der (?:Muster|Referenz)?lösung",
        "wie in der Lösung",
    ),
    "French": (
        "(?:la|une) (?:solution|réponse) (?:donnée|fournie|de référence|ci-dessus|proposée)",
        "(?:selon|d['\u2019]après|comme dans) (?:la|le) (?:solution|corrigé)",
    ),
    "Spanish": (
        "la (?:solución|respuesta) (?:dada|proporcionada|de referencia|anterior|propuesta)",
        "(?:según|de acuerdo con|como en) la solución",
    ),
    "Portuguese": (
        "a (?:solução|resposta) (?:dada|fornecida|de referência|acima|proposta)",
        "(?:segundo|de acordo com|conforme|como na) (?:a )?solução",
    ),
    "Italian": (
        "la (?:soluzione|risposta) (?:data|fornita|di riferimento|proposta)",
        "(?:secondo|come nella) (?:la )?soluzione",
    ),
    "Russian": (
        "(?:приведённ|приведенн|предоставленн|эталонн)\\w+ (?:решени|ответ)\\w*",
        "(?:согласно|как в) (?:эталонному |данному )?решени(?:ю|и)",
    ),
}
