// Explains why an object is found or missed: the object at a place that is clicked, or in a box that is drawn.

import { withKey } from "./access.js";
import * as api from "./api.js";
import { $ } from "./dom.js";
import { iou } from "./groups.js";
import { announce, focusPage, showBusy, showError } from "./messages.js";
import { ObjectList } from "./objects.js";
import { shownObjects, state } from "./state.js";
import { viewer } from "./view.js";

const SAME_IOU = 0.9; // two answers of the server describe the same detection from this IoU on
const HINT = matchMedia("(pointer: coarse)").matches
  ? "Tap a place to explain it. Drag to move the image."
  : "Click a place to explain it. Shift + drag draws a box. Drag moves the image.";

const objectList = new ObjectList({
  ask: {
    place: (upload, x, y, objects) => whileBusy(upload, () => api.explain(upload.blob, upload.name, [x, y], named(objects), threshold())),
    objects: (upload, objects) => whileBusy(upload, () => api.explain(upload.blob, upload.name, null, named(objects), threshold())),
  },
  viewer,
  nameOf,
  onShow: showObjects,
  onError: showError,
  onSpeak: announce,
  onClose: focusPage,
  onThreshold: setThreshold,
});
objectList.highlight = (detection) => viewer.onHover(detection && objectOf(detection));
objectList.preview = (proposal) => {
  viewer.proposal = proposal;
  viewer.draw();
};

const threshold = () => (state.tuned ? "tuned" : state.threshold.toFixed(4));
const named = (objects) => objects.map(({ box, label }) => ({ box, name: label === null ? "" : state.model.classes[label] }));

let explanations = 0; // that are being computed
async function whileBusy(upload, request) {
  explanations++;
  showBusy("Explaining…");
  try {
    return await withKey(request);
  } finally {
    if (!--explanations && upload === state.current) showBusy("");
  }
}

// Return the object of the list of detections that contains a detection of an explanation.
function objectOf(detection) {
  const isSame = (one) => one.class_id === detection.class_id && iou(one.box, detection.box) >= SAME_IOU;
  return shownObjects(state.current).find((object) => [object, ...object.others].some(isSame)) ?? null;
}

// Return the name of a detection of an explanation, such as "detection 3, apple 0.63", with the number in the list.
function nameOf(detection, isShort = false) {
  const number = shownObjects(state.current).indexOf(objectOf(detection)) + 1;
  const name = number ? `detection ${number}` : "a hidden detection";
  return isShort && number ? name : `${name}, ${detection.class} ${detection.score.toFixed(2)}`;
}

// Draw the objects. For the selected one, also the box that fits it, the detection that its cause concerns, and its anchor
// if the cause is one of anchors.
function showObjects(objects, selected) {
  const { best, detection, found, cause, anchor } = selected?.result ?? {};
  const involved = [best, found?.[detection]].filter(Boolean);
  viewer.objects = objects.filter(({ box }) => box).map((one) => ({ box: one.box, number: objects.indexOf(one) + 1, selected: one === selected }));
  viewer.evidence = involved.filter((one, i) => !i || String(one.box) !== String(involved[0].box));
  viewer.anchor = ["no anchor", "anchors ignored", "anchors taken"].includes(cause) ? anchor.box : null;
  Object.assign(viewer, { place: selected?.place ?? null, proposal: null });
  viewer.draw();
}

function setThreshold(value) {
  $("threshold").value = value;
  $("threshold").dispatchEvent(new Event("input"));
  $("threshold").dispatchEvent(new Event("change"));
}

const isReady = () => state.current?.status === "done";

// Show what the user marked in an image, in place of the previous image.
export function showExplanation(upload) {
  objectList.show(upload);
}

// Another image is about to be shown.
export function closeWhy() {
  objectList.show(null);
}

// The thresholds have changed: explanations hold for the previous thresholds only.
export function forgetExplanations() {
  for (const { objects } of state.uploads) for (const object of objects ?? []) Object.assign(object, { result: null, answer: null });
  objectList.forget();
}

// Explain the marked objects with the thresholds that are now set.
export const explainAgain = () => objectList.explain();

// Explain a detection of the list of detections.
export function explainDetection(detection) {
  if (isReady()) objectList.explainBox(detection);
}

export function startExplanation() {
  objectList.classes = state.model.classes;
}

viewer.onPick = (x, y) => isReady() && objectList.pick(x, y);
viewer.onDraw = (box) => isReady() && objectList.mark(box);
viewer.onResize = (box, isLast) => objectList.resize(box, isLast);
viewer.onArm = (isArmed) => $("draw").setAttribute("aria-pressed", String(isArmed));
$("draw").onclick = () => viewer.pointer.arm(!viewer.pointer.isArmed);
$("hint").textContent = HINT;
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (!viewer.pointer.cancel()) objectList.close();
});
