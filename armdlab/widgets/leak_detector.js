// Change one word: how far does each output of three models move? What must stay at exactly 0 is marked before it is judged.

function render({ model, el }) {
  const root = frame(el, "armdlab-leaks", "leak detector");
  const picker = orderPicker(root, model, touched);
  const bar = make(root, "div", { class: "options change" });
  const label = make(bar, "label");
  const asked = make(label, "span");
  const into = make(label, "input", { type: "text", spellcheck: "false", autocomplete: "off", dir: "auto", "aria-label": "the word that takes its place" });
  make(bar, "span", { class: "hint" }, "Choose another word to change by a click in the top row below.");
  const said = make(root, "p", { class: "said" });
  const grid = make(root, "div", { class: "heat", role: "grid", "aria-label": "how far each output moves, for three models" });
  const aside = make(root, "p", { class: "note aside" });
  const legend = make(root, "p", { class: "note" });
  make(legend, "span", {}, "Largest change of a logit: 0 ");
  make(legend, "span", { class: "scale", "aria-hidden": "true" }).style.background = `linear-gradient(90deg, ${VIRIDIS.map(css).join(", ")})`;
  const most = make(legend, "span");
  make(legend, "span", { class: "key must", "aria-hidden": "true" }, "0");
  make(legend, "span", {}, " must stay at exactly 0, and does ");
  make(legend, "span", { class: "key leak", "aria-hidden": "true" }, "!");
  make(legend, "span", {}, " must, and does not: a leak");

  let rows = [];
  const focus = roving(grid, () => rows, (row, column) => (row ? tell(row - 1, column) : touched(picker.places()[column])));
  const shownAs = (by) => (by === 0 ? "0" : by >= 0.095 ? by.toPrecision(2) : by >= 0.00095 ? by.toPrecision(1) : by.toExponential(0).replace("e-", "e\u2212"));

  function sentence(of, position) {
    const state = picker.state(), by = of.by[position], must = state.must_stay[position];
    const moves = by === 0 ? "does not move at all" : `moves by ${by.toPrecision(3)}`;
    const rule = must ? (by === 0 ? "as it must not: it is made no later than the changed word" : "a leak: it is made no later than the changed word, and must stay at exactly 0") : "it is made later, and may move";
    return `${of.name}: the output at ${named(state, position)} ${moves}; ${rule}`;
  }

  function tell(row, column) {
    said.textContent = `${sentence(picker.state().models[row], picker.places()[column])}.`;
  }

  function touched(position) {
    const state = picker.state();
    said.textContent = position === null ? `${begin()}` : `${picker.token(position).title}${position === state.changed ? ": the word that is changed" : ""}.`;
  }

  const begin = () => `${picker.state().said}. Then ${picker.state().must_stay.filter(Boolean).length} of ${picker.state().words.length} outputs must stay as they are, to the last bit: ${picker.state().words.length > 1 ? "those of its own block and of every earlier one" : "its own"}.`;

  function choose(position) { changed = position; picker.ask(); }

  function build(size) {
    grid.replaceChildren();
    const top = make(grid, "div", { role: "row" });
    const heads = Array.from({ length: size }, () => {
      const head = make(top, "div", { role: "columnheader", class: "choice", tabindex: -1 });
      make(head, "bdi");
      head.onclick = () => choose(Number(head.dataset.position));
      head.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(Number(head.dataset.position)); } };
      return head;
    });
    rows = [heads, ...picker.state().models.map((of, row) => {
      const line = make(grid, "div", { role: "row" });
      const side = make(line, "div", { role: "rowheader", class: "verdict" });
      make(side, "b", {}, of.name);
      make(side, "span", { class: "why" }, ` ${of.why}`);
      make(side, "div", { class: "found" });
      return Array.from({ length: size }, (_, column) => {
        const cell = make(line, "div", { role: "gridcell", class: "cell", tabindex: -1 });
        cell.onpointerenter = () => tell(row, column);
        return cell;
      });
    })];
    grid.onpointerleave = () => touched(null);
  }

  let changed = picker.state().changed;
  function draw() {
    const state = picker.state(), places = picker.places(), size = state.words.length;
    if (!picker.pending()) changed = state.changed; // else a later click is on its way
    root.style.setProperty("--size", size);
    if (document.activeElement !== into) into.value = state.into;
    asked.textContent = `change position ${state.changed} ${quoted(state.words[state.changed])} into `;
    aside.textContent = state.aside;
    const largest = Math.max(...state.models.flatMap((of) => of.by));
    most.textContent = ` ${shownAs(largest)}. `;
    if (rows.length !== state.models.length + 1 || rows[0].length !== size) build(size);
    morph(() => new Map(rows.flatMap((cells, row) => cells.map((cell) => [`${row},${cell.dataset.position}`, cell]))), () => {
      places.forEach((position, column) => {
        const head = rows[0][column], isChanged = position === state.changed;
        head.dataset.position = position;
        head.firstChild.textContent = word(state, position);
        head.setAttribute("aria-selected", isChanged);
        head.setAttribute("aria-label", isChanged ? `${named(state, position)} is changed into ${quoted(state.into)}` : `change ${named(state, position)}`);
        head.title = head.getAttribute("aria-label");
        state.models.forEach((of, row) => {
          const cell = rows[row + 1][column], by = of.by[position], must = state.must_stay[position];
          const kind = must ? (by === 0 ? "must" : "leak") : "may";
          const rgb = viridis(largest ? by / largest : 0);
          cell.dataset.position = position;
          cell.className = `cell ${kind}${isChanged ? " changed" : ""}`;
          cell.style.background = kind === "may" ? css(rgb) : "";
          cell.style.color = kind === "may" ? inkOn(rgb) : "";
          const figure = size > 14 ? "" : shownAs(by); // else the cells are too narrow
          cell.textContent = { leak: `! ${figure}`, must: "0", may: figure }[kind];
          cell.setAttribute("aria-label", sentence(of, position));
        });
      });
    });
    state.models.forEach((of, row) => {
      const found = grid.querySelectorAll(".found")[row];
      found.textContent = of.verdict;
      found.classList.toggle("leaks", of.leaks.length > 0);
    });
    touched(null);
    focus.place(...focus.at(), false);
  }

  into.oninput = () => picker.ask();
  picker.extra(() => ({ changed, into: into.value }));
  picker.onText(() => { changed = null; }); // a new text starts from the word that is made first
  picker.onChange(draw);
  draw();
  return () => picker.off();
}

export default { render };
