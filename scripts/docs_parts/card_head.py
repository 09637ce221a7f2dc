"""Tables of `docs/gpu.md` about the fused head, from the figures of `head_correct`, `head` and `head_updates`."""

from __future__ import annotations

from typing import Any

from scripts.docs_parts.card import part
from scripts.docs_parts.marks import table

SIZES = ("8192", "32768")
ARMS = ("no cliff", "100 % cliffs")
TOPK = "teacher's top-k, fp32"
# The columns of the table of errors, and which of the figures are in each.
ERRORS = {
    "log-probabilities": ("log-probabilities",),
    "entropy": ("entropy",),
    "divergence": ("divergence",),
    "gradients": ("gradient of hidden states", "gradient of the weight"),
}
VARIANTS = {
    "logits + JSD_k": "whole logits, JSD_k of a quarter",
    "fused": "**fused head**, JSD_k of a quarter",
    "fused, 4,096 a chunk": "the same, 4,096 rows a chunk",
    "fused, PyTorch": "the same, without Triton",
    "GRPO: logits": "whole logits, GRPO alone",
    "GRPO: fused": "**fused head**, GRPO alone",
    "GRPO: verl's fused": "verl's fused head (torch), GRPO alone",
    "GRPO: verl's kernel": "verl's fused head (triton), GRPO alone",
    "products": "the fused head's four products alone",
}


def head(key: str, size: str = SIZES[-1]) -> str:
    """A figure of the fused head at a number of rows: ``head slower 8192`` is its time over that of whole logits."""
    figures = part("head")["figures"]
    names = ("logits + JSD_k", "fused", "fused, 4,096 a chunk", "fused, PyTorch", "products")
    logits, fused, long, pytorch, products = (figures[f"{size} rows: {name}"] for name in names)
    grpo, verl = (figures[f"{size} rows: {name}"]["milliseconds"] for name in ("GRPO: fused", "GRPO: verl's fused"))
    found = {
        "slower": f"{fused['milliseconds'] / logits['milliseconds']:.2f}",
        "slower_in_long_chunks": f"{long['milliseconds'] / logits['milliseconds']:.2f}",
        "slower_without_triton": f"{pytorch['milliseconds'] / logits['milliseconds']:.1f}",
        "of_products": f"{fused['milliseconds'] / products['milliseconds']:.2f}",
        "of_verls": f"{grpo / verl:.2f}",
        "gib": f"{fused['extra_gib']:.1f}",
        "gib_of_logits": f"{logits['extra_gib']:.1f}",
        "topk_error": f"{part('head_correct')['figures'][TOPK]['error']:.0e}",
    }
    return found[key]


def head_correct_table() -> str:
    """Cases that hold and worst errors by dtype and way, beside those of whole logits of the same dtype."""
    cases = {name: case for name, case in part("head_correct")["figures"].items() if name != TOPK}
    body = []
    for dtype in ("fp32", "bf16"):
        for way, label in {"kernels": "fused head, kernels", "PyTorch": "fused head, PyTorch alone"}.items():
            of_one = [case for name, case in cases.items() if name.endswith(f", {dtype}, {way}")]
            holding = f"{sum(case['holds'] for case in of_one)} of {len(of_one)}"
            body.append([dtype, label, holding, *_worst(of_one, "error")])
        of_dtype = [case for name, case in cases.items() if f", {dtype}, " in name]
        body.append([dtype, "whole logits", "", *_worst(of_dtype, "error_of_logits")])
    return table(["dtype", "what", "cases that hold", *ERRORS], body)


def _worst(cases: list[dict[str, Any]], key: str) -> list[str]:
    return [f"{max(case[key][name] for case in cases for name in names):.1e}" for names in ERRORS.values()]


def head_table() -> str:
    """Time and memory from hidden states to gradients by number of rows."""
    figures = part("head")["figures"]
    body = []
    for name, label in VARIANTS.items():
        row = [label]
        for size in SIZES:
            found = figures[f"{size} rows: {name}"]
            if found["milliseconds"] is None:
                row += ["did not run", ""]
            else:
                row += [f"{found['milliseconds']:.1f} ms", f"{found['extra_gib']:.1f} GiB"]
        body.append(row)
    return table(["", *(f"{int(size):,} rows{what}" for size in SIZES for what in ("", ": memory"))], body)


def head_update(key: str) -> str:
    """A figure of the whole update: the ratio furthest from 1, the largest pair's peaks, relative differences."""
    found = part("head_updates")
    pairs = [_pair(arm, size) for size in SIZES for arm in ARMS]
    logits, fused = pairs[-1]
    ratios = [of_fused["seconds"] / of_logits["seconds"] for of_logits, of_fused in pairs]

    def difference(*names: str) -> str:
        of_all = [abs(f[name] / g[name] - 1) for g, f in pairs for name in names if name in g]
        return f"{max(of_all):.0e}"

    values = {
        "ratio": f"{max(ratios, key=lambda ratio: abs(ratio - 1)):.2f}",
        "peak": f"{fused['peak_gib']:.1f}",
        "peak_of_logits": f"{logits['peak_gib']:.1f}",
        "loss_difference": difference("policy_loss", "jsd"),
        "norm_difference": difference("grad_norm"),
        "rollouts": str(found["setting"]["rollouts"]),
        "kept": str(found["setting"]["kept"]),
        "tokens": f"{found['setting']['tokens']:,}",
    }
    return values[key]


def head_updates_table() -> str:
    """Time and peak memory of the whole update with and without the fused head."""
    body = []
    for size in SIZES:
        for arm in ARMS:
            pair = _pair(arm, size)
            seconds, gib = ([_cell(found, key) for found in pair] for key in ("seconds", "peak_gib"))
            body.append([arm, f"{int(size):,}", *seconds, *gib])
    columns = ["whole logits", "fused head", "whole logits: peak memory", "fused head: peak memory"]
    return table(["update", "tokens a micro-batch", *columns], body)


def _pair(arm: str, size: str) -> list[dict[str, Any]]:
    figures = part("head_updates")["figures"]
    return [figures[f"{name}: {arm}, {size} tokens a micro-batch"] for name in ("logits", "fused head")]


def _cell(found: dict[str, Any], key: str) -> str:
    if found["seconds"] is None:
        return "does not fit"
    return f"{found[key]:.2f} s" if key == "seconds" else f"{found[key]:.1f} GiB"
