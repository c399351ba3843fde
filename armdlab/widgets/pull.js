// Ask the kernel for the next steps, take what comes, ask again. Nothing runs there between two questions, so to stop is
// not to ask any more. Two questions are in flight: while the page takes one answer, the kernel works on the other.
const BUDGET_MS = 120; // of work for one question: long beside the 2 ms that a question costs, and beside the 70 ms of its way to and fro
const QUIET_MS = 6000;

// `took` is given each answer, `ended` how the run ended; `still` is called when no question is open any more, for until
// then the kernel may tell of steps that the reader has stopped; what a failed run left stays. `alert` is where sentences stand.
function pulling(model, alert, { took, ended, still = () => {} }) {
  const me = Math.random().toString(36).slice(2); // answers reach every view of a widget: each takes its own
  let number = 0, running = false, paused = false, begun = false, failed = false, flight = 0, timer = 0;
  const run = () => `${me}:${number}`;
  const said = () => { alert.textContent = model.get("message"); };

  function waits() {
    clearTimeout(timer);
    if (flight) timer = setTimeout(() => { alert.textContent = "No answer from the kernel yet: it may be busy. If it was restarted, run the cell again."; }, QUIET_MS);
  }
  function send(want, more = {}) { flight++; waits(); model.send({ want, run: run(), ...more }); }
  function fill() { while (running && flight < 2) send("steps", { budget_ms: BUDGET_MS }); }

  function answered(content) {
    if (content.run !== run()) return;
    flight = Math.max(0, flight - 1);
    waits();
    said();
    if (running || paused) heard(content);
    if (!running && !flight && !failed) still();
  }

  function heard(content) {
    if (content.status === "old" && !begun) return; // a kernel of two threads may take "steps" before "run"
    begun = true;
    failed = content.status === "failed";
    if (content.status !== "running") running = paused = false;
    if (content.status === "old") alert.textContent = "A cell or another view of this widget took over; this one has stopped.";
    took(content); // also what was on its way when the reader pressed Pause
    if (content.status !== "running") ended(content.status === "old" ? "stopped" : content.status);
    fill();
  }

  // A second click never starts a second run.
  function begin(asked = {}) {
    if (running) return false;
    running = true;
    if (paused) { paused = false; fill(); return true; }
    number++;
    flight = 0;
    begun = failed = false;
    send("run", { asked, budget_ms: BUDGET_MS });
    fill();
    return true;
  }

  function pause() { paused = running; running = false; }

  // `shown` steps have been seen: what the kernel made meanwhile is dropped there, too.
  function stop(shown) {
    const was = running || paused;
    running = paused = false;
    send("stop", { shown });
    if (was) ended("stopped");
  }

  model.on("msg:custom", answered);
  model.on("change:message", said);
  said();
  return {
    begin,
    pause,
    stop,
    ask: send,
    running: () => running,
    busy: () => running || flight > 0,
    off: () => { number++; running = paused = false; clearTimeout(timer); model.off("msg:custom", answered); model.off("change:message", said); },
  };
}

// A button that cannot be pressed now keeps the focus that it has, so that keys still reach the view.
function enable(button, can) { button.setAttribute("aria-disabled", !can); }

// Fields with their names, for what a run is asked for; `fields` gives [name, tag, attributes, options].
function askedFor(form, first, fields) {
  const controls = {};
  form.addEventListener("keydown", (event) => { // a notebook keeps Enter from sending a form
    if (event.key !== "Enter" || event.isComposing || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    event.stopPropagation();
    form.requestSubmit();
  });
  for (const [name, tag, attributes, options] of fields) {
    controls[name] = make(make(form, "label", {}, `${name} `), tag, attributes);
    for (const option of options || []) make(controls[name], "option", { value: option }, option);
    if (first[name] !== undefined) controls[name].value = first[name];
  }
  return { controls, asked: () => Object.fromEntries(Object.entries(controls).map(([name, input]) => [name, input.type === "number" && input.value !== "" ? Number(input.value) : input.value])) };
}
