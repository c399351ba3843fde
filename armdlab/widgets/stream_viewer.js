// Ask for a run, watch it come, replay it.

function render({ model, el }) {
  const root = make(el, "div", { class: "armdlab-view armdlab-streams", role: "group", "aria-label": "stream viewer" });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true")); // else JupyterLab takes the keys
  const form = make(root, "form", { class: "asked", novalidate: "" });
  const { controls, asked } = askedFor(form, model.get("asked"), [
    ["prompt", "input", { type: "text", dir: "auto", spellcheck: "false", autocomplete: "off" }],
    ["streams", "input", { type: "number", min: 1, max: 16, step: 1 }],
    ["temperature", "input", { type: "number", min: 0, max: 3, step: 0.1 }],
    ["order", "select", {}, ["streams", "corrected streams", "left to right", "random"]],
    ["model", "select", {}, model.get("names")],
    ["seed", "input", { type: "number", min: 0, step: 1 }],
  ]);
  const write = make(form, "button", { type: "submit" }, "Write");
  const stopButton = make(form, "button", { type: "button", "aria-keyshortcuts": "S" }, "Stop");
  const alert = make(root, "div", { class: "alert", role: "alert" });
  const player = tracePlayer(root);
  const compared = make(root, "p", { class: "compared" });
  let waiting = [], painting = false, settled = true, isLaid = false; // whether the run that is asked for is on the screen

  function state(name) {
    root.dataset.status = name;
    enable(write, name !== "running");
    enable(stopButton, name === "running");
  }

  const pull = pulling(model, alert, {
    took(content) {
      if (content.given) isLaid = true;
      if (content.given) player.load({ given: content.given, lanes: content.lanes, steps: [] });
      waiting.push(...(content.frames || []));
      if (!painting && waiting.length) { painting = true; requestAnimationFrame(paint); }
    },
    ended(name) {
      if (name === "stopped") waiting = [];
      settled = !["stopped", "finished"].includes(name);
      state(name);
      if (!painting) settle();
    },
    still: renewed,
  });

  // Steps that came together are spaced out over frames of the screen, so that they are seen one by one.
  function paint() {
    for (let n = Math.ceil(waiting.length / 6); n && waiting.length; n--) player.push(waiting.shift());
    painting = waiting.length > 0;
    if (painting) requestAnimationFrame(paint);
    else settle();
  }

  // All that came is on the screen: now the kernel has time to look up what else each token could have been.
  function settle() {
    if (settled || pull.running()) return;
    settled = true;
    pull.ask("others");
  }

  function begin() {
    if (!pull.begin(asked())) return;
    waiting = [];
    isLaid = false;
    state("running");
  }
  const halt = () => { if (pull.running()) pull.stop(isLaid ? player.trace().steps.length : 0); };

  // The run comes as a trait, once by itself and once with alternatives; what is on the screen stays where it is.
  function renewed() {
    const trace = model.get("trace");
    if (!pull.busy() && !waiting.length && !(root.dataset.status !== "ready" && player.renew(trace))) { player.load(trace); player.show(1e9); }
    compared.textContent = model.get("compared");
  }

  form.onsubmit = (event) => { event.preventDefault(); begin(); };
  stopButton.onclick = halt;
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    if (event.key.toLowerCase() === "s") { event.preventDefault(); halt(); }
    if (/^[1-8]$/.test(event.key)) { event.preventDefault(); controls.streams.value = event.key; }
  });
  themed(root);
  model.on("change:trace", renewed);
  state("ready");
  renewed();
  return () => { waiting = []; player.stop(); pull.off(); model.off("change:trace", renewed); };
}

export default { render };
