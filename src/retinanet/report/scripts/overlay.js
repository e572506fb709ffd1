// Draw an image and the boxes of its marks as SVG, in original pixels. Colours, dashes and symbols tell outcomes apart.

const markOrder = ["found", "unlabelled", "false", "missed"];
const markSymbols = { found: "", missed: "×", false: "×", unlabelled: "?" };

function svgNode(tag, attributes = {}, children = []) {
  const namespace = document.querySelector("svg").namespaceURI; // the legend is an SVG; the page names no address
  const node = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Return the text of a mark: symbol, class, and the score of a detection.
function markText(mark, classes) {
  const value = mark.score === null ? "" : (Math.floor(mark.score / 10) / 100).toFixed(2);
  return `${markSymbols[mark.outcome]} ${classes[mark.label]} ${value}`.trim();
}

// Return the counts of marks as text: "12 found, 1 missed, 0 false".
function countText(counts) {
  const text = `${counts.found} found, ${counts.missed} missed, ${counts.false} false`;
  return counts.unlabelled ? `${text}, ${counts.unlabelled} probably unlabelled` : text;
}

// Return an SVG of an image, without boxes.
function imageView(image, source) {
  const { width, height } = image;
  return svgNode("svg", { class: "view", viewBox: `0 0 ${width} ${height}`, role: "img" }, [
    svgNode("image", { href: source, width, height, preserveAspectRatio: "none" }),
    svgNode("g"),
  ]);
}

// Replace the boxes of an image. `truth` holds further boxes, which are drawn thinly. With `named`, found objects have
// their names, too.
function drawMarks(view, marks, classes, { truth = [], named = false } = {}) {
  const path = (boxes) => boxes.map(([x1, y1, x2, y2]) => `M${x1} ${y1}H${x2}V${y2}H${x1}Z`).join("");
  const nodes = [], { height } = view.viewBox.baseVal;
  const add = (name, boxes) => {
    const d = path(boxes);
    nodes.push(svgNode("path", { class: "casing", d }), svgNode("path", { class: name, d }));
  };
  if (truth.length) add("truth", truth);
  for (const outcome of markOrder) {
    const boxes = marks.filter((mark) => mark.outcome === outcome).map((mark) => mark.box);
    if (boxes.length) add(outcome, boxes);
  }
  for (const mark of marks) {
    if (mark.outcome === "found" && !named) continue;
    const text = svgNode("text", { x: mark.box[0], y: mark.box[1], dy: mark.box[1] > height / 24 ? "-.3em" : "1em" });
    text.textContent = markText(mark, classes);
    nodes.push(text);
  }
  view.lastElementChild.replaceChildren(...nodes);
}

// Keep the text of a view at its size in CSS pixels, whatever the size of the view and its zoom.
function scaleText(view) {
  const scale = view.getScreenCTM()?.a;
  if (scale) view.style.setProperty("--unit", (1 / scale).toFixed(4));
}
