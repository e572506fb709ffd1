// The list of the objects of the current image, the processing times and the downloads.

import { $, element, swatch } from "./dom.js";
import { explainDetection } from "./explanation.js";
import { asCsv, asImage, asJson, download } from "./files.js";
import { countOf, labelOf } from "./groups.js";
import { announce, showError } from "./messages.js";
import { onChange, shownDetections, shownObjects, state } from "./state.js";
import { viewer } from "./view.js";

const MAX_ROWS = 200;
const MAX_OPINIONS = 2; // further classes of an object that its row names

// Return a name such as "detection 1, class apple, score 0.63, or class orange, score 0.61".
const nameOf = ({ others, ...best }, i) =>
  `detection ${i + 1}, ${[best, ...others].map((one) => `class ${one.class}, score ${one.score.toFixed(2)}`).join(", or ")}`;

// Return the content of the row of an object. A screen reader reads its name in place of the parts.
function rowParts(object, i) {
  const { others, ...best } = object;
  const lines = [best, ...others.slice(0, MAX_OPINIONS)].map((one, k) => [
    element("span", { class: "name", textContent: k ? `or ${one.class}` : one.class }),
    element("span", { class: "number", textContent: one.score.toFixed(2) }),
  ]);
  const more = others.length - MAX_OPINIONS;
  if (more > 0) lines.push([`or ${more} more ${more === 1 ? "class" : "classes"}`]);
  const names = lines.map((children) => element("span", { class: "line", children }));
  return [
    element("span", { class: "for-readers", textContent: nameOf(object, i) }),
    element("span", { class: "number muted", textContent: i + 1, "aria-hidden": "true" }),
    swatch(best.class_id),
    element("span", { class: "names", children: names, "aria-hidden": "true" }),
  ];
}

function showFound(objects) {
  const focused = [...$("found").children].findIndex((line) => line.contains(document.activeElement));
  const rows = objects.slice(0, MAX_ROWS).map((object, i) => {
    const [x1, y1, x2, y2] = object.box;
    const button = element("button", {
      type: "button",
      title: `${labelOf(object, Infinity)}. ${(x2 - x1).toFixed(0)} × ${(y2 - y1).toFixed(0)} pixels at ${x1.toFixed(0)}, ${y1.toFixed(0)}`,
      children: rowParts(object, i),
    });
    button.object = object;
    button.onmouseenter = button.onfocus = () => mark(object);
    button.onmouseleave = button.onblur = () => mark(null);
    button.onclick = () => explainDetection(object);
    return element("li", { children: [button] });
  });
  $("found").replaceChildren(...rows);
  rows[Math.min(focused, rows.length - 1)]?.firstChild.focus();
  $("found-more").textContent = objects.length > MAX_ROWS ? `and ${objects.length - MAX_ROWS} more` : "";
}

function mark(object) {
  if (viewer.marked === object) return;
  viewer.marked = object;
  viewer.draw();
  for (const { firstChild: button } of $("found").children) {
    button.classList.toggle("on", button.object === object && object !== null);
  }
}

// Mark the next or the previous object of the image, read it, and return it.
export function markNext(by) {
  const objects = shownObjects(state.current);
  if (!objects.length) {
    announce("no detections");
    return null;
  }
  const last = objects.indexOf(viewer.marked);
  const i = last < 0 ? (by > 0 ? 0 : objects.length - 1) : (last + by + objects.length) % objects.length;
  mark(objects[i]);
  $("found").children[i]?.scrollIntoView({ block: "nearest" });
  announce(nameOf(objects[i], i));
  return objects[i];
}

function showTiming({ milliseconds, roundTrip, width, height }) {
  const rows = [
    ["Decoding and waiting", `${milliseconds.before.toFixed(0)} ms`],
    ["Neural network", `${milliseconds.network.toFixed(0)} ms`],
    ["Total with transfer", `${roundTrip.toFixed(0)} ms`],
    ["Image size", `${width} × ${height}`],
  ];
  $("timing").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
}

let drawn = null; // objects in the list
function render() {
  const done = state.current?.status === "done";
  const objects = shownObjects(state.current);
  $("count").textContent = done ? countOf(objects) : "";
  for (const id of ["found-section", "downloads", "timing-section"]) $(id).hidden = !done;
  $("save-image").disabled = !state.image;
  if (!done || drawn === objects) return;
  drawn = objects;
  showFound(objects);
  showTiming(state.current.result);
}

const results = () =>
  state.uploads
    .filter(({ status }) => status === "done")
    .map((upload) => ({ ...upload.result, detections: shownDetections(upload) }));

$("json").onclick = () => download(asJson(results(), state.tuned ? "tuned" : state.threshold), "detections.json");
$("csv").onclick = () => download(asCsv(results()), "detections.csv");
$("save-image").onclick = async () => {
  const { name, result } = state.current;
  try {
    const blob = await asImage(state.image, result.width, result.height, shownObjects(state.current), $("labels").checked);
    download(blob, `${name.replace(/\.[^.]+$/, "")} detections.jpg`);
  } catch (error) {
    showError(`${name}: ${error.message}`);
  }
};
viewer.onHover = mark;
$("canvas").addEventListener("mouseleave", () => mark(null));
onChange(render);
