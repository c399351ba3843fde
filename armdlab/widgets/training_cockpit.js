// A training run in view: curve, meter, sample; Play, Pause, Stop and save.
const COLOURS = { "left to right": "#56B4E9", shuffled: "#E69F00", strided: "#CC79A7", mixture: "#CC79A7" };

// Perplexities to write on an axis of nats: 1, 2, 5, 10, 20 ... as far as there is room; even steps where these are too few.
function perplexities(low, high) {
  const [least, most] = [Math.exp(low), Math.exp(high)];
  const decades = Array.from({ length: Math.floor(high / Math.LN10) - Math.floor(low / Math.LN10) + 1 }, (_, i) => 10 ** (Math.floor(low / Math.LN10) + i));
  const within = (parts) => decades.flatMap((decade) => parts.map((part) => part * decade)).filter((value) => value >= least && value <= Math.min(most, Number.MAX_VALUE));
  const rounded = [[1, 2, 5], [1]].map(within).find((found) => found.length <= 8) ?? within([1]).filter((_, i, all) => i % Math.ceil(all.length / 8) === 0);
  if (rounded.length > 2) return rounded;
  const unit = 10 ** Math.floor(Math.log10((most - least) / 3));
  const step = unit * [1, 2, 5, 10].find((part) => (most - least) / (unit * part) <= 6);
  const first = Math.ceil(least / step);
  return Array.from({ length: Math.floor(most / step) - first + 1 }, (_, i) => (first + i) * step);
}
const written = (value) => (value < 1e5 ? value.toLocaleString("en") : value.toExponential(0));

function render({ model, el }) {
  const plan = model.get("plan");
  const root = make(el, "div", { class: "armdlab-view armdlab-cockpit", role: "group", "aria-label": "training cockpit" });
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true")); // else JupyterLab takes the keys
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
  const picture = make(root, "svg", { role: "img", "aria-label": "loss in training, and held-out loss, against steps; in nats, and as perplexity" });
  const note = make(root, "p", { class: "note" });
  const heading = make(root, "div", {}, "It writes, at the last score:");
  const sample = make(root, "p", { class: "sample" });

  let frames = model.get("frames").slice();
  const pull = pulling(model, alert, {
    took(content) {
      const last = frames.at(-1)?.step ?? 0; // a trait may have told of some steps before
      frames.push(...(content.frames || []).filter(({ step }) => step > last));
      draw();
      buttons();
    },
    ended() { buttons(); },
  });

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
    heading.hidden = sample.hidden = !scored.length;
    const recorded = model.get("recorded");
    if (frames.length) curve(frames, scored, plan.steps);
    else curve(recorded.frames, recorded.frames.filter((frame) => frame.nats !== undefined), recorded.frames.at(-1).step, "5 4");
    note.textContent = frames.length ? "" : `Recorded earlier: ${recorded.said}. Play trains yours.`;
  }

  function curve(all, scored, steps, dashes = "none") {
    const wide = Math.max(300, Math.round(picture.getBoundingClientRect().width) || 800), left = 46, right = wide - 54; // letters keep their size
    picture.setAttribute("viewBox", `0 0 ${wide} 252`);
    picture.replaceChildren();
    const values = all.map((frame) => frame.loss).concat(scored.map((frame) => frame.nats));
    const low = Math.min(...values), high = Math.max(...values, low + 0.1);
    const x = (step) => left + ((right - left) * step) / steps, y = (nats) => 211 - (180 * (nats - low)) / (high - low);
    for (let i = 0; i <= 4; i++) {
      const nats = low + ((high - low) * i) / 4;
      make(picture, "line", { x1: left, x2: right, y1: y(nats), y2: y(nats), stroke: "var(--line)", "stroke-width": 0.5 });
      make(picture, "text", { x: left - 6, y: y(nats) + 4, "text-anchor": "end" }, nats.toFixed(2));
    }
    for (const value of perplexities(low, high)) {
      make(picture, "line", { x1: right, x2: right + 4, y1: y(Math.log(value)), y2: y(Math.log(value)), stroke: "var(--line)" });
      make(picture, "text", { x: right + 7, y: y(Math.log(value)) + 4, class: "perplexity" }, written(value));
    }
    make(picture, "text", { x: 10, y: 14 }, "nats a token");
    make(picture, "text", { x: wide - 4, y: 14, "text-anchor": "end" }, "perplexity");
    make(picture, "text", { x: right, y: 230, "text-anchor": "end" }, `step ${steps}`);
    make(picture, "text", { x: 10, y: 247 }, "line while training, dots held out");
    const points = all.map((frame) => `${x(frame.step).toFixed(1)},${y(frame.loss).toFixed(1)}`).join(" ");
    make(picture, "polyline", { points, fill: "none", stroke: "var(--curve)", "stroke-width": 2, "stroke-dasharray": dashes });
    for (const frame of scored) {
      const dot = make(picture, "circle", { cx: x(frame.step), cy: y(frame.nats), r: 5, fill: "#D55E00" });
      make(dot, "title", {}, `step ${frame.step}: ${frame.said}`);
    }
    const last = scored.at(-1);
    picture.setAttribute("aria-label", `loss of ${all.length} steps, from ${all[0].loss.toFixed(2)} to ${all.at(-1).loss.toFixed(2)} nats a token${last ? `; held out ${last.nats.toFixed(2)}, perplexity ${Math.exp(last.nats).toFixed(2)}, at step ${last.step}` : ""}`);
  }

  function buttons() {
    const status = model.get("status");
    play.textContent = pull.running() ? "Pause" : status === "finished" ? "Finished" : frames.length || plan.done ? "Go on" : "Play";
    enable(play, status !== "finished");
    root.dataset.status = pull.running() ? "playing" : status;
  }

  play.onclick = () => {
    if (pull.running()) pull.pause();
    else if (play.getAttribute("aria-disabled") !== "true") pull.begin();
    buttons();
  };
  stop.onclick = () => { pull.stop(); buttons(); };
  const renewed = () => { if (!pull.running()) { frames = model.get("frames").slice(); draw(); } buttons(); };
  model.on("change:status", renewed);
  model.on("change:frames", renewed); // trained by a cell: `run_now`
  themed(root);
  draw();
  buttons();
  const sized = new ResizeObserver(() => draw());
  sized.observe(root);
  return () => { sized.disconnect(); pull.off(); model.off("change:status", renewed); model.off("change:frames", renewed); };
}

export default { render };
