// What one target reads: a bar above each word for the chosen head, a heat map below for all heads of the layer.

function render({ model, el }) {
  const root = frame(el, "armdlab-microscope", "attention microscope");
  const picker = orderPicker(root, model, (position) => { if (position === null) begin(); else said.textContent = `${picker.token(position).title}.`; });
  const id = `armdlab-${Math.random().toString(36).slice(2)}`;
  let layer = 0, head = 0, target = null;

  const walk = make(root, "div", { class: "options walk" });
  const back = make(walk, "button", { type: "button", "aria-label": "previous step" }, "\u25c0");
  const label = make(walk, "label");
  make(label, "span", {}, "Step ");
  const scrub = make(label, "input", { type: "range", min: 1, step: 1 });
  const at = make(label, "output");
  const on = make(walk, "button", { type: "button", "aria-label": "next step" }, "\u25b6");
  const choices = make(root, "div", { class: "options looks" });
  const layers = make(choices, "div", { role: "radiogroup", class: "kinds", "aria-label": "layer" });
  const heads = make(choices, "div", { role: "radiogroup", class: "kinds", "aria-label": "head" });
  const said = make(root, "p", { class: "said" });
  const grid = make(root, "div", { class: "heat", role: "grid", "aria-label": "what the target reads, by head" });
  const legend = make(root, "p", { class: "note" });
  make(legend, "span", {}, "Share of the reading: 0 ");
  make(legend, "span", { class: "scale", "aria-hidden": "true" }).style.background = `linear-gradient(90deg, ${VIRIDIS.map(css).join(", ")})`;
  const most = make(legend, "span");
  make(legend, "span", { class: "key forbidden", "aria-hidden": "true" });
  make(legend, "span", {}, " forbidden: exactly 0. Press a word in the top row to make it the target.");

  let rows = [], bars = [], sides = [], values = new Float32Array();
  const focus = roving(grid, () => rows, (row, column) => tell(row, column));
  const BOS = -1;

  // Columns are BOS and then words. X holds BOS and all tokens but the one made last, G one row for each target.
  const columns = () => [BOS, ...picker.places()];
  const readsX = () => picker.state().reads[layer] === "X";
  function row(position) {
    const rank = position === BOS ? -1 : picker.state().ranks[position];
    return readsX() ? rank + 1 : rank;
  }
  function weight(of, position) {
    const state = picker.state(), n = state.words.length, i = row(position);
    if (i < 0 || i >= n) return null;
    return values[((layer * (state.heads + 1) + of) * n + state.ranks[target]) * n + i];
  }
  function allowed(position) {
    if (position === BOS) return readsX();
    const state = picker.state();
    return !!state[readsX() ? "strict" : "causal"][target][position];
  }
  const headName = (of) => (of ? `head ${of}` : "mean of the heads");
  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
  const read = (position) => (position === BOS ? "BOS, the start" : named(picker.state(), position));

  function sentence(of, position) {
    const state = picker.state(), from = `layer ${layer + 1}, ${headName(of)}: the target at ${named(state, target)}`;
    if (allowed(position)) return `${from} gives ${percent(weight(of, position))} of its reading to ${position === target ? "itself" : `${readsX() ? "" : "the target at "}${read(position)}`}`;
    if (position === BOS) return `${from} cannot read BOS: it has no row in G`;
    const why = { later: "made later", together: "made together with it", itself: "it is what is to be predicted" }[state.relations[target][position]];
    return `${from} may not read ${position === target ? "its own token" : read(position)}: ${why}; exactly 0`;
  }

  function begin() {
    const state = picker.state(), step = state.blocks[target], readable = columns().filter(allowed);
    const top = readable.map((position) => [weight(head, position), position]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const called = (position) => (position === BOS ? "BOS" : position === target ? "itself" : quoted(word(state, position)));
    const [kind, rows] = readsX() ? ["a two-stream layer", "X, BOS and the tokens made before"] : ["a causal layer", "G, the targets made before and with it"];
    said.textContent =
      `Step ${step + 1} of ${state.steps.length} makes ${state.steps[step].map((p) => named(state, p)).join(", ")}. ` +
      `In layer ${layer + 1}, ${kind}, the target ${quoted(word(state, target))} may read ${readable.length} of the rows of ${rows}. ` +
      `${head ? `With head ${head}` : "On the mean of the heads"} it reads most: ${top.map(([share, position]) => `${called(position)} ${percent(share)}`).join(", ")}.`;
  }

  function tell(at, column) {
    const position = columns()[column];
    if (at === 0) said.textContent = position === BOS ? "BOS stands before every text; all targets may read it in X." : `${picker.token(position).title}; press to make it the target.`;
    else said.textContent = `${sentence(at - 1, position)}.`;
  }

  function choose(position) {
    if (position === BOS) return;
    target = position;
    draw();
  }

  function radios(parent, names, title, chosen, pick) {
    parent.replaceChildren();
    make(parent, "span", { class: "title" }, title);
    names.forEach((name, i) => {
      const choice = make(parent, "label");
      const radio = make(choice, "input", { type: "radio", name: `${id}-${title}`, value: i });
      radio.checked = i === chosen;
      make(choice, "span", {}, name);
      radio.onchange = () => { pick(i); draw(); };
    });
  }

  function build() {
    const state = picker.state(), size = state.words.length + 1;
    radios(layers, state.reads.map((reads, i) => `${i + 1} ${reads}`), "layer", layer, (i) => { layer = i; });
    radios(heads, ["mean", ...Array.from({ length: state.heads }, (_, i) => `${i + 1}`)], "head", head, (i) => { head = i; });
    grid.replaceChildren();
    const top = make(grid, "div", { role: "row" });
    make(top, "div", { role: "columnheader", class: "corner" }, "reads");
    bars = [];
    const words = Array.from({ length: size }, (_, column) => {
      const head = make(top, "div", { role: "columnheader", class: "choice", tabindex: -1 });
      bars.push(make(make(head, "span", { class: "bar" }), "span"));
      make(head, "bdi");
      head.onclick = () => choose(columns()[column]);
      head.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(columns()[column]); } };
      head.onpointerenter = () => tell(0, column);
      return head;
    });
    sides = [];
    rows = [words, ...Array.from({ length: state.heads + 1 }, (_, of) => {
      const line = make(grid, "div", { role: "row" });
      sides.push(make(line, "div", { role: "rowheader", class: "down" }, of ? `head ${of}` : "mean"));
      return Array.from({ length: size }, (_, column) => {
        const cell = make(line, "div", { role: "gridcell", class: "cell", tabindex: -1 });
        cell.onpointerenter = () => tell(of + 1, column);
        return cell;
      });
    })];
  }
  grid.onpointerleave = () => begin();

  function draw() {
    const state = picker.state(), size = state.words.length + 1, list = columns();
    root.style.setProperty("--size", size);
    if (!rows.length || rows[0].length !== size || rows.length !== state.heads + 2) build();
    const step = state.blocks[target];
    scrub.max = state.steps.length;
    scrub.value = step + 1;
    at.textContent = `${step + 1} of ${state.steps.length}`;
    back.disabled = step === 0;
    on.disabled = step === state.steps.length - 1;
    scrub.setAttribute("aria-valuetext", `step ${step + 1} of ${state.steps.length} makes ${state.steps[step].map((p) => named(state, p)).join(", ")}`);
    const shares = rows.slice(1).map((_, of) => list.map((position) => (allowed(position) ? weight(of, position) : null)));
    const largest = Math.max(...shares.flat());
    most.textContent = ` ${percent(largest)}. `;
    sides.forEach((side, of) => side.classList.toggle("chosen", of === head));
    morph(() => new Map(rows.flatMap((cells, at) => cells.map((cell) => [`${at},${cell.dataset.position}`, cell]))), () => {
      list.forEach((position, column) => {
        const top = rows[0][column], share = shares[head][column];
        top.dataset.position = position;
        top.lastChild.textContent = position === BOS ? "BOS" : word(state, position);
        top.setAttribute("aria-selected", position === target);
        top.classList.toggle("unmade", position !== BOS && state.blocks[position] > step);
        top.setAttribute("aria-label", position === BOS ? "BOS" : position === target ? `${named(state, position)} is the target` : `${named(state, position)}, made at step ${state.blocks[position] + 1}`);
        bars[column].style.height = `${share === null ? 0 : Math.max(1, (100 * share) / largest)}%`;
        rows.slice(1).forEach((cells, of) => {
          const cell = cells[column], value = shares[of][column];
          cell.dataset.position = position;
          cell.className = `cell${value === null ? " forbidden" : ""}${of === head ? " chosen" : ""}`;
          cell.style.background = value === null ? "" : css(viridis(value / largest));
          cell.setAttribute("aria-label", sentence(of, position));
        });
      });
    });
    begin();
    focus.place(...focus.at(), false);
  }

  function renewed() {
    const view = model.get("weights"), state = picker.state();
    values = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    if (target === null || target >= state.words.length) target = state.positions[state.words.length - 1];
    layer = Math.min(layer, state.reads.length - 1);
    draw();
  }

  const go = (step) => choose(picker.state().steps[step][0]);
  scrub.oninput = () => go(Number(scrub.value) - 1);
  back.onclick = () => go(picker.state().blocks[target] - 1);
  on.onclick = () => go(picker.state().blocks[target] + 1);
  picker.onChange(renewed);
  renewed();
  return () => picker.off();
}

export default { render };
