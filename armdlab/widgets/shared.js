// What every view needs: elements whose text is text, and the theme of the page that they stand in.
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
