// M^c and M^sc as grids of cells that say in words who may see whom, and that move when the order changes.

function render({ model, el }) {
  const root = frame(el, "armdlab-explorer", "order and mask explorer");
  const picker = orderPicker(root, model, touched);
  const cells = make(root, "p", { class: "note" });
  const said = make(root, "p", { class: "said" });
  const panels = make(root, "div", { class: "panels" });
  const toBegin = "Point at a cell, or walk through a matrix with the arrow keys: it says who may see whom, and why.";
  said.textContent = toBegin;

  const matrices = [
    ["causal", "M", "c", "causal: the own block, too"],
    ["strict", "M", "sc", "strictly causal: earlier blocks only"],
  ].map(([name, letter, over, title]) => {
    const panel = make(panels, "figure", {});
    const caption = make(panel, "figcaption");
    make(caption, "i", {}, letter);
    make(caption, "sup", {}, over);
    make(caption, "span", {}, ` ${title}`);
    const grid = make(panel, "div", { class: "matrix", role: "grid", "aria-label": `M^${over}, ${title}: rows look, columns are looked at` });
    const matrix = { name, grid, rows: [], heads: [], sides: [] };
    matrix.focus = roving(grid, () => matrix.rows, (row, column) => tell(matrix, row, column));
    grid.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("[role=gridcell]");
      if (cell) tell(matrix, Number(cell.dataset.row), Number(cell.dataset.column));
    });
    grid.addEventListener("pointerleave", () => untell());
    return matrix;
  });

  function sentence(name, n, i) {
    const state = picker.state(), may = state[name][n][i], reason = state.reasons[name][state.relations[n][i]];
    return `${named(state, n)} ${may ? "may" : "may not"} see ${n === i ? "itself" : named(state, i)}: ${reason} (block ${state.blocks[n]}${n === i ? "" : ` looks at block ${state.blocks[i]}`})`;
  }

  function touched(position) { // a word of the ribbon: its row and column
    untell();
    if (position === null) return;
    said.textContent = `${picker.token(position).title}.`;
    const place = picker.places().indexOf(position);
    for (const matrix of matrices) { matrix.sides[place].setAttribute("data-looks", ""); matrix.heads[place].setAttribute("data-seen", ""); }
  }

  function untell() {
    for (const marked of root.querySelectorAll("[data-looks], [data-seen]")) { marked.removeAttribute("data-looks"); marked.removeAttribute("data-seen"); }
    said.textContent = toBegin;
  }

  function tell(matrix, row, column) {
    untell();
    const at = picker.places(), n = at[row], i = at[column];
    said.textContent = `${sentence(matrix.name, n, i)}.`;
    matrix.sides[row]?.setAttribute("data-looks", "");
    matrix.heads[column]?.setAttribute("data-seen", "");
    picker.token(n)?.setAttribute("data-looks", "");
    picker.token(i)?.setAttribute("data-seen", "");
    matrix.rows[row]?.[column]?.setAttribute("data-looks", "");
  }

  function build(matrix, size) {
    matrix.grid.replaceChildren();
    const top = make(matrix.grid, "div", { role: "row" });
    make(top, "div", { role: "columnheader", class: "corner" }, "sees");
    matrix.heads = Array.from({ length: size }, () => make(make(top, "div", { role: "columnheader", class: "across" }), "bdi"));
    matrix.sides = [];
    matrix.rows = Array.from({ length: size }, (_, row) => {
      const line = make(matrix.grid, "div", { role: "row" });
      matrix.sides.push(make(make(line, "div", { role: "rowheader", class: "down" }), "bdi"));
      return Array.from({ length: size }, (_, column) => make(line, "div", { role: "gridcell", class: "cell", tabindex: -1, "data-row": row, "data-column": column }));
    });
  }

  function fill(matrix) {
    const state = picker.state(), at = picker.places();
    at.forEach((n, row) => {
      matrix.sides[row].textContent = matrix.heads[row].textContent = word(state, n);
      at.forEach((i, column) => {
        const cell = matrix.rows[row][column], may = state[matrix.name][n][i];
        cell.dataset.key = `${n},${i}`;
        cell.style.background = may ? css(blockColour(state, n)) : "";
        cell.classList.toggle("own", ["together", "itself"].includes(state.relations[n][i]));
        cell.classList.toggle("may", !!may);
        cell.setAttribute("aria-label", sentence(matrix.name, n, i));
      });
    });
    matrix.focus.place(...matrix.focus.at(), false);
  }

  function draw() {
    const size = picker.state().words.length;
    cells.textContent = `${picker.state().cells}. Filled: the row may see the column. Ringed: the own block, where the two masks differ.`;
    root.style.setProperty("--size", size);
    fit();
    for (const matrix of matrices) {
      if (matrix.rows.length !== size) build(matrix, size);
      morph(() => new Map(matrix.rows.flat().map((cell) => [cell.dataset.key, cell])), () => fill(matrix));
    }
    untell();
  }

  // Both matrices side by side as long as a cell is large enough to be pointed at; else one above the other.
  function fit() {
    const size = picker.state().words.length, beside = Math.floor(((root.clientWidth - 50) / 2 - 80) / size) - 1;
    const cell = beside >= 9 ? Math.min(38, beside) : Math.max(9, Math.min(24, Math.floor((root.clientWidth - 120) / size) - 1));
    root.style.setProperty("--cell", `${cell}px`);
    panels.classList.toggle("stacked", beside < 9);
  }
  const resized = new ResizeObserver(fit);
  resized.observe(root);
  picker.onChange(draw);
  draw();
  return () => { resized.disconnect(); picker.off(); };
}

export default { render };
