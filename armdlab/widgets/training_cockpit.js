// A training run in view. Pull protocol: ask, draw what comes, ask again; two questions are in flight while it plays.
const COLOURS = { "left to right": "#56B4E9", shuffled: "#E69F00", strided: "#CC79A7", mixture: "#CC79A7" };
const SVG = "http://www.w3.org/2000/svg";

function make(parent, tag, attributes = {}, text = "") {
  const element = tag === "svg" || parent.namespaceURI === SVG ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  parent.appendChild(element);
  return element;
}

function theme(root) {
  let at = root.parentElement, colour = "";
  while (at && (!colour || colour === "rgba(0, 0, 0, 0)")) { colour = getComputedStyle(at).backgroundColor; at = at.parentElement; }
  const [r, g, b] = (colour.match(/\d+/g) || [255, 255, 255]).map(Number);
  root.dataset.theme = 0.299 * r + 0.587 * g + 0.114 * b < 128 ? "dark" : "light";
}

function render({ model, el }) {
  const plan = model.get("plan");
  const root = make(el, "div", { class: "armdlab-cockpit", role: "group", "aria-label": "training cockpit", "data-lm-suppress-shortcuts": "true" }); // else JupyterLab takes Enter
  const bar = make(root, "div");
  const play = make(bar, "button", { type: "button" }, "Play");
  const stop = make(bar, "button", { type: "button", title: `save into ${plan.out}` }, "Stop and save");
  const alert = make(root, "div", { class: "alert", role: "alert" });
  const facts = make(root, "div", { class: "facts", "aria-live": "off" });
  const shown = {};
  for (const name of ["step", "order", "loss", "held-out perplexity", "tokens/s", "seconds"]) {
    const fact = make(facts, "span", {}, `${name} `);
    shown[name] = make(fact, "b", { "data-fact": name }, "–");
  }
  const meter = make(root, "div", { class: "meter", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": plan.steps, "aria-label": "steps of the curriculum" });
  for (const lesson of plan.lessons) {
    make(meter, "div", { class: "lesson", title: `${lesson.name}: steps ${lesson.from} to ${lesson.to}`, style: `flex: ${lesson.to - lesson.from}; background: ${COLOURS[lesson.name] || "#999"}` }, lesson.name);
  }
  const needle = make(meter, "div", { class: "needle" });
  const picture = make(root, "svg", { viewBox: "0 0 800 220", role: "img", "aria-label": "loss in training, and held-out loss, against steps" });
  const heading = make(root, "div", {}, "It writes, at the last score:");
  const sample = make(root, "p", { class: "sample" });

  let frames = model.get("frames").slice(), playing = false, asked = 0, run = 0;
  const me = Math.random().toString(36).slice(2); // answers reach every view of the cockpit: each takes its own

  function draw() {
    const last = frames[frames.length - 1];
    const scored = frames.filter((frame) => frame.nats !== undefined);
    const step = last ? last.step : plan.done;
    shown.step.textContent = `${step} of ${plan.steps}`;
    meter.setAttribute("aria-valuenow", step);
    needle.style.width = `${(100 * step) / plan.steps}%`;
    if (last) {
      shown.order.textContent = last.order;
      shown.loss.textContent = `${last.loss.toFixed(3)} nats a token`;
      shown["tokens/s"].textContent = Math.round(last.rate).toLocaleString("en");
      shown.seconds.textContent = last.seconds.toFixed(1);
    }
    if (scored.length) {
      const score = scored[scored.length - 1];
      shown["held-out perplexity"].textContent = score.perplexity.toFixed(2);
      shown["held-out perplexity"].title = score.said;
      sample.textContent = score.sample;
    }
    heading.hidden = !scored.length;
    curve(frames, scored);
  }

  function curve(all, scored) {
    picture.replaceChildren();
    if (!all.length) return;
    const values = all.map((frame) => frame.loss).concat(scored.map((frame) => frame.nats));
    const low = Math.min(...values), high = Math.max(...values, low + 0.1);
    const x = (step) => 46 + (744 * step) / plan.steps, y = (nats) => 195 - (180 * (nats - low)) / (high - low);
    for (let i = 0; i <= 4; i++) {
      const nats = low + ((high - low) * i) / 4;
      make(picture, "line", { x1: 46, x2: 790, y1: y(nats), y2: y(nats), stroke: "var(--line)", "stroke-width": 0.5 });
      make(picture, "text", { x: 40, y: y(nats) + 4, "text-anchor": "end" }, nats.toFixed(2));
    }
    make(picture, "text", { x: 790, y: 214, "text-anchor": "end" }, "step");
    make(picture, "text", { x: 46, y: 214 }, "nats a token: line while training, dots held out");
    const points = all.map((frame) => `${x(frame.step).toFixed(1)},${y(frame.loss).toFixed(1)}`).join(" ");
    make(picture, "polyline", { points, fill: "none", stroke: "var(--curve)", "stroke-width": 2 });
    for (const frame of scored) {
      const dot = make(picture, "circle", { cx: x(frame.step), cy: y(frame.nats), r: 5, fill: "#D55E00" });
      make(dot, "title", {}, `step ${frame.step}: ${frame.said}`);
    }
  }

  function buttons() {
    const status = model.get("status");
    play.textContent = playing ? "Pause" : status === "finished" ? "Finished" : frames.length || plan.done ? "Go on" : "Play";
    play.disabled = status === "finished";
    root.dataset.status = playing ? "playing" : status;
  }

  function ask() { asked++; model.send({ want: "steps", budget_ms: 80, ask: `${me}:${run}` }); }

  function answered(content) {
    if (!String(content.ask).startsWith(`${me}:`)) return;
    asked--;
    frames.push(...(content.frames || []));
    if (content.status === "failed" || content.status === "finished") playing = false;
    draw();
    buttons();
    if (playing && content.ask === `${me}:${run}`) while (asked < 2) ask();
  }

  play.onclick = () => {
    playing = !playing;
    run++;
    buttons();
    if (playing) while (asked < 2) ask();
  };
  stop.onclick = () => { playing = false; run++; asked++; model.send({ want: "stop", ask: `${me}:${run}` }); buttons(); };
  const said = () => { alert.textContent = model.get("message"); };
  const renewed = () => { if (!playing) { frames = model.get("frames").slice(); draw(); } buttons(); };
  model.on("msg:custom", answered);
  model.on("change:message", said);
  model.on("change:status", renewed);
  model.on("change:frames", renewed); // trained by a cell: `run_now`
  theme(root);
  requestAnimationFrame(() => theme(root));
  said();
  draw();
  buttons();
  return () => { playing = false; model.off("msg:custom", answered); model.off("change:message", said); model.off("change:status", renewed); model.off("change:frames", renewed); };
}

export default { render };
