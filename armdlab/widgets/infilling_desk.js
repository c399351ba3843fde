// Leave words out, have the gaps filled, compare what came. Pull protocol: two questions are in flight while gaps are filled.

const DESK_ORDERS = {
  "left to right": "The first gap first; each token sees all that is kept, and the gaps filled before it.",
  "right to left": "The last gap first.",
  random: "Any order of single tokens, drawn by the seed.",
  "as clicked": "The words in the order in which you left them out.",
  "surest first": "At each step the gap of whose likeliest token the model is surest.",
};
const DESK_COMMON = ["whole text, left to right", "gaps, left to right", "gaps, right to left"];

const seen = (piece) => (piece === "<|endoftext|>" ? "\u220e" : piece.replace(/\n/g, "\u23ce"));
const bare = (piece) => seen(piece).trim() || "\u2423";
const isUnseen = (piece) => /^[\p{Cf}\s]*$/u.test(piece); // a mark of direction must not turn the words behind it
const nats = (value) => value.toFixed(2).replace("-", "\u2212");
const chance = (p) => (p >= 0.995 ? "> 0.99" : p < 0.01 ? "< 0.01" : p.toFixed(2));
const listedAs = (candidate) => candidate.fills.map((fill) => bare(fill)).join(" \u2026 ");

function render({ model, el }) {
  const root = frame(el, "armdlab-desk", "infilling desk");
  const id = `armdlab-${Math.random().toString(36).slice(2)}`, me = id.slice(8); // answers reach every view of the widget
  let state = model.get("state"), masked = [...state.masked], cells = [], frames = new Map(), chosen = 0, before = 0, number = 0, running = false, quietly = 0, sent = state.text, moved = null, isAhead = false;
  const run = () => `${me}:${number}`;

  // ------------------------------------------------------------------------------ the text, and what is left out
  const drawer = make(root, "details", { class: "write" });
  make(drawer, "summary", {}, "Edit or replace the text");
  const text = make(drawer, "textarea", { rows: 5, spellcheck: "false", autocomplete: "off", dir: "auto", "aria-label": "the text" });
  const tools = make(root, "div", { class: "options" });
  make(tools, "span", { class: "hint" }, "Click words to leave them out; keys: arrows, Space.");
  const spring = make(tools, "span", { class: "spring" });
  const tale = make(spring, "button", { type: "button" }, "Another tale");
  const back = make(spring, "button", { type: "button" }, "Keep every word");
  const page = make(root, "div", { class: "page words", role: "group", "aria-label": "the words of the text; pressed ones are left out", dir: "auto" });
  let words = [];
  const walk = roving(page, () => [words]);

  const form = make(root, "form", { class: "asked" }), first = model.get("asked"), controls = {};
  function control(name, tag, attributes, options = []) {
    const label = make(form, "label", {}, `${name} `);
    controls[name] = make(label, tag, attributes);
    for (const option of options) make(controls[name], "option", { value: option }, option);
    controls[name].value = first[name];
  }
  control("order", "select", {}, Object.keys(DESK_ORDERS));
  control("streams", "input", { type: "number", min: 1, step: 1 });
  control("temperature", "input", { type: "number", min: 0, step: 0.1 });
  control("seed", "input", { type: "number", min: 0, step: 1 });
  const fill = make(form, "button", { type: "submit", class: "main" }, "Fill the gaps");
  const halt = make(form, "button", { type: "button" }, "Stop");
  const progress = make(form, "output", { class: "hint" });
  const hint = make(root, "p", { class: "note order" });
  const alert = make(root, "div", { class: "alert", role: "alert" });

  // ------------------------------------------------------------------------------ what fills it
  const result = make(root, "div", { class: "head result" });
  const title = make(result, "h4", { class: "title" });
  const keep = make(result, "button", { type: "button" }, "Make it the text");
  const filled = make(root, "div", { class: "page filled", role: "list", "aria-label": "the text with its gaps filled; arrows move from token to token", dir: "auto" });
  const read = roving(filled, () => [cells.map((cell) => cell.span)], (_, at) => tell(at));
  const said = make(root, "p", { class: "said", "aria-live": "polite" });
  const own = make(root, "form", { class: "asked own" });
  const gapLabel = make(own, "label", {}, "in gap ");
  const gap = make(gapLabel, "select");
  const ownLabel = make(own, "label", { class: "wide" }, "write ");
  const mine = make(ownLabel, "input", { type: "text", spellcheck: "false", autocomplete: "off", dir: "auto" });
  const weigh = make(own, "button", { type: "submit" }, "Weigh my words");

  const bench = make(root, "div", { class: "bench" });
  const head = make(bench, "div", { class: "head" });
  make(head, "b", {}, "Candidates, likeliest first");
  const commonLabel = make(head, "label", {}, "compared under ");
  const common = make(commonLabel, "select");
  for (const name of DESK_COMMON) make(common, "option", { value: name }, name);
  const clear = make(head, "button", { type: "button" }, "Clear");
  const table = make(bench, "table");
  const none = make(bench, "p", { class: "note" });
  const legend = make(bench, "p", { class: "note" }, "log p: nats, exact, of all that fills the gaps, given all that is kept, in the order that stands below the words. Compared: all candidates under one order, like with like. Share: its chance among the listed texts.");

  // ------------------------------------------------------------------------------ the page
  const wishes = [], { ask, off } = asking(model, () => wishes.shift(), (late) => told(late), wishes);
  const isStale = () => text.value !== state.text;

  // A page says all of itself, so a newer one takes the place of one that still waits; other wishes wait their turn.
  function follow(what) {
    if (running) stop();
    if (what.want === "page" && wishes.at(-1)?.want === "page") wishes.pop();
    wishes.push(what);
    ask();
  }
  function changed() { follow({ want: "page", text: text.value, masked: isStale() ? null : masked }); }

  text.oninput = () => { sent = text.value; root.toggleAttribute("data-stale", isStale()); changed(); };
  tale.onclick = () => follow({ want: "tale" });
  back.onclick = () => { masked = []; isAhead = true; mark(); changed(); };

  function leave(word, out) {
    if (isStale() || masked.includes(word) === out) return;
    masked = out ? [...masked, word] : masked.filter((other) => other !== word);
    isAhead = true;
    mark();
    changed();
  }

  // The space before a word is not of its colour: beside the word, so that the text still reads as it is.
  function apart(parent, piece, attributes) {
    const letters = piece.trimStart(), span = { "aria-label": bare(piece), ...attributes };
    if (letters) parent.append(piece.slice(0, piece.length - letters.length));
    if (isUnseen(piece)) span.class += " unseen";
    return make(parent, "span", span, letters === "<|endoftext|>" ? seen(letters) : letters || piece.replace(/\n/g, "\u23ce\n"));
  }

  function mark() {
    words.forEach((span, word) => {
      const out = masked.includes(word);
      span.setAttribute("aria-pressed", out);
      span.classList.toggle("joins", out && masked.includes(word - 1));
    });
  }

  function drawWords() {
    if (words.length !== state.words.length || words.some((span, word) => span.dataset.piece !== state.words[word])) {
      page.replaceChildren();
      words = state.words.map((piece, word) => {
        const span = apart(page, piece, { class: "word", role: "button", tabindex: -1 });
        span.dataset.piece = piece;
        span.onpointerdown = (event) => { if (event.button) return; moved = !masked.includes(word); leave(word, moved); };
        span.onpointerenter = (event) => { if (event.buttons & 1 && moved !== null) leave(word, moved); };
        span.onclick = (event) => { if (!event.detail) leave(word, !masked.includes(word)); }; // a reader's click, without a pointer
        span.onkeydown = (event) => {
          if (event.key !== " " && event.key !== "Enter") return;
          event.preventDefault();
          leave(word, !masked.includes(word));
        };
        return span;
      });
      walk.place(0, 0, false);
    }
    mark();
  }
  const lifted = () => { moved = null; };
  window.addEventListener("pointerup", lifted);

  // ------------------------------------------------------------------------------ a run
  function status(name) {
    running = name === "running";
    listen();
    root.dataset.status = name;
    fill.disabled = weigh.disabled = running;
    halt.disabled = !running;
    if (name === "stopped") progress.textContent = `stopped after ${counted(frames.size)}; an unfinished filling is not listed`;
    if (name !== "running" && name !== "stopped") progress.textContent = "";
  }
  const counted = (n) => `${n} token${n === 1 ? "" : "s"}`;
  const open = () => state.gaps.reduce((sum, { tokens }) => sum + tokens, 0);

  function begin(words) {
    if (running) return; // a second click never starts a second run
    number++;
    frames = new Map();
    alert.textContent = "";
    const asked = { order: controls.order.value, ...Object.fromEntries(["streams", "temperature", "seed"].map((name) => [name, Number(controls[name].value)])) };
    if (words) asked.own = words;
    status("running");
    progress.textContent = `0 of ${counted(open())}`;
    before = chosen;
    chosen = -1;
    keep.hidden = true;
    drawTable();
    if (!words) drawFilled();
    model.send({ want: "run", run: run(), asked, text: text.value, masked: isStale() ? null : masked });
  }

  // Whoever waits for a run is told where no answer comes.
  function listen() {
    clearTimeout(quietly);
    if (running) quietly = setTimeout(() => told(true), 6000);
  }

  const more = () => model.send({ want: "steps", run: run(), budget_ms: 30 });
  function stop() { model.send({ want: "stop", run: run() }); status("stopped"); }

  function answered(content) {
    if (!running || content.run !== run()) return;
    listen();
    told();
    if (content.status === "failed") { status("failed"); chosen = state.candidates[before] ? before : 0; told(); draw(); return; }
    if (content.status === "old") { status("stopped"); return; } // another view of the desk has begun a run
    for (const step of content.made || []) {
      for (const made of step) paint(made);
      progress.textContent = `${frames.size} of ${counted(open())}`;
    }
    if (content.status === "running") more();
    if (content.started) more();
    if (content.status === "finished") {
      chosen = content.newest;
      if (!owned) controls.seed.value = Number(controls.seed.value) + 1; // the next click fills anew
      status("finished");
      draw();
    }
  }

  function paint({ position, piece }) {
    frames.set(position, piece);
    const cell = cells.find(({ at }) => at && at[0] === position);
    if (!cell) return;
    cells.forEach(({ span }) => span.classList.remove("new"));
    cell.span.textContent = bare(piece);
    cell.span.classList.remove("open");
    cell.span.classList.add("loose");
    cell.span.classList.add("new");
  }

  let owned = false;
  form.onsubmit = (event) => { event.preventDefault(); owned = false; begin(); };
  own.onsubmit = (event) => { event.preventDefault(); owned = true; begin({ gap: Number(gap.value), words: mine.value, like: liked() }); };
  for (const sends of [form, own]) sends.addEventListener("keydown", (event) => { // JupyterLab keeps a field's Enter from its form
    if (event.key !== "Enter" || event.isComposing || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    sends.requestSubmit();
  });
  halt.onclick = () => { if (running) stop(); };
  controls.order.onchange = () => { hint.textContent = DESK_ORDERS[controls.order.value]; };
  keep.onclick = () => { if (candidate()) follow({ want: "keep", candidate: chosen }); };
  common.onchange = () => follow({ want: "common", common: common.value });
  clear.onclick = () => { chosen = 0; follow({ want: "clear" }); };
  gap.onchange = () => prefill();

  const candidate = () => state.candidates[chosen];
  const liked = () => (candidate() ? chosen : null);

  // ------------------------------------------------------------------------------ the filled text
  function drawFilled() {
    const now = candidate(), gapOf = new Map(state.gaps.flatMap(({ words: of }, n) => of.map((word) => [word, n])));
    title.textContent = now ? `Filled: ${now.labels.join(", ")}, ${now.how}` : running ? "Being filled" : state.gaps.length ? "Not filled yet" : "No word is left out yet";
    filled.replaceChildren();
    cells = [];
    let last = -1;
    state.words.forEach((piece, word) => {
      const n = gapOf.get(word);
      if (n === undefined) { make(filled, "span", isUnseen(piece) ? { class: "unseen" } : {}, piece); return; }
      if (n === last) return;
      last = n;
      const { start, tokens } = state.gaps[n];
      const made = now ? now.cells[n] : Array.from({ length: tokens }, (_, i) => ({ positions: [start + i], piece: "", isOpen: true }));
      for (const cell of made) {
        const span = cell.isOpen ? make(filled, "span", { class: "cell open", role: "listitem", tabindex: -1 }, "\u2002") : apart(filled, cell.piece, { class: "cell", role: "listitem", tabindex: -1 });
        const at = cells.length;
        if (!cell.isOpen) span.style.setProperty("--p", Math.exp(cell.log_prob).toFixed(3));
        span.onpointerenter = () => tell(at);
        span.onpointerleave = () => quiet();
        span.onclick = () => { gap.value = n; prefill(); };
        cells.push({ ...cell, span, gap: n, at: cell.positions });
      }
    });
    read.place(0, 0, false);
    quiet();
  }

  function quiet() {
    cells.forEach(({ span }) => span.classList.remove("saw"));
    said.textContent = candidate() ? "Point at a filled token, or walk to it with the arrows, to read how it came to be." : "";
  }

  function tell(at) {
    const cell = cells[at];
    if (!cell) return;
    cells.forEach(({ span }) => span.classList.remove("saw"));
    const where = `position ${cell.positions.join(", ")}`;
    if (cell.isOpen) { said.textContent = `A gap of one token at ${where}.`; return; }
    const step = Math.min(...cell.steps), before = cells.filter((other) => !other.isOpen && Math.max(...other.steps) < step);
    before.forEach(({ span }) => span.classList.add("saw"));
    const total = candidate().steps, kept = state.n_tokens.reduce((sum, n) => sum + n, 0) - open();
    const steps = cell.steps.length > 1 ? `at steps ${cell.steps.join(", ")} of ${total}` : `at step ${step} of ${total}`;
    const others = cell.others.map(([piece, p]) => `${quoted(bare(piece))} ${chance(p)}`).join(", ");
    said.textContent = `${quoted(bare(cell.piece))} at ${where}: filled ${steps}, chance ${chance(Math.exp(cell.log_prob))}, log p ${nats(cell.log_prob)}; saw the ${kept} tokens that are kept and ${counted(before.reduce((sum, other) => sum + other.positions.length, 0))} of the gaps.${others ? ` The likeliest there: ${others}.` : ""}`;
  }

  let offered = null; // what a reader has begun to write stays, unless another gap or candidate is chosen
  function prefill() {
    const words = candidate()?.fills[gap.value]?.trim() ?? "", offer = `${state.text}:${gap.value}:${words}`;
    if (offer !== offered) mine.value = words;
    offered = offer;
  }

  // ------------------------------------------------------------------------------ the candidates
  function drawTable() {
    const had = table.contains(document.activeElement) ? document.activeElement.value : null;
    const ranked = state.candidates.map((one, n) => [one, n]).sort(([a], [b]) => b.common - a.common);
    none.textContent = ranked.length ? "" : "Nothing is listed for these gaps yet. Fill them, or weigh words of your own.";
    legend.hidden = table.hidden = !ranked.length;
    table.replaceChildren();
    if (!ranked.length) return;
    const top = make(make(table, "thead"), "tr");
    for (const name of ["candidate", "log p", "compared", "share"]) make(top, "th", { scope: "col", class: name === "candidate" ? "" : "number" }, name);
    const body = make(table, "tbody");
    for (const [one, n] of ranked) {
      const row = make(body, "tr", { class: n === chosen ? "chosen" : "" });
      const label = make(make(row, "td"), "label", { class: "fills" });
      const radio = make(label, "input", { type: "radio", name: id, value: n });
      radio.checked = n === chosen;
      radio.onchange = () => { chosen = n; draw(); };
      const told = make(label, "span");
      make(told, "bdi", {}, listedAs(one));
      const by = make(told, "span", { class: "by" }, `${one.labels.join(", ")}; ${one.how}, ${one.steps} step${one.steps === 1 ? "" : "s"}${one.verdict ? "; " : ""}`);
      make(by, "span", { class: `grammar ${one.is_tale ? "right" : "wrong"}` }, one.verdict);
      make(row, "td", { class: "number" }, nats(one.log_prob));
      make(row, "td", { class: "number compared" }, nats(one.common));
      const share = make(make(row, "td", { class: "number" }), "span", { class: "share" }, chance(one.share));
      share.style.setProperty("--share", one.share);
      if (had === String(n)) radio.focus({ preventScroll: true });
    }
  }

  function draw() {
    drawWords();
    if (!running) drawFilled();
    const was = gap.value;
    gap.replaceChildren();
    state.gaps.forEach(({ original }, n) => make(gap, "option", { value: n }, `${n + 1}: ${[...bare(original)].slice(0, 24).join("")}`));
    gap.value = state.gaps[was] ? was : 0;
    own.hidden = !state.gaps.length;
    keep.hidden = !candidate();
    clear.hidden = !state.candidates.length;
    common.value = state.common;
    prefill();
    drawTable();
    root.toggleAttribute("data-stale", isStale());
  }

  function renewed() {
    const before = state;
    state = model.get("state");
    if (before.text !== state.text || JSON.stringify(masked) === JSON.stringify(state.masked)) isAhead = false;
    if (!isAhead) masked = [...state.masked]; // else an answer to an earlier click: later ones are on their way
    if (text.value === before.text || document.activeElement !== text || sent !== text.value) text.value = state.text;
    if (JSON.stringify(before.gaps) !== JSON.stringify(state.gaps) || before.text !== state.text) chosen = 0;
    if (!running) draw();
  }

  function told(late) {
    alert.textContent = late === true ? "No answer from the kernel yet. If it was restarted, run the cell again." : model.get("message");
  }

  model.on("msg:custom", answered);
  model.on("change:state", renewed);
  model.on("change:message", told);
  text.value = state.text;
  hint.textContent = DESK_ORDERS[controls.order.value];
  status("ready");
  told();
  draw();
  return () => { number++; running = false; clearTimeout(quietly); off(); window.removeEventListener("pointerup", lifted); model.off("msg:custom", answered); model.off("change:state", renewed); model.off("change:message", told); };
}

export default { render };
