"""The page in a real headless browser: what its script draws, by mouse, touch and keyboard.

Skipped where there is none.

A script that is added to the page does what a reader would, and leaves what it saw in the document, which the browser
prints.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from typing import Any

import pytest

from recipe.hdpo.algorithm.leakage import reference_pattern
from recipe.hdpo.cliffs.files import Run
from recipe.hdpo.cliffs.page import cliff_page
from tests.hdpo.cliffs.made import EVIL, make_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is there")

READER = """
const seen = {}, one = (s) => document.querySelector(s), all = (s) => [...document.querySelectorAll(s)];
const set = (id, value) => { one("#" + id).value = value; one("#" + id).dispatchEvent(new Event("input")); };
const listed = () => all("li.cliff .q").length;
window.onerror = (said) => { seen.error = String(said); };
setTimeout(() => {
  seen.listed = listed();
  seen.titles = all("li.cliff .q").map((title) => title.textContent);
  const tokens = all(".t");
  seen.text = one("pre.tokens").textContent;
  seen.run = all("pre.tokens .run").map((t) => t.textContent).join("");
  seen.speaks = all("pre.tokens .speaks").map((t) => t.textContent).join("");
  seen.colours = [tokens[0], tokens[20]].map((t) => getComputedStyle(t).backgroundColor);
  tokens[1].dispatchEvent(new PointerEvent("pointerover", {bubbles: true, pointerType: "mouse"}));
  seen.tip = one("#tip").hidden ? null : one("#tip").textContent;
  document.body.click();
  seen.away = one("#tip").hidden;
  tokens[2].click();
  seen.tapped = one("#tip").textContent;
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
  seen.key = one("#tip").textContent;
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
  seen.escaped = one("#tip").hidden;
  set("search", "of D"); seen.found = listed(); set("search", "");
  set("kept", "yes"); seen.kept = listed(); set("kept", "");
  set("later", "solved"); seen.solved = listed(); set("later", "");
  set("leak", "speaks"); seen.spoke = listed(); set("leak", "");
  set("order", "problem"); seen.count = one("#count").textContent;
  all("li.cliff details").forEach((d) => { d.open = true; });
  setTimeout(() => {
    seen.groups = all("li.cliff details p.meta").map((p) => p.textContent).filter((text) => text.startsWith("step"));
    seen.marked = all("pre:not(.tokens) .speaks").map((t) => t.textContent);
    seen.images = all("img").length;
    seen.wide = {};
    const page = document.documentElement.outerHTML;
    for (const width of [400, 1400]) {
      const frame = document.createElement("iframe");
      frame.style.cssText = `width:${width}px;height:900px;border:0`;
      document.body.append(frame);
      frame.contentDocument.open(); frame.contentDocument.write(page); frame.contentDocument.close();
      const root = frame.contentDocument.documentElement;
      seen.wide[width] = [root.scrollWidth, root.clientWidth];
      frame.remove();
    }
    const out = document.createElement("pre");
    out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
  }, 300);
}, 300);
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    page, _ = cliff_page(Run(make_run(folder / "rollouts")), reference_pattern())
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"<script id='reader'>{READER}</script></body>"), encoding="utf-8")
    assert BROWSER
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += ["--window-size=1400,900", "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def test_the_first_cliff_is_open_with_its_tokens_coloured_by_divergence(seen: dict[str, Any]) -> None:
    assert "error" not in seen and seen["listed"] == 3
    assert seen["text"] == f"1+2=3 as the reference says {EVIL}"
    # 0 and 0.2 nats: nothing of the colour, and 0.2 / 0.35 of 75 % of it.
    alphas = [float(re.findall(r"[\d.]+", colour)[3]) for colour in seen["colours"]]
    assert alphas == pytest.approx([0.0, 0.75 * 0.2 / 0.35], abs=0.01)
    assert (seen["run"], seen["speaks"]) == ("1+2=3", "the reference")


def test_a_cliff_is_headed_by_its_problem_or_where_none_was_written_by_all_that_the_model_read(
    seen: dict[str, Any],
) -> None:
    problem = f"{EVIL} 1+2=?"
    assert seen["titles"] == [problem, f"user {problem}", problem]


def test_a_tokens_divergence_and_tops_are_told_by_mouse_touch_and_keyboard(seen: dict[str, Any]) -> None:
    assert "divergence 0.0100, student q 0.368" in seen["tip"] and "teacherpq+0.905" in seen["tip"]
    assert "elsewhere0.100" in seen["tip"] and seen["away"]
    assert "divergence 0.0200" in seen["tapped"] and "divergence 0.0300" in seen["key"] and seen["escaped"]


def test_search_and_filters_work_without_a_server(seen: dict[str, Any]) -> None:
    # The re-issued cliff has the rollouts of the group that failed.
    assert (seen["found"], seen["kept"], seen["solved"], seen["spoke"]) == (1, 2, 1, 1)
    assert seen["count"] == "3 of 3 cliffs"


def test_a_cliff_tells_its_group_and_a_reissued_one_the_group_that_failed(seen: dict[str, Any]) -> None:
    assert "step 1, problem p1, group a" in seen["groups"]
    assert "step 3, problem p2, group e, re-issued for d" in seen["groups"]


def test_words_are_marked_where_they_stand_behind_letters_that_a_script_counts_twice(seen: dict[str, Any]) -> None:
    assert seen["marked"] == ["the reference"]


def test_what_a_model_wrote_makes_no_element(seen: dict[str, Any]) -> None:
    assert seen["images"] == 0 and EVIL in seen["text"]


def test_nothing_is_wider_than_a_phone_or_a_desktop(seen: dict[str, Any]) -> None:
    for width, (needed, there) in seen["wide"].items():
        assert needed <= there <= int(width)
