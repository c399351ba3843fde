// Step through the calls of a verified run: each draft with q, p, the die, and what became of it.

function render({ model, el }) {
  const root = make(el, "div", { class: "armdlab-view armdlab-streams armdlab-acceptance", role: "group", "aria-label": "acceptance view", tabindex: -1 });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true")); // else JupyterLab takes the keys
  const form = make(root, "form", { class: "asked", novalidate: "" });
  const { asked } = askedFor(form, model.get("asked"), [
    ["streams", "input", { type: "number", min: 1, max: 16, step: 1 }],
    ["seed", "input", { type: "number", min: 0, step: 1 }],
  ]);
  const write = make(form, "button", { type: "submit" }, "Write anew");
  const stopButton = make(form, "button", { type: "button", "aria-keyshortcuts": "S" }, "Stop");
  const alert = make(root, "div", { class: "alert", role: "alert" });
  const facts = make(root, "div", { class: "facts" }), counts = {};
  for (const name of ["call", "tokens", "tokens a call"]) counts[name] = make(make(facts, "span", {}, `${name} `), "b", { "data-fact": name });
  const row = make(root, "div", { class: "drafts", role: "list", "aria-label": "the drafts of this call; arrows move from draft to draft, up and down from call to call" });
  const said = make(root, "div", { class: "said", "aria-live": "polite" });
  const bar = make(root, "div", { class: "bar" });
  const back = make(bar, "button", { type: "button", "aria-keyshortcuts": "ArrowLeft" }, "Back");
  const play = make(bar, "button", { type: "button", "aria-keyshortcuts": "Space" }, "Play");
  const next = make(bar, "button", { type: "button", "aria-keyshortcuts": "ArrowRight" }, "Next");
  const line = make(bar, "input", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "network call of the run" });
  const text = make(root, "div", { class: "text", role: "group", "aria-label": "the text so far; what this call made is lit" });
  make(root, "p", { class: "note" }, "The bars: q, the chance by which a draft was drawn; p, its chance by the judge; and min(1, p/q), the chance to stay. The line is the die u: a draft stays if the line falls inside the bar.");

  let run = model.get("verified"), at = 0, timer = 0, cells = [], spans = [], places = new Map(), focus = 0, isLaid = false; // whether the run that is asked for is on the screen
  const wait = 900;

  const figure = (v, digits = 2) => (v > 0 && v < 0.5 * 10 ** -digits ? `< ${(10 ** -digits).toFixed(digits)}` : v < 1 && v > 1 - 0.5 * 10 ** -digits ? `> ${(1 - 10 ** -digits).toFixed(digits)}` : v.toFixed(digits));
  const is = (v, digits) => figure(v, digits).replace(/^(?=\d)/, "= ");
  const stays = ({ p, q }) => Math.min(1, p / q);
  const piece = (of) => `“${visible(of).replace(/^ /, "\u00a0")}”`; // which no line break parts
  const stream = (draft) => Math.floor((draft.at * run.streams) / run.length);
  const made = (call) => call.passed + (call.drawn !== null);
  const refused = (call) => call.passed < call.drafts.length;
  const cellsOf = (call) => (refused(call) || !call.drawn ? call.drafts : [...call.drafts, call.drawn]); // one more, of which there was no draft
  const shown = () => run.calls[at];
  const fate = (call, k) => (k === call.drafts.length ? "more" : k < call.passed ? "kept" : k === call.passed ? "redrawn" : "anew");

  // Two chances that decided something are told with as many digits as it takes to see which is larger.
  function both(chance, u) {
    let digits = 2;
    while (digits < 6 && chance.toFixed(digits) === u.toFixed(digits)) digits++;
    return [figure(chance, digits), figure(u, digits)];
  }

  function sentence(k) {
    const call = shown(), draft = cellsOf(call)[k], what = fate(call, k);
    if (what === "more") return `token ${piece(draft.piece)} of stream ${stream(draft) + 1}: ${k ? "all drafts before it passed, so" : run.streams > 1 ? "nothing was drafted before the first call, so" : "one stream drafts nothing, so"} it is drawn from p itself.`;
    const chance = stays(draft), [a, u] = both(chance, draft.u);
    const name = `draft ${piece(draft.piece)} of stream ${stream(draft) + 1}: q ${is(draft.q)}`;
    if (what === "anew") return `${name}; it stands behind a refused draft, so its p ${is(draft.p)} does not count and its die is not looked at. It saw all but one of the tokens before it, so the next call's draft here is drawn from it: its next q.`;
    if (what === "kept" && chance === 1) return `${name}, p ${is(draft.p)}, so it always stays.`;
    const so = `${name}, p ${is(draft.p)}, so it stays with chance ${a}; the die fell on ${u}`;
    return what === "kept" ? `${so}: kept.` : `${so}: refused, and redrawn as ${piece(call.drawn.piece)} from what q left of p.`;
  }

  function summary() {
    const call = shown();
    if (!call) return "Call 1 draws the first token.";
    const n = call.drafts.length, behind = n - made(call);
    if (!n) return `Call ${at + 1} has no drafts to judge: it draws ${call.drawn ? piece(call.drawn.piece) : "nothing"}${run.streams > 1 ? " and drafts on" : ""}.`;
    const all = `Call ${at + 1} judges ${n} draft${n > 1 ? "s" : ""}: ${call.passed} kept`;
    if (refused(call)) return `${all}, then ${piece(call.drafts[call.passed].piece)} refused and redrawn as ${piece(call.drawn.piece)}${behind ? `, ${behind} to be drafted anew` : ""}.`;
    return call.drawn ? `${all}, none refused, and one more drawn: ${piece(call.drawn.piece)}.` : `${all}, none refused.`;
  }

  function measure(cell, name) {
    const line = make(cell, "div", { class: `measure ${name === "min(1, p/q)" ? "stays" : name}`, "aria-hidden": "true" });
    make(line, "span", { class: "what" }, name);
    const track = make(line, "span", { class: "track" });
    const parts = { line, fill: make(track, "span", { class: "fill" }), value: make(line, "span", { class: "value" }) };
    if (name === "min(1, p/q)") parts.die = make(track, "span", { class: "die" });
    return parts;
  }

  function build() {
    row.replaceChildren();
    text.replaceChildren();
    cells = Array.from({ length: run.streams }, (_, k) => {
      const cell = make(row, "div", { class: "draft", role: "listitem", tabindex: k ? -1 : 0 });
      const parts = { cell, where: make(cell, "div", { class: "where" }), word: make(cell, "bdi", { class: "word" }) };
      for (const [key, name] of [["q", "q"], ["p", "p"], ["stays", "min(1, p/q)"]]) parts[key] = measure(cell, name);
      parts.fate = make(cell, "div", { class: "fate" });
      cell.onpointerenter = () => tell(k);
      cell.onpointerleave = () => { said.textContent = summary(); };
      cell.onfocus = () => { focus = k; tell(k); };
      return parts;
    });
    spans = Array.from({ length: run.length }, () => make(text, "span", { class: "token" }));
    focus = 0;
    index(0);
  }

  // Where each token was made, from some call on.
  function index(from) {
    if (!from) places = new Map();
    run.calls.slice(from).forEach((call, n) => {
      const tokens = call.drafts.slice(0, call.passed).concat(call.drawn ? [call.drawn] : []);
      tokens.forEach((token, k) => places.set(token.at, { call: from + n, redrawn: k === call.passed && refused(call), piece: token.piece, lane: stream(token) }));
    });
    line.max = Math.max(0, run.calls.length - 1);
  }

  function drawCell(parts, call, k) {
    const draft = call && cellsOf(call)[k];
    parts.cell.hidden = !draft;
    if (!draft) return;
    const what = fate(call, k), is_more = what === "more";
    parts.cell.dataset.fate = what;
    parts.cell.style.setProperty("--lane", LANES[stream(draft) % LANES.length]);
    parts.where.textContent = `stream ${stream(draft) + 1}, position ${draft.at}`;
    parts.word.textContent = visible(draft.piece);
    for (const [name, v] of [["q", draft.q], ["p", draft.p], ["stays", stays(draft)]]) {
      parts[name].line.hidden = is_more; // which was not drafted, so there is nothing to weigh
      if (is_more) continue;
      parts[name].fill.style.width = `${100 * v}%`;
      parts[name].value.textContent = figure(v);
    }
    const die = what === "kept" || what === "redrawn";
    parts.stays.die.hidden = !die;
    parts.stays.die.style.left = `${100 * draft.u}%`;
    parts.fate.textContent = is_more ? "one more, drawn from p" : { kept: `✓ kept: u ${is(draft.u)}`, redrawn: `✗ u ${is(draft.u)}: redrawn as ${piece(call.drawn?.piece || "")}`, anew: "↻ to be drafted anew" }[what];
    parts.cell.setAttribute("aria-label", sentence(k));
  }

  function show(number) {
    at = Math.max(0, Math.min(number, run.calls.length - 1));
    const call = shown();
    cells.forEach((parts, k) => drawCell(parts, call, k));
    if (cells[focus].cell.hidden) roam(0, row.contains(document.activeElement));
    let tokens = 0;
    spans.forEach((span, position) => {
      const there = places.get(position), is_made = there && there.call <= at, is_new = is_made && there.call === at;
      tokens += is_made ? 1 : 0;
      span.textContent = is_made ? visible(there.piece) : "·";
      span.className = `token${is_made ? "" : " open"}${is_new ? " new" : ""}${is_new && there.redrawn ? " redrawn" : ""}${is_made && there.piece === END ? " end" : ""}`;
      if (is_made) span.style.setProperty("--lane", LANES[there.lane % LANES.length]);
    });
    line.value = at;
    line.setAttribute("aria-valuetext", `call ${at + 1} of ${run.calls.length}`);
    counts.call.textContent = `${Math.min(at + 1, run.calls.length)} of ${run.calls.length}`;
    counts.tokens.textContent = tokens;
    counts["tokens a call"].textContent = (tokens / (at + 1)).toFixed(2);
    enable(back, at > 0);
    enable(next, at < run.calls.length - 1);
    if (row.contains(document.activeElement)) tell(focus);
    else said.textContent = summary();
  }

  function tell(k) { if (shown() && cellsOf(shown())[k]) said.textContent = sentence(k).replace(/^[dt]/, (letter) => letter.toUpperCase()); }

  function roam(k, moves) {
    if (!cells[k] || cells[k].cell.hidden) return;
    cells[focus].cell.tabIndex = -1;
    focus = k;
    cells[k].cell.tabIndex = 0;
    if (moves) cells[k].cell.focus();
  }

  function stop() { clearTimeout(timer); timer = 0; play.textContent = "Play"; said.setAttribute("aria-live", "polite"); }
  function go(number) { stop(); show(number); }
  function tick() {
    if (at >= run.calls.length - 1) { stop(); return; }
    show(at + 1);
    timer = setTimeout(tick, wait);
  }
  function toggle() {
    if (timer) { stop(); return; }
    if (at >= run.calls.length - 1) show(0);
    play.textContent = "Pause";
    said.setAttribute("aria-live", "off"); // faster than it can be read aloud
    timer = setTimeout(tick, wait / 3);
  }

  function state(name) {
    root.dataset.status = name;
    enable(write, name !== "running");
    enable(stopButton, name === "running");
  }
  const pull = pulling(model, alert, {
    took(content) {
      if (content.begun) { isLaid = true; run = { ...content.begun, calls: [] }; build(); show(0); }
      if (!content.calls) return;
      const from = run.calls.length;
      run.calls.push(...content.calls);
      index(from);
      show(run.calls.length);
    },
    ended: state,
    still: renewed,
  });
  const halt = () => { if (pull.running()) pull.stop(isLaid ? run.calls.length : 0); };

  function open() {
    build();
    const telling = [1, 0].map((kept) => run.calls.findIndex((call) => call.passed >= kept && call.drafts.length > made(call))); // a call with something of each kind
    show(telling.find((number) => number >= 0) ?? 0);
  }
  function renewed() {
    const found = model.get("verified");
    if (pull.busy() || JSON.stringify(found) === JSON.stringify(run)) return;
    stop();
    run = structuredClone(found);
    open();
  }

  form.onsubmit = (event) => { event.preventDefault(); stop(); if (pull.begin(asked())) { isLaid = false; state("running"); } };
  stopButton.onclick = halt;
  back.onclick = () => go(at - 1);
  next.onclick = () => go(at + 1);
  play.onclick = toggle;
  line.oninput = () => go(Number(line.value));
  row.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const acts = { ArrowLeft: () => roam(focus - 1, true), ArrowRight: () => roam(focus + 1, true), ArrowUp: () => go(at - 1), ArrowDown: () => go(at + 1) };
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  });
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT") return;
    if (event.key === " " && event.target.tagName === "BUTTON") return; // which it presses
    const act = { " ": toggle, ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), Home: () => go(0), End: () => go(1e9), s: halt, S: halt }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  themed(root);
  model.on("change:verified", renewed);
  run = structuredClone(run);
  state("ready");
  open();
  return () => { stop(); pull.off(); model.off("change:verified", renewed); };
}

export default { render };
