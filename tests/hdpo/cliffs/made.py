"""A run's files, made small: two problems over three steps, by the recipe's own writers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.group_lines import GROUP_FOLDER, group_lines
from recipe.hdpo.tracking.kept_text import write_kept, write_step
from recipe.hdpo.training.kept_lines import TOKENS, told_tokens
from recipe.hdpo.training.token_record import TOPS, WIDTH

EVIL = "</script><img src=x onerror=alert(1)>&<!--"
FAILED = f"9 {EVIL} \U0001d465 \U0001f389\U0001f389: so says the reference, 9"
# One letter a token.
TOKENIZER = SimpleNamespace(decode=lambda ids: "".join(map(chr, ids)))


def ids(text: str) -> list[int]:
    return [*map(ord, text)]


def record_of(text: str) -> torch.Tensor:
    """The n-th token has divergence 0.01 n; the teacher's tops are it and "z", the student's the other way."""
    table = torch.full((len(text), WIDTH), float("nan"))
    for n, char in enumerate(text):
        table[n, :4] = torch.tensor([0.01 * n, 0.9, 1.0, -1.0])
        tops = table[n, 4:].unflatten(0, (2, TOPS, 3))
        tops[0, 0] = torch.tensor([ord(char), -0.1, -1.0])
        tops[0, 1] = tops[1, 0] = torch.tensor([ord("z"), -3.0, -0.5])
    return table.flatten()


def attempt(key: str, *, kept: bool, reason: str = "", text: str | None = None) -> dict[str, Any]:
    told = {"key": key, "reward": float(kept), "solved": kept, "kept": kept, "reason_not_kept": reason}
    told |= {"truncated": False, "tokens": 9}
    return told if text is None else told | {"text": text}


def cliff(uid: str, problem: str, attempts: list[dict[str, Any]], **fields: Any) -> GroupRecord:
    shown = "1+2=3"
    told = {"source": "solution", "shown": shown, "shown_ids": ids(shown), "plain_prompt": "user 1+2=?"}
    told["asked"] = f"{EVIL} 1+2=?"
    told["prompt"] = [["", "1+2=?"], ["added", "\nReference: "], ["shown", shown]]
    return GroupRecord(problem, cliff=True, solved=False, size=2, uid=uid, privileged=told, told=attempts, **fields)


def kept_line(key: str, text: str, recorded: bool = True) -> dict[str, Any]:
    line = {"key": key, "hdpo_responses": text}
    return line | {TOKENS: told_tokens(TOKENIZER, ids(text), [1] * len(text), record_of(text))} if recorded else line


def rollout_lines(uid: str, *outputs: str, truth: str = "3") -> list[dict[str, Any]]:
    """As verl writes them."""
    return [
        {"input": f"user {EVIL} 1+2=?", "output": text, "gts": truth, "score": 0.0, "step": 1, "uid": f"{uid}_{i}_0"}
        for i, text in enumerate(outputs)
    ]


def make_run(folder: Path) -> Path:
    """Step 1: p1 and p2 are cliffs; of p1 one privileged rollout is kept. Step 2: p1 is solved, p2 a cliff again.
    Step 3: the last one's cliff is re-issued under a uid of its own."""
    text = f"1+2=3 as the reference says {EVIL}"
    first = [attempt("a_2_0", kept=True), attempt("a_3_0", kept=False, reason="failed", text=FAILED)]
    steps = {
        1: [cliff("a", "p1", first), cliff("b", "p2", [], too_long=1)],
        2: [
            GroupRecord("p1", cliff=False, solved=True, size=2, successes=1, uid="c"),
            cliff("d", "p2", []),
        ],
        3: [cliff("e", "p2", [attempt("e_2_0", kept=True)], reissued=True, cliff_uid="d")],
    }
    steps[3][0].cliff = False
    # As a run of an earlier version wrote it.
    del steps[1][1].privileged["asked"]
    rollouts = {1: ["a", "b"], 2: ["c", "d"], 3: []}
    for step, records in steps.items():
        write_step(str(folder), GROUP_FOLDER, step, group_lines(records))
        lines = [line for uid in rollouts[step] for line in rollout_lines(uid, f"4 {EVIL} of {uid}", "5")]
        (folder / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_kept(str(folder), 1, [kept_line("a_2_0", text)])
    write_kept(str(folder), 3, [kept_line("e_2_0", "1+2=3", recorded=False)])
    return folder
