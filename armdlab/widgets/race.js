// Several models side by side, each by its own clock, until all have arrived.

function render({ model, el }) {
  const root = make(el, "div", { class: "armdlab-view armdlab-streams", role: "group", "aria-label": "a race of models" });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  const form = make(root, "form", { class: "asked" }), first = model.get("asked"), controls = {};
  for (const [name, attributes] of [["prompt", { type: "text", dir: "auto" }], ["streams", { type: "number", min: 1, max: 16 }], ["temperature", { type: "number", min: 0, max: 3, step: 0.1 }], ["seed", { type: "number", min: 0 }]]) {
    controls[name] = make(make(form, "label", {}, `${name} `), "input", attributes);
    controls[name].value = first[name];
  }
  const start = make(form, "button", { type: "submit" }, "Start");
  const stop = make(form, "button", { type: "button" }, "Stop");
  const alert = make(root, "div", { class: "alert", role: "alert" });
  const field = make(root, "div", { class: "armdlab-race" }), runners = {};
  for (const name of model.get("names")) {
    const box = make(field, "section", { class: "runner", "data-name": name, "aria-label": name });
    make(box, "h4", {}, name);
    const facts = make(box, "div", { class: "facts" }), counter = make(facts, "b", {}, "–");
    const text = make(box, "div", { class: "text" }), verdict = make(box, "div", { class: "verdict", role: "status" });
    runners[name] = { counter, text, verdict, spans: [], tokens: 0, steps: 0 };
  }

  const me = Math.random().toString(36).slice(2);
  let number = 0, running = false;
  const run = () => `${me}:${number}`;
  function state(name) { running = name === "running"; root.dataset.status = name; start.disabled = running; stop.disabled = !running; }

  function lay(runner, given) {
    runner.text.replaceChildren();
    runner.tokens = runner.steps = 0;
    runner.verdict.textContent = "";
    runner.spans = given.map((piece) => make(runner.text, "span", { class: piece === null ? "token open" : "token given" }, piece === null ? "·" : piece));
  }

  function advance(runner, steps) {
    for (const step of steps) {
      runner.steps++;
      for (const made of step.made) {
        const span = runner.spans[made.position];
        span.textContent = visible(made.piece);
        span.className = "token";
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
    }
  }

  function answered(content) {
    if (content.status === "failed") { if (running) { state("failed"); alert.textContent = model.get("message"); } return; }
    if (content.run !== run() || !running) return;
    if (content.given) {
      for (const [name, given] of Object.entries(content.given)) lay(runners[name], given);
      model.send({ want: "steps", run: run(), budget_ms: 60 });
      model.send({ want: "steps", run: run(), budget_ms: 60 });
      return;
    }
    for (const [name, steps] of Object.entries(content.frames)) advance(runners[name], steps);
    arrived(content.done);
    if (content.status === "running") model.send({ want: "steps", run: run(), budget_ms: 60 });
    else state(content.status);
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    if (running) return;
    number++;
    alert.textContent = "";
    state("running");
    const asked = Object.fromEntries(Object.entries(controls).map(([name, input]) => [name, input.type === "number" ? Number(input.value) : input.value]));
    model.send({ want: "run", run: run(), asked });
  };
  stop.onclick = () => { if (running) { model.send({ want: "stop", run: run() }); state("stopped"); } };
  const told = () => { if (model.get("message")) alert.textContent = model.get("message"); };
  model.on("msg:custom", answered);
  model.on("change:message", told);
  theme(root);
  requestAnimationFrame(() => theme(root));
  state("ready");
  return () => { number++; running = false; model.off("msg:custom", answered); model.off("change:message", told); };
}

export default { render };
