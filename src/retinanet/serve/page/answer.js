// Show why one object is missed: the cause, its numbers, and what can help.

import { colorOf } from "./colors.js";
import { $, element, swatch } from "./dom.js";
import { renderLevels } from "./levels.js";

const NEAR_PIXELS = 8; // screen pixels; a place this near to a detection is described as just outside of it
const NEAR_SHARE = 0.1; // share of the shorter side of the detection; the same value as on the server
const OWN_IOU = 0.95; // a detection with at least this IoU with the object is surely no other object
const SAME_IOU = 0.995; // the object is the predicted box itself

const text = (tag, textContent, name = "") => element(tag, { textContent, class: name });
const capital = (words) => words[0].toUpperCase() + words.slice(1);
const three = (value) => value.toFixed(3);
const two = (value) => value.toFixed(2);

// Return the nodes that explain an object. `list` is the ObjectList.
export function renderAnswer(object, list) {
  const { result, answer } = object;
  if (!result && !answer) return [];
  const body = result ? renderResult(object, list) : [text("p", answer.summary, "why-text")];
  const title = result ? titleOf(result, list) : "No object is suggested here";
  const node = element("div", {
    class: "answer",
    tabIndex: -1,
    role: "group",
    "aria-label": `Answer: ${title}`,
    children: [text("h3", title), ...nearNote(object, list), ...body, ...others(object, list), levels(object, list)],
  });
  node.dataset.key = "answer";
  return [node];
}

function titleOf({ cause, detection, found }, list) {
  return cause === "detected" ? `Detected: ${list.nameOf(found[detection])}` : `Missed: ${cause}`;
}

// Return a note if the place that was clicked lies just outside of a detection.
function nearNote({ place, answer }, list) {
  const near = answer?.near;
  if (!place || !near) return [];
  const detection = answer.detections[near.detection];
  const [x1, y1, x2, y2] = detection.box;
  const limit = Math.max(NEAR_PIXELS / list.viewer.scale, NEAR_SHARE * Math.min(x2 - x1, y2 - y1));
  if (near.distance > limit) return [];
  const pixels = Math.max(1, Math.round(near.distance));
  const button = element("button", { class: "link", type: "button", textContent: `Explain ${list.nameOf(detection, true)}` });
  button.dataset.key = "near";
  button.onclick = () => list.explainBox(detection);
  const note = `This place is ${pixels} ${pixels === 1 ? "pixel" : "pixels"} outside of ${list.nameOf(detection)}. `;
  return [element("p", { class: "why-text near", children: [note, button] })];
}

// Return buttons for the other objects that a clicked place suggests.
function others({ place, answer }, list) {
  if (!place || !answer?.others.length) return [];
  const buttons = answer.others.map((one, i) => {
    const button = element("button", { type: "button", children: [swatch(one.class_id), `${one.class} ${two(one.score)}, ${one.source === "detection" ? "detected" : "not detected"}`] });
    button.dataset.key = `other-${i}`;
    button.onmouseenter = button.onfocus = () => list.preview({ ...one, anchor: one.box });
    button.onmouseleave = button.onblur = () => list.preview(null);
    button.onclick = () => list.explainBox(one);
    return button;
  });
  return [element("p", { class: "buttons others", children: [text("span", "Also at this place:", "muted"), ...buttons] })];
}

function renderResult(object, list) {
  const { result } = object;
  const { advice, remedy, command, note } = result;
  const helps = [advice && `What can help: ${advice}.`, remedy?.text].filter(Boolean).join(" ");
  return [
    text("p", `${capital(result.meaning)}.`, "why-text"),
    element("dl", { class: "facts", children: facts(object, list).flat() }),
    ...(helps ? [text("p", helps, "why-text")] : []),
    ...(command ? [element("p", { class: "why-text", children: [text("code", command)] })] : []),
    ...neighbourButton(object, list),
    ...(note ? [text("p", note, "muted small")] : []),
  ];
}

const fact = (name, ...children) => [text("dt", name), element("dd", { children })];

function facts(object, list) {
  const { best, closest, anchor, nms_iou: nmsIou, detection, iou, found, cause, taken_by: taken, order } = object.result;
  const box = best ?? closest;
  const level = `${box.detail} (${box.level})`;
  const where = box.iou >= SAME_IOU ? level : `IoU ${two(box.iou)} with the object, ${level}`;
  const rows = [
    fact("Visible", ...visible(object.result, list)),
    fact(cause === "detected" ? "Its box" : best ? "Best box" : "Closest box", best ? where : `${where}; no box that fits is left`),
    fact("Its scores", scores(box, object, list)),
  ];
  if (cause !== "detected" && detection !== null) {
    const name = cause === "suppressed" ? "Suppressed by" : "Overlaps";
    const overlap = cause === "suppressed" ? `IoU ${two(nmsIou)} with the best box` : `IoU ${two(iou)} with the object`;
    rows.push(fact(name, detectionButton(found[detection], list), ` ${overlap}`));
  } else if (cause === "suppressed") rows.push(fact("Suppressed by", `a box that is not shown, IoU ${two(nmsIou)} with the best box`));
  if (cause !== "detected") rows.push(fact("Best anchor", `IoU ${two(anchor.iou)}, ${anchor.detail} (${anchor.level}): ${role(anchor)}`));
  if (taken !== null) rows.push(fact("Anchors taken by", objectButton(order[taken], list)));
  return rows;
}

function role({ role: name, positives }) {
  const count = `${positives} ${positives === 1 ? "anchor is" : "anchors are"} positive for the object`;
  const roles = { positive: count, ignored: "ignored in training", background: "background in training" };
  return `${roles[name] ?? "positive for another object in training"}${name !== "positive" && positives ? `; ${count}` : ""}`;
}

function visible({ visible_from: threshold, hidden_because: reason }, list) {
  if (threshold === null) return [`at no threshold: ${reason}`];
  const value = Math.floor(100 * threshold + 1e-9) / 100; // the slider has steps of 0.01
  const words = `at thresholds up to ${three(threshold)} `;
  const { min, value: now } = $("threshold");
  if (value < Number(min) || value >= Number(now)) return [words];
  const button = element("button", { class: "link", type: "button", textContent: `set slider to ${two(value)}` });
  button.dataset.key = "visible";
  button.onclick = () => list.onThreshold(value);
  return [words, button];
}

// Return the classes with the highest scores of a box. The class of the object is listed even with a low score.
function scores(box, { label }, list) {
  const own = { class_id: label, class: list.classes[label], score: box.score };
  const rows = box.classes.some(({ class_id }) => class_id === label) ? box.classes : [...box.classes, own];
  const lines = rows.map((one) => {
    const bar = element("span", { class: "meter", "aria-hidden": "true", children: [element("i")] });
    bar.firstChild.style.width = `${100 * one.score}%`;
    bar.firstChild.style.background = colorOf(one.class_id);
    const children = [swatch(one.class_id), text("span", one.class, "name"), bar, text("span", three(one.score), "number")];
    return element("li", { class: one.class_id === label ? "own" : "", children });
  });
  return element("ul", { class: "scores", children: lines });
}

// Return a button that names a detection, shows it on the image, and explains it.
function detectionButton(detection, list) {
  const button = element("button", { class: "link", type: "button", textContent: list.nameOf(detection) });
  button.dataset.key = "involved";
  button.onmouseenter = button.onfocus = () => list.highlight(detection);
  button.onmouseleave = button.onblur = () => list.highlight(null);
  button.onclick = () => list.explainBox(detection);
  return button;
}

function objectButton(object, list) {
  const number = list.objects.indexOf(object) + 1;
  const button = element("button", { class: "link", type: "button", textContent: `object ${number}, ${list.classes[object.label]}` });
  button.dataset.key = "taken";
  button.onclick = () => list.select(object);
  return button;
}

// Return a button for the case that the detection of the answer is a detection of a neighbour.
function neighbourButton({ result: { cause, detection, found, iou } }, list) {
  if (detection === null || iou >= OWN_IOU || !["detected", "wrong class", "badly localised"].includes(cause)) return [];
  const button = element("button", { type: "button", textContent: `${capital(list.nameOf(found[detection], true))} is another object` });
  button.dataset.key = "neighbour";
  button.onclick = () => list.addNeighbour(found[detection]);
  return [element("p", { class: "buttons", children: [button] })];
}

function levels(object, list) {
  const summary = text("summary", "All feature levels at this place");
  summary.dataset.key = "levels";
  const children = [summary, ...(object.answer ? renderLevels(object.answer, list) : [])];
  const details = element("details", { class: "levels", open: Boolean(object.isOpen), children });
  details.ontoggle = () => {
    if (object.isOpen === details.open) return;
    object.isOpen = details.open;
    if (details.open && !object.answer) list.showLevels(object);
    if (!details.open) list.preview(null);
  };
  return details;
}
