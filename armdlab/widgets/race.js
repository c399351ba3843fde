// Several models side by side, each by its own clock, until all have arrived.

function render({ model, el }) {
  const root = make(el, "div", { class: "armdlab-view armdlab-streams", role: "group", "aria-label": "a race of models" });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  root.tabIndex = -1; // a click anywhere in it brings the keys
  const form = make(root, "form", { class: "asked", novalidate: "" });
  const { controls, asked } = askedFor(form, model.get("asked"), [
    ["prompt", "input", { type: "text", dir: "auto", spellcheck: "false", autocomplete: "off" }],
    ["streams", "input", { type: "number", min: 1, max: 16, step: 1 }],
    ["temperature", "input", { type: "number", min: 0, max: 3, step: 0.1 }],
    ["seed", "input", { type: "number", min: 0, step: 1 }],
  ]);
  const start = make(form, "button", { type: "submit" }, "Start");
  const stopButton = make(form, "button", { type: "button", "aria-keyshortcuts": "S" }, "Stop");
  const alert = make(root, "div", { class: "alert", role: "alert" });
  const note = make(root, "p", { class: "note" }, "Recorded earlier; Start lets them run now.");
  const field = make(root, "div", { class: "armdlab-race" }), runners = {};
  for (const name of model.get("names")) {
    const box = make(field, "section", { class: "runner", "data-name": name, "aria-label": name });
    make(box, "h4", {}, name);
    const facts = make(box, "div", { class: "facts" }), counter = make(facts, "b", {}, "–");
    const text = make(box, "div", { class: "text", role: "img", "aria-label": `what ${name} writes` }), verdict = make(box, "div", { class: "verdict", role: "status" });
    runners[name] = { counter, text, verdict, spans: [], tokens: 0, steps: 0 };
  }

  function state(name) { root.dataset.status = name; enable(start, name !== "running"); enable(stopButton, name === "running"); }

  function lay(runner, given) {
    runner.text.replaceChildren();
    runner.tokens = runner.steps = 0;
    runner.verdict.textContent = "";
    runner.counter.textContent = "–";
    runner.spans = given.map((piece) => make(runner.text, "span", { class: piece === null ? "token open" : "token given" }, piece === null ? "·" : visible(piece)));
  }

  function advance(runner, steps) {
    for (const step of steps) {
      runner.steps++;
      for (const made of step.made) {
        const span = runner.spans[made.position];
        span.textContent = visible(made.piece);
        span.className = `token${made.piece === END ? " end" : ""}`;
        span.style.setProperty("--p", Math.exp(made.log_prob).toFixed(3));
        runner.tokens++;
      }
      runner.counter.textContent = `${runner.steps} steps, ${step.elapsed.toFixed(2)} s, ${Math.round(runner.tokens / step.elapsed).toLocaleString("en")} tokens/s`;
    }
  }

  function arrived(done) {
    for (const found of done) {
      const runner = runners[found.name];
      runner.verdict.textContent = found.verdict;
      for (const span of runner.spans) if (span.classList.contains("open")) span.textContent = "";
      runner.text.setAttribute("aria-label", `${found.name} wrote: ${found.text}`);
    }
  }

  const pull = pulling(model, alert, {
    took(content) {
      for (const [name, given] of Object.entries(content.given || {})) lay(runners[name], given);
      for (const [name, steps] of Object.entries(content.frames || {})) advance(runners[name], steps);
      arrived(content.done || []);
    },
    ended: state,
    still: renewed,
  });
  form.onsubmit = (event) => {
    event.preventDefault();
    if (!pull.begin(asked())) return;
    note.textContent = "";
    state("running");
  };
  const halt = () => { if (pull.running()) pull.stop(); };
  stopButton.onclick = halt;
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT") return;
    if (event.key.toLowerCase() === "s") { event.preventDefault(); halt(); }
    if (/^[1-8]$/.test(event.key)) { event.preventDefault(); controls.streams.value = event.key; }
  });

  // A race that was run by a cell, or earlier.
  function renewed() {
    if (pull.busy()) return;
    for (const found of model.get("result")) {
      if (!runners[found.name] || !found.trace) continue;
      lay(runners[found.name], found.trace.given);
      advance(runners[found.name], found.trace.steps);
    }
    arrived(model.get("result").filter((found) => runners[found.name]));
    note.hidden = !model.get("recorded");
  }
  themed(root);
  model.on("change:result", renewed);
  state("ready");
  renewed();
  return () => { pull.off(); model.off("change:result", renewed); };
}

export default { render };
