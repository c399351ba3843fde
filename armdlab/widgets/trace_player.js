// Play a recorded run: every stream in its lane and, at the same time, every token in its place in the text.
const LANES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8C6D00"];

// A line break reads as its sign, and so does the end of a text, of which there are many behind it.
const END = "<|endoftext|>";
const visible = (piece) => (piece === END ? "∎" : piece.replace(/\n/g, "⏎"));

function tracePlayer(root) {
  root.tabIndex = -1; // a click anywhere in it brings the keys
  const facts = make(root, "div", { class: "facts" });
  const shown = {};
  for (const name of ["step", "tokens", "seconds", "tokens/s", "nats a token"]) {
    const fact = make(facts, "span", {}, `${name} `);
    shown[name] = make(fact, "b", { "data-fact": name }, "–");
  }
  const lanes = make(root, "div", { class: "lanes", role: "img", "aria-label": "streams, each in a lane of its own" });
  const text = make(root, "div", { class: "text", role: "list", "aria-label": "the text; arrows move from token to token" });
  const bar = make(root, "div", { class: "bar" });
  const play = make(bar, "button", { type: "button", "aria-keyshortcuts": "Space" }, "Play");
  const line = make(bar, "input", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "step of the run" });
  const label = make(bar, "label", {}, "speed ");
  const speed = make(label, "select");
  for (const [value, name] of [["2", "2 steps/s"], ["6", "6 steps/s"], ["20", "20 steps/s"], ["0", "as it was"]]) make(speed, "option", { value }, name);
  speed.value = "6";
  const ticks = make(root, "div", { class: "ticks", "aria-hidden": "true" });
  const said = make(root, "div", { class: "said", "aria-live": "polite" });

  let trace = { given: [], lanes: [], steps: [] }, at = 0, timer = 0, cells = [], spans = [], painted = [], places = new Map(), focus = 0;

  const percent = (p) => (p >= 0.995 ? "> 0.99" : p < 0.01 ? "< 0.01" : p.toFixed(2)), is = (p) => percent(p).replace(/^(?=\d)/, "= ");

  function load(next) {
    stop();
    trace = next;
    said.textContent = "Point at a token, or move to it by arrows, to read how it came to be.";
    lanes.replaceChildren();
    text.replaceChildren();
    cells = []; spans = []; painted = []; focus = 0;
    const n = Math.max(0, ...trace.lanes) + 1, rows = [];
    for (let lane = 0; lane < n; lane++) {
      const row = make(lanes, "div", { class: "lane" });
      make(row, "span", { class: "name" }, `stream ${lane + 1}`).style.borderColor = LANES[lane % LANES.length];
      rows.push(make(row, "span", { class: "made" }));
    }
    trace.given.forEach((piece, position) => {
      const span = make(text, "span", { class: "token", role: "listitem", tabindex: position ? -1 : 0, "data-position": position });
      span.onpointerenter = () => tell(position);
      span.onpointerleave = () => quiet();
      span.onfocus = () => { focus = position; tell(position); };
      spans.push(span);
      cells.push(trace.lanes[position] < 0 ? null : make(rows[trace.lanes[position]], "span", { class: "token" }));
      if (piece !== null) { span.textContent = visible(piece); span.classList.add("given"); }
    });
    index();
    show(0);
  }

  function index() {
    places = new Map();
    trace.steps.forEach(note);
    line.max = trace.steps.length;
    ticks.style.setProperty("--steps", Math.max(1, trace.steps.length));
  }

  // A position may be made more than once: what reads a text again says of each token what stands there then.
  function note(step, number) {
    for (const made of step.made) {
      const before = places.get(made.position) || [];
      places.set(made.position, [...before, { ...made, step: number, again: before.length > 0, old: before.at(-1)?.piece === made.piece }]);
    }
  }
  const latest = (position, before) => places.get(position)?.findLast((made) => made.step < before);

  function paint(position, made, isNew) {
    const looks = made ? `${isNew ? "new" : "old"} ${made.log_prob} ${made.piece}` : "open"; // what stays is not laid out anew
    if (painted[position] === looks) return;
    painted[position] = looks;
    for (const span of [spans[position], cells[position]]) {
      if (!span) continue;
      span.textContent = made ? visible(made.piece) : "·";
      span.classList.toggle("open", !made);
      span.classList.toggle("end", made?.piece === END);
      span.classList.toggle("new", Boolean(made && isNew));
      span.style.setProperty("--p", made ? Math.exp(made.log_prob).toFixed(3) : 0);
      span.style.setProperty("--lane", LANES[trace.lanes[position] % LANES.length]);
    }
  }

  function show(number) {
    at = Math.max(0, Math.min(number, trace.steps.length));
    let tokens = 0, nats = 0;
    trace.given.forEach((piece, position) => {
      if (piece !== null) return;
      const made = latest(position, at);
      if (made) { tokens++; nats -= made.log_prob; }
      paint(position, made, made && made.step === at - 1 && !made.old);
    });
    count(tokens, nats);
  }

  function count(tokens, nats) {
    const seconds = at ? trace.steps[at - 1].elapsed : 0;
    line.value = at;
    line.setAttribute("aria-valuetext", `step ${at} of ${trace.steps.length}`);
    shown.step.textContent = `${at} of ${trace.steps.length}`;
    shown.tokens.textContent = tokens;
    shown.seconds.textContent = seconds.toFixed(2);
    shown["tokens/s"].textContent = seconds ? Math.round(tokens / seconds).toLocaleString("en") : "–";
    shown["nats a token"].textContent = tokens ? (nats / tokens).toFixed(3) : "–";
    totals = [tokens, nats];
  }
  let totals = [0, 0];

  // A step that was just made: only its own tokens are drawn.
  function push(step) {
    if (at && at === trace.steps.length) for (const made of trace.steps[at - 1].made) paint(made.position, made, false);
    const follows = at === trace.steps.length;
    const isReading = step.made.some((made) => places.has(made.position));
    trace.steps.push(step);
    note(step, trace.steps.length - 1);
    line.max = trace.steps.length;
    ticks.style.setProperty("--steps", trace.steps.length);
    if (!follows) return;
    if (isReading) { show(trace.steps.length); return; }
    at = trace.steps.length;
    let [tokens, nats] = totals;
    for (const made of step.made) { paint(made.position, made, true); tokens++; nats -= made.log_prob; }
    count(tokens, nats);
  }

  function tell(position) {
    const made = latest(position, at), given = trace.given[position];
    spans.forEach((span) => span.classList.remove("seen"));
    if (given !== null) { said.textContent = `Position ${position} “${visible(given)}” was given.`; return; }
    if (!made) { said.textContent = `Position ${position}, stream ${trace.lanes[position] + 1}: not made yet.`; return; }
    let saw = 0;
    trace.given.forEach((piece, other) => {
      const sawIt = piece !== null || (made.again ? other < position : Boolean(latest(other, made.step)));
      if (sawIt) { saw++; spans[other].classList.add("seen"); }
    });
    const others = (made.others || []).map(([piece, p]) => `“${visible(piece)}” ${percent(p)}`).join(", ");
    said.textContent = `“${visible(made.piece)}” at position ${position}: ${made.again ? "read again" : "made"} at step ${made.step + 1}, stream ${trace.lanes[position] + 1}, p ${is(Math.exp(made.log_prob))}; saw ${saw} earlier token${saw === 1 ? "" : "s"}.${others ? ` The likeliest there: ${others}.` : ""}`;
  }

  function quiet() { spans.forEach((span) => span.classList.remove("seen")); }
  function stop() { clearTimeout(timer); timer = 0; play.textContent = "Play"; }

  function next() {
    if (at >= trace.steps.length) { stop(); return; }
    show(at + 1);
    const wait = speed.value === "0" ? (trace.steps[at] ? 1000 * (trace.steps[at].elapsed - trace.steps[at - 1].elapsed) : 0) : 1000 / Number(speed.value);
    timer = setTimeout(next, wait);
  }

  function toggle() {
    if (timer) { stop(); return; }
    if (at >= trace.steps.length) show(0);
    play.textContent = "Pause";
    next();
  }

  play.onclick = toggle;
  line.oninput = () => { stop(); show(Number(line.value)); };
  text.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: focus - 1, ArrowRight: focus + 1, Home: 0, End: spans.length - 1 }[event.key];
    if (to === undefined || !spans[to]) return;
    event.preventDefault();
    event.stopPropagation();
    spans[focus].tabIndex = -1;
    spans[to].tabIndex = 0;
    spans[to].focus();
  });
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return; // which it presses
    const act = { " ": toggle, ArrowLeft: () => show(at - 1), ArrowRight: () => show(at + 1), Home: () => show(0), End: () => show(1e9) }[event.key];
    if (event.key === "Escape") { quiet(); said.textContent = ""; }
    if (!act) return;
    event.preventDefault();
    if (event.key !== " ") stop();
    act();
  });

  // The same run with more to tell, such as alternatives: what is on the screen stays. False if it is another run.
  function renew(next) {
    const made = (run) => JSON.stringify(run.steps.map((step) => step.made.map(({ position, piece }) => [position, piece])));
    if (made(next) !== made(trace)) return false;
    trace = next;
    index();
    return true;
  }
  return { load, push, show, toggle, stop, renew, trace: () => trace };
}
