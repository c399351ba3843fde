// What every view needs: elements whose text is text, and the theme of the page that they stand in.
const SVG = "http://www.w3.org/2000/svg";

function make(parent, tag, attributes = {}, text = "") {
  const element = tag === "svg" || parent.namespaceURI === SVG ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  parent.appendChild(element);
  return element;
}

// A page is dark if its ground is, or, where nothing on the way up has a ground, if its letters are bright.
function theme(root) {
  if (!root.isConnected) { root.dataset.theme ||= "light"; return; } // not yet in the page, or no more
  const bright = (colour) => { const [r, g, b] = colour.match(/\d+/g).map(Number); return 0.299 * r + 0.587 * g + 0.114 * b >= 128; };
  const seen = (colour) => !/^(transparent|rgba\(.*, 0\))$/.test(colour);
  let isLight = null;
  for (let at = root.parentElement; at && isLight === null; at = at.parentElement) {
    const ground = getComputedStyle(at).backgroundColor;
    if (seen(ground)) isLight = bright(ground);
  }
  if (isLight === null) isLight = document.documentElement.getAttribute("theme") !== "dark" && !bright(getComputedStyle(root.parentElement || root).color);
  root.dataset.theme = isLight ? "light" : "dark";
}

// The same, now, once the view stands in its page, and whenever the page changes its theme.
function themed(root) {
  const observer = new MutationObserver(() => {
    if (!root.isConnected) { observer.disconnect(); return; }
    theme(root);
    setTimeout(() => theme(root), 300); // styles come after the attribute that names them
  });
  theme(root);
  requestAnimationFrame(() => {
    theme(root);
    for (const element of [document.documentElement, document.body]) observer.observe(element, { attributes: true });
  });
}
