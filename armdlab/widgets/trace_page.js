// A run on a page of its own: it plays at once, but stands at its end for those who asked for less motion.
const root = make(document.getElementById("run"), "div", { class: "armdlab-view armdlab-streams" });
make(root, "h1", {}, "A run of armdlab");
make(root, "p", { class: "note" }, Object.entries(trace.settings).map(([name, value]) => `${name}: ${value}`).join("; "));
themed(root);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(root));
const player = tracePlayer(root);
player.load(trace);
root.focus();
if (matchMedia("(prefers-reduced-motion: reduce)").matches) player.show(1e9);
else player.toggle();
