// An editable text, an order for its words, and the order as a numbered ribbon. Views put their own picture below.

const KINDS = {
  "left to right": { hint: "One word at a time, as one reads." },
  shuffled: { ask: "words that exchange their places", slides: true, first: 3, draws: true, hint: "Left to right, but some words exchange their places: the curriculum of training." },
  strided: { ask: "streams S", first: 2, hint: "The text is cut into S equal streams. Their heads come first, one by one; then one word of every stream at once." },
  random: { draws: true, hint: "Any order of single words." },
  masking: { ask: "masking steps T", first: 3, slides: true, least: 1, draws: true, hint: "Every word is masked at one of T steps. Read backwards: what was masked last is made first, and equal steps make a block." },
  blockwise: { ask: "words of a block", first: 2, hint: "Blocks from left to right; the words of a block are made together." },
  painted: { hint: "Click words in the order in which they should be made; a second click takes one back. What you leave out follows from left to right." },
};

// Viridis, by which early is dark and late is bright; letters on it are black or white, whichever is read better.
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];

function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1), low = Math.floor(at), high = Math.min(low + 1, VIRIDIS.length - 1);
  return VIRIDIS[low].map((value, i) => Math.round(value + (VIRIDIS[high][i] - value) * (at - low)));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const inkOn = (rgb) => (luminance(rgb) > 0.179 ? "#000" : "#fff");
const css = (rgb) => `rgb(${rgb.join(", ")})`;
const blockColour = (state, position) => viridis(state.blocks[position] / Math.max(1, Math.max(...state.blocks)));
// A quoted word keeps its own direction of writing; of a very long one the beginning is enough to know it by.
const quoted = (word) => { const letters = [...word.trim()]; return `\u201c\u2068${letters.length > 30 ? `${letters.slice(0, 29).join("")}\u2026` : letters.join("")}\u2069\u201d`; };
// White space is shown as such, a token that is a part of a letter as dots (the letter stands at the last of them), and
// a mark without its letter on a circle.
const onCircle = (word) => (/^\p{M}/u.test(word) ? `\u25cc${word}` : word);
const word = (state, position) => onCircle(state.words[position].trim()) || (state.words[position] ? "\u2423" : "\u2026");
const named = (state, position) => `position ${position} ${quoted(word(state, position))}`;

// The root of a view. JupyterLab takes keys from whatever has the focus unless that very element says no.
function frame(el, name, title) {
  const root = make(el, "div", { class: `armdlab-view armdlab-picked ${name}`, role: "group", "aria-label": title });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  themed(root);
  return root;
}

// Move elements from where they were to where they are, in at most 400 ms; `find` gives a Map of keys to elements.
function morph(find, draw) {
  const before = new Map([...find()].map(([key, element]) => [key, element.getBoundingClientRect()]));
  draw();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const moves = [];
  for (const [key, element] of find()) {
    const was = before.get(key), is = element.getBoundingClientRect();
    if (was && was.width && (was.x !== is.x || was.y !== is.y)) moves.push([element, was.x - is.x, was.y - is.y]);
  }
  for (const [element, x, y] of moves) element.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], { duration: 350, easing: "ease-in-out" });
}

// One focus for many: arrows move it, Home and End go to the ends of a row, and Tab leaves. `grid` gives rows of elements.
function roving(parent, grid, chosen = () => {}) {
  let at = [0, 0];
  const pick = (row, column) => grid()[row]?.[column];
  function place(row, column, focus) {
    pick(...at)?.setAttribute("tabindex", -1);
    const rows = grid().length;
    at = [Math.max(0, Math.min(row, rows - 1)), 0];
    at[1] = Math.max(0, Math.min(column, (grid()[at[0]] || [0]).length - 1));
    pick(...at)?.setAttribute("tabindex", 0);
    if (focus) { pick(...at)?.focus({ preventScroll: false }); chosen(...at); }
  }
  parent.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const [row, column] = at;
    const to = { ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], Home: [row, 0], End: [row, 1e9], PageUp: [0, column], PageDown: [1e9, column] }[event.key];
    if (!to) return;
    event.preventDefault();
    place(...to, true);
  });
  parent.addEventListener("focusin", (event) => {
    grid().forEach((cells, row) => { const column = cells.indexOf(event.target); if (column >= 0 && (row !== at[0] || column !== at[1])) place(row, column, false); });
    chosen(...at);
  });
  return { place, at: () => at };
}

// The kernel is asked for one thing at a time; what changes meanwhile is asked for after the answer, however late that
// is. Where wishes are commands, each of which must arrive, they stand in a `queue` and `wish` takes the next.
function asking(model, wish, unanswered, queue = null) {
  const me = Math.random().toString(36).slice(2); // answers reach every view of the widget: each takes its own
  let number = 0, waits = false, again = false, timer = 0;
  function ask() {
    if (waits) { again = true; return; }
    waits = true;
    again = false;
    timer = setTimeout(() => { waits = false; unanswered(true); }, 4000); // the next change asks anew
    model.send({ want: "order", ask: `${me}:${++number}`, ...wish() });
  }
  function answered(content) {
    if (content.ask !== `${me}:${number}`) return;
    clearTimeout(timer);
    waits = false;
    unanswered(false);
    if (queue ? queue.length : again) ask();
  }
  model.on("msg:custom", answered);
  return { ask, pending: () => again, busy: () => waits || again, off: () => { clearTimeout(timer); model.off("msg:custom", answered); } };
}

function orderPicker(root, model, touched = () => {}) {
  let state = model.get("state"), wish = structuredClone(state.wish), joins = false, byGeneration = false, more = () => ({}), also = () => {}, retold = () => {};
  const numbers = Object.fromEntries(Object.entries(KINDS).map(([kind, { first }]) => [kind, first]));
  numbers[wish.kind] = wish.number;
  const { ask, pending, busy, off } = asking(model, () => ({ ...wish, number: numbers[wish.kind] ?? 2, ...more() }), (late) => said(late));
  const id = `armdlab-${Math.random().toString(36).slice(2)}`;

  const line = make(root, "label", { class: "text" });
  make(line, "span", {}, "Text ");
  const text = make(line, "input", { type: "text", spellcheck: "false", autocomplete: "off", dir: "auto" });
  const kinds = make(root, "div", { role: "radiogroup", class: "kinds", "aria-label": "order in which the words are made" });
  const radios = {};
  for (const kind of Object.keys(KINDS)) {
    const label = make(kinds, "label");
    radios[kind] = make(label, "input", { type: "radio", name: id, value: kind });
    make(label, "span", {}, kind);
    radios[kind].onchange = () => { wish.kind = kind; controls(); ask(); };
  }
  const options = make(root, "div", { class: "options" });
  const label = make(options, "span", { class: "label" });
  const asked = make(label, "span", { id: `${id}-asked` });
  const slider = make(label, "input", { type: "range", min: 0, step: 1, "aria-labelledby": `${id}-asked` });
  const field = make(label, "input", { type: "number", step: 1, "aria-labelledby": `${id}-asked` });
  const value = make(label, "output");
  const redraw = make(options, "button", { type: "button" }, "Draw again");
  const join = make(options, "button", { type: "button", "aria-pressed": "false" }, "Next click joins the last step");
  const clear = make(options, "button", { type: "button" }, "Start again");
  const hint = make(options, "span", { class: "hint" });
  const alert = make(root, "div", { class: "alert", role: "alert" });

  const head = make(root, "div", { class: "head" });
  const summary = make(head, "b", { class: "summary" });
  const storage = make(head, "span", { role: "radiogroup", class: "kinds storage", "aria-label": "how words are arranged" });
  for (const way of ["text order", "generation order"]) {
    const choice = make(storage, "label");
    const radio = make(choice, "input", { type: "radio", name: `${id}-storage`, value: way });
    radio.checked = way === "text order";
    make(choice, "span", {}, way);
    radio.onchange = () => { byGeneration = way === "generation order"; change(); };
  }
  const ribbon = make(root, "div", { class: "ribbon", role: "group" });
  const legend = make(root, "p", { class: "note legend" });
  make(legend, "span", {}, "Number: rank, when it is made. Equal colour: made together. First ");
  make(legend, "span", { class: "scale", "aria-hidden": "true" }).style.background = `linear-gradient(90deg, ${VIRIDIS.map(css).join(", ")})`;
  make(legend, "span", {}, " last.");
  let tokens = [];
  const places = () => (byGeneration ? state.positions : state.words.map((_, position) => position));
  const found = () => new Map(tokens.map((token) => [token.dataset.position, token]));
  const focus = roving(ribbon, () => [tokens], (_, place) => touched(places()[place]));

  text.oninput = () => { wish.text = text.value; retold(); ask(); };
  slider.oninput = () => { numbers[wish.kind] = Number(slider.value); value.textContent = slider.value; ask(); };
  field.oninput = () => { numbers[wish.kind] = field.value === "" ? "" : Number(field.value); ask(); };
  redraw.onclick = () => { wish.seed++; ask(); };
  join.onclick = () => { joins = !joins; join.setAttribute("aria-pressed", joins); };
  clear.onclick = () => { wish.painted = []; ask(); };

  function paint(position, together) {
    if (wish.kind !== "painted") { wish.kind = "painted"; wish.painted = []; controls(); }
    const before = wish.painted.map((step) => [...step]), steps = before.map((step) => step.filter((p) => p !== position)).filter((step) => step.length);
    const isNew = !before.some((step) => step.includes(position));
    if (isNew && (together || joins) && steps.length) steps[steps.length - 1].push(position);
    else if (isNew) steps.push([position]);
    wish.painted = steps;
    ask();
  }

  function controls() {
    const { ask: wants, slides, least, draws, hint: told } = KINDS[wish.kind];
    radios[wish.kind].checked = true;
    label.hidden = !wants;
    asked.textContent = wants ? `${wants} ` : "";
    slider.hidden = value.hidden = !slides;
    field.hidden = !!slides;
    if (slides) { slider.min = least ?? 0; slider.max = Math.max(state.words.length, numbers[wish.kind]); slider.value = numbers[wish.kind]; value.textContent = numbers[wish.kind]; }
    else if (document.activeElement !== field) field.value = numbers[wish.kind] ?? "";
    redraw.hidden = !draws;
    join.hidden = clear.hidden = wish.kind !== "painted";
    hint.textContent = told;
  }

  function draw() {
    summary.textContent = `${state.summary}.`;
    ribbon.setAttribute("aria-label", `the ${state.words.length} tokens in ${byGeneration ? "generation" : "text"} order`);
    const had = document.activeElement?.closest?.(".ribbon") === ribbon;
    const painted = state.wish.painted.flat();
    if (tokens.length !== state.words.length) {
      ribbon.replaceChildren();
      tokens = state.words.map(() => {
        const token = make(ribbon, "button", { type: "button", class: "token", tabindex: -1 });
        make(token, "span", { class: "rank" });
        make(token, "bdi", { class: "word" });
        token.onclick = (event) => paint(Number(token.dataset.position), event.shiftKey);
        token.onpointerenter = () => touched(Number(token.dataset.position));
        token.onpointerleave = () => touched(null);
        return token;
      });
    }
    places().forEach((position, place) => {
      const token = tokens[place], rank = state.ranks[position], block = state.blocks[position], rgb = blockColour(state, position);
      const others = state.blocks.flatMap((b, p) => (b === block && p !== position ? [named(state, p)] : []));
      token.dataset.position = position;
      token.dataset.rank = rank;
      token.style.background = css(rgb);
      token.style.color = inkOn(rgb);
      token.classList.toggle("follows", state.wish.kind === "painted" && !painted.includes(position) && painted.length > 0);
      token.classList.toggle("begins", byGeneration && place > 0 && state.blocks[state.positions[place - 1]] !== block);
      token.children[0].textContent = rank;
      token.children[1].textContent = word(state, position);
      const said = `${named(state, position)}: rank ${rank}, block ${block}${others.length ? `, made together with ${others.join(", ")}` : ""}`;
      token.setAttribute("aria-label", `${said}; press to paint`);
      token.title = said;
    });
    focus.place(0, Math.min(focus.at()[1], tokens.length - 1), had);
  }

  const change = () => { morph(found, draw); also(); };
  function renewed() {
    state = model.get("state");
    if (!busy()) {
      wish = structuredClone(state.wish);
      numbers[wish.kind] = wish.number;
      if (document.activeElement !== text) text.value = wish.text;
    }
    controls();
    change();
  }
  function said(late) {
    alert.textContent = late === true ? "No answer from the kernel yet. If it was restarted, run the cell again." : model.get("message");
  }
  model.on("change:state", renewed);
  model.on("change:message", said);
  text.value = wish.text;
  said();
  controls();
  draw();
  return {
    state: () => state,
    places,
    byGeneration: () => byGeneration,
    ask,
    pending,
    extra: (tells) => { more = tells; },
    onText: (does) => { retold = does; },
    token: (position) => tokens[places().indexOf(position)],
    onChange: (draws) => { also = draws; },
    off: () => { off(); model.off("change:state", renewed); model.off("change:message", said); },
  };
}
