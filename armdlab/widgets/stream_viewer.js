// Ask for a run, watch it come, replay it. Pull protocol: two questions are in flight while the kernel decodes.

function render({ model, el }) {
  const root = make(el, "div", { class: "armdlab-view armdlab-streams", role: "group", "aria-label": "stream viewer" });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true")); // else JupyterLab takes the keys
  const form = make(root, "form", { class: "asked" }), first = model.get("asked"), controls = {};
  function control(name, tag, attributes, options) {
    const label = make(form, "label", {}, `${name} `);
    controls[name] = make(label, tag, attributes);
    for (const option of options || []) make(controls[name], "option", { value: option }, option);
    if (first[name] !== undefined) controls[name].value = first[name];
  }
  control("prompt", "input", { type: "text", dir: "auto", spellcheck: "false", autocomplete: "off" });
  control("streams", "input", { type: "number", min: 1, max: 16, step: 1 });
  control("temperature", "input", { type: "number", min: 0, max: 3, step: 0.1 });
  control("order", "select", {}, ["streams", "left to right", "random"]);
  control("model", "select", {}, model.get("names"));
  control("seed", "input", { type: "number", min: 0, step: 1 });
  const write = make(form, "button", { type: "submit" }, "Write");
  const stopButton = make(form, "button", { type: "button", "aria-keyshortcuts": "S" }, "Stop");
  const alert = make(root, "div", { class: "alert", role: "alert" });
  const player = tracePlayer(root);

  const me = Math.random().toString(36).slice(2); // answers reach every view of the widget: each takes its own
  let number = 0, running = false, waiting = [], painting = false;
  const run = () => `${me}:${number}`;

  function state(name) {
    running = name === "running";
    root.dataset.status = name;
    write.disabled = running;
    stopButton.disabled = !running;
  }

  function begin() {
    if (running) return; // a second click never starts a second run
    number++;
    waiting = [];
    alert.textContent = "";
    state("running");
    const asked = Object.fromEntries(Object.entries(controls).map(([name, input]) => [name, input.type === "number" ? Number(input.value) : input.value]));
    model.send({ want: "run", run: run(), asked });
  }

  function ask() { model.send({ want: "steps", run: run(), budget_ms: 30 }); }

  function halt() {
    if (!running) return;
    model.send({ want: "stop", run: run() });
    state("stopped");
  }

  // Steps that came together are spaced out over frames of the screen, so that they are seen one by one.
  function paint() {
    if (!waiting.length || root.dataset.status === "stopped") { painting = false; waiting = []; settle(); return; }
    for (let n = Math.max(1, Math.ceil(waiting.length / 4)); n && waiting.length; n--) player.push(waiting.shift());
    requestAnimationFrame(paint);
  }

  function answered(content) {
    if (content.status === "failed") { if (running) { state("failed"); alert.textContent = model.get("message"); } return; }
    if (content.run !== run() || !running) return;
    if (content.given) {
      player.load({ given: content.given, lanes: content.lanes, steps: [] });
      ask();
      ask();
      return;
    }
    waiting.push(...content.frames);
    if (!painting && waiting.length) { painting = true; requestAnimationFrame(paint); }
    if (content.status === "running") ask();
    else if (content.status === "finished") { state("finished"); if (!painting) settle(); }
  }

  // The finished run comes once more as a trait, with alternatives; what is on the screen stays where it is.
  function renewed() { if (["running", "finished", "stopped"].includes(root.dataset.status)) settle(); else player.load(model.get("trace")); }

  function settle() {
    const trace = model.get("trace");
    if (!running && !waiting.length && trace.steps.length === player.trace().steps.length) player.renew(trace);
  }

  form.onsubmit = (event) => { event.preventDefault(); begin(); };
  stopButton.onclick = halt;
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    if (event.key.toLowerCase() === "s") { event.preventDefault(); halt(); }
    if (/^[1-8]$/.test(event.key)) { event.preventDefault(); controls.streams.value = event.key; }
  });
  const told = () => { if (model.get("message")) alert.textContent = model.get("message"); };
  model.on("msg:custom", answered);
  model.on("change:trace", renewed);
  model.on("change:message", told);
  theme(root);
  requestAnimationFrame(() => theme(root));
  state("ready");
  player.load(model.get("trace"));
  player.show(1e9);
  return () => { number++; running = false; player.stop(); model.off("msg:custom", answered); model.off("change:trace", renewed); model.off("change:message", told); };
}

export default { render };
