"use strict";
(() => {
  const cliffs = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const AT_ONCE = 50, FULL = 0.35;

  // All text goes in as text: nothing that a run wrote is read as HTML.
  function el(name, css, text) {
    const node = document.createElement(name);
    if (css) node.className = css;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  }
  function add(parent, ...nodes) { parent.append(...nodes.filter(Boolean)); return parent; }
  const line = (text) => text.replace(/\s+/g, " ").trim();
  const num = (x, digits) => x === null || x === undefined ? "?" : Number(x).toFixed(digits);

  for (const c of cliffs) {
    const after = c.visits.filter((v) => v[0] > c.step);
    c.kept = c.attempts.filter((a) => a.kept).length;
    c.later = after.some((v) => v[1] === "solved") ? "solved" : after.some((v) => v[1] === "cliff") ? "cliff" : after.length ? "" : "none";
    const marked = c.attempts.filter((a) => a.kept);
    c.speaks = marked.some((a) => a.speaks && a.speaks.length);
    c.copies = marked.some((a) => a.run && a.run[1] - a.run[0] >= (a.tokens.length + a.beyond) / 2 && a.run[1] > a.run[0]);
    c.mean = Math.max(-1, ...marked.map((a) => a.mean ?? -1));
    const texts = c.attempts.map((a) => a.tokens ? a.tokens.join("") : a.text || "");
    c.all = [c.uid, c.cliff_uid, c.problem, c.question, c.truth, ...c.failed.map((f) => f[1]), ...texts,
      ...c.prompt.map((p) => p[1])].join("\n").toLowerCase();
  }

  // ---- one token's tip
  const tip = $("tip");
  let over = null;
  const visible = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "␣") || "▫";
  function topTable(title, names, flat, elsewhere) {
    const table = el("table");
    add(table, add(el("tr"), el("th", "", title), el("th", "", "p"), el("th", "", "q")));
    for (let i = 0; i < flat.length; i += 3)
      add(table, add(el("tr"), el("td", "", visible(names[flat[i]])), el("td", "", num(flat[i + 1], 3)), el("td", "", num(flat[i + 2], 3))));
    if (elsewhere !== undefined)
      add(table, add(el("tr"), el("td", "", "elsewhere"), el("td", "", ""), el("td", "", num(elsewhere, 3))));
    return table;
  }
  function show(span) {
    if (over) over.classList.remove("on");
    over = span;
    span.classList.add("on");
    const a = span.attempt, i = span.place;
    tip.replaceChildren();
    add(tip, el("div", "", `${visible(a.tokens[span.token])}  divergence ${num(a.d[i], 4)}, student q ${num(a.q[i], 3)}`),
      topTable("teacher", a.names, a.tt[i]), topTable("student", a.names, a.st[i], Math.max(0, 1 - a.mass[i])));
    tip.hidden = false;
    const box = span.getClientRects()[0] || span.getBoundingClientRect(), width = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left, width - tip.offsetWidth - 8));
    const above = box.bottom + tip.offsetHeight + 8 > window.innerHeight && box.top > tip.offsetHeight + 8;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above ? box.top - tip.offsetHeight - 6 : box.bottom + 6) + window.scrollY}px`;
  }
  function hide() { tip.hidden = true; if (over) over.classList.remove("on"); over = null; }
  const tokenOf = (event) => event.target instanceof Element ? event.target.closest(".t") : null;
  document.addEventListener("pointerover", (e) => { const t = tokenOf(e); if (t) show(t); else if (e.pointerType === "mouse") hide(); });
  document.addEventListener("click", (e) => { const t = tokenOf(e); if (t) { show(t); t.focus({preventScroll: true}); } else hide(); });
  document.addEventListener("focusin", (e) => { const t = tokenOf(e); if (t) show(t); });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") return hide();
    const t = tokenOf(e), step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10}[e.key];
    if (!t || !step) return;
    const all = [...t.parentNode.querySelectorAll(".t")];
    const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(t) + step))];
    e.preventDefault();
    t.tabIndex = -1; next.tabIndex = 0; next.focus();
  });

  // ---- one cliff
  function tokens(a) {
    const box = el("pre", "tokens"), places = new Map((a.at || a.tokens.map((_, i) => i)).map((t, i) => [t, i]));
    const within = (spans, t) => spans.some(([from, to]) => t >= from && t < to);
    a.tokens.forEach((text, t) => {
      const i = places.get(t);
      const span = el("span", i === undefined ? "other" : "t", text || "▫");
      if (!text) span.classList.add("piece");
      if (within([a.run], t)) span.classList.add("run");
      if (within(a.speaks, t)) span.classList.add("speaks");
      if (i !== undefined) {
        Object.assign(span, {attempt: a, place: i, token: t, tabIndex: i ? -1 : 0});
        span.style.setProperty("--d", Math.min(1, a.d[i] / FULL).toFixed(3));
      }
      box.append(span);
    });
    if (a.beyond) add(box, el("span", "other", `\n[... ${a.beyond} more tokens ...]`));
    return box;
  }
  function marked(text, spans) {
    // Spans count characters; a string of JavaScript counts some of them twice.
    const box = el("pre"), chars = Array.from(text), part = (from, to) => chars.slice(from, to).join("");
    let at = 0;
    for (const [from, to] of spans) { add(box, part(at, from), el("span", "speaks", part(from, to))); at = to; }
    return add(box, part(at));
  }
  function attempt(a) {
    const part = el("div", "whole"), said = [`reward ${a.reward}`, `${a.n} tokens`];
    if (a.cut) said.push("stopped by the length limit");
    if (a.mean !== undefined && a.mean !== null) said.push(`mean divergence ${num(a.mean, 4)}`);
    if (a.run && a.run[1] > a.run[0]) said.push(`longest shared run ${a.run[1] - a.run[0]} of ${a.tokens.length + a.beyond} tokens`);
    if (a.speaks && a.speaks.length) said.push("speaks of a reference");
    add(part, el("h3", "", a.kept ? "Kept trajectory" : `Not kept: ${a.why}`), el("p", "meta", said.join(", ")));
    if (a.tokens) return add(part, tokens(a));
    if (a.kept) add(part, el("p", "meta", "Divergences were not recorded: nothing was distilled at this step (λ = 0), or more was kept than a step records."));
    return add(part, a.text === undefined ? el("p", "meta", "Its text was not written: the run was stopped before.") : marked(a.text, a.speaks));
  }
  function detail(c) {
    const body = el("div"), pair = el("div", "pair");
    add(body, el("p", "meta", `step ${c.step}, problem ${c.problem}, group ${c.uid}${c.cliff_uid ? `, re-issued for ${c.cliff_uid}` : ""}`));
    const visits = el("div", "visits");
    for (const [step, outcome, good, of] of c.visits)
      add(visits, el("span", `visit ${outcome}${step === c.step ? " now" : ""}`, `step ${step}: ${outcome === "unknown" ? "not known" : outcome}, ${good} of ${of}`));
    add(body, el("h3", "", "Visits of this problem (right rollouts)"), visits);
    const left = el("div");
    add(left, el("h3", "", "Problem"), el("pre", "", c.question), c.truth === null ? null : el("p", "meta", `Ground truth: ${c.truth}`));
    const prompt = el("pre");
    for (const [kind, text] of c.prompt) add(prompt, kind ? el("mark", kind, text) : text);
    const right = el("div");
    add(right, el("h3", "", `Privileged prompt${c.source ? `, source ${c.source}` : ""}`), c.prompt.length ? prompt : el("p", "meta", "No privileged rollout was scored."));
    add(body, add(pair, left, right));
    const skipped = Object.entries(c.skipped).map(([k, n]) => `${n} ${k.replace(/_/g, " ")}`);
    if (skipped.length) add(body, el("p", "meta", `Privileged rollouts without a reward: ${skipped.join(", ")}`));
    for (const a of c.attempts) add(body, attempt(a));
    if (c.rewards.length) {
      add(body, el("h3", "", `Failed rollouts: ${c.failed.length} of ${c.rewards.length}`), el("p", "meta", `All rewards: ${c.rewards.join(", ")}`));
      const failed = el("div", "pair");
      for (const [reward, text] of c.failed) add(failed, add(el("div"), el("p", "meta", `reward ${reward}`), el("pre", "", text)));
      add(body, failed);
    } else add(body, el("p", "meta", "Its failed rollouts are not in the files."));
    return body;
  }
  function item(c) {
    const node = el("li", "cliff"), box = el("details"), head = el("summary");
    const question = line(c.asked || c.question), chars = Array.from(question);
    add(head, el("span", "q", chars.length > 220 ? `${chars.slice(0, 220).join("")}…` : question || c.problem), el("span", "tag", `step ${c.step}`),
      el("span", "tag", `${c.kept} of ${c.attempts.length} kept`), c.later === "solved" ? el("span", "tag good", "solved later") : null,
      c.speaks ? el("span", "tag", "speaks of a reference") : null);
    box.addEventListener("toggle", () => { if (box.open && !box.drawn) { box.drawn = true; add(box, detail(c)); } });
    return add(node, add(box, head));
  }

  // ---- the list
  const list = $("list"), more = $("more");
  let found = [], shown = 0;
  function next() {
    add(list, ...found.slice(shown, shown + AT_ONCE).map(item));
    shown = Math.min(found.length, shown + AT_ONCE);
    more.hidden = shown >= found.length;
  }
  function filter() {
    const words = $("search").value.toLowerCase().trim(), kept = $("kept").value, later = $("later").value, leak = $("leak").value;
    found = cliffs.filter((c) => (!words || c.all.includes(words)) && (!kept || (kept === "yes") === c.kept > 0) &&
      (!later || c.later === later) && (!leak || c[leak]));
    const order = {step: (a, b) => a.step - b.step, mean: (a, b) => b.mean - a.mean,
      problem: (a, b) => a.problem < b.problem ? -1 : a.problem > b.problem ? 1 : a.step - b.step}[$("order").value];
    found.sort(order);
    hide();
    list.replaceChildren();
    shown = 0;
    next();
    $("count").textContent = `${found.length} of ${cliffs.length} cliff${cliffs.length === 1 ? "" : "s"}`;
  }
  for (const id of ["search", "kept", "later", "leak", "order"]) $(id).addEventListener("input", filter);
  more.addEventListener("click", next);
  filter();
  // #UID opens one cliff; without it the first one is open.
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = wanted && cliffs.find((c) => c.uid === wanted || c.cliff_uid === wanted || c.problem === wanted);
  if (first) { $("search").value = first.uid; filter(); }
  const open = list.querySelector("details");
  if (open) open.open = true;
})();
