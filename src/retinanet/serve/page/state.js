// What the parts of the page share: the model, the images, the filters, and a list of functions to call after a change.

import { asObjects } from "./groups.js";
import { focusPage } from "./messages.js";

export const state = {
  model: null, // answer of /v1/model
  uploads: [], // {id, name, blob, thumb, status: "waiting" | "sent" | "done" | "failed", result, error}
  current: null, // one of the uploads
  chosen: false, // whether the user selected the current upload
  image: null, // ImageBitmap of the current upload
  threshold: 0.5,
  hasChosenThreshold: false, // whether the user changed the threshold
  tuned: null, // threshold of each class id, while the tuned thresholds are used
  hidden: new Set(), // class ids
};

const listeners = [];
let filters = 0; // increases with each change of the thresholds or of the hidden classes

// Call `listener` after each change. Listeners are called in the order of their registration.
export const onChange = (listener) => listeners.push(listener);

// Call all listeners. The focus never stays on an element that has gone.
export function changed() {
  const focused = document.activeElement;
  for (const listener of listeners) listener();
  const isLost = focused !== document.body && !focused.checkVisibility();
  if (isLost && [focused, document.body].includes(document.activeElement)) focusPage();
}

let pending = 0;

// Call all listeners once before the next frame, however often this function is called.
export function changedSoon() {
  pending ||= requestAnimationFrame(() => {
    pending = 0;
    changed();
  });
}

export function changeFilters(change) {
  change();
  filters++;
  changed();
}

export const thresholdOf = (classId) => state.tuned?.[classId] ?? state.threshold;
export const isAbove = ({ score, class_id }) => score > thresholdOf(class_id);
export const allDetections = (upload) => upload?.result?.detections ?? [];

// Return the detections of the selected classes above the threshold.
export const shownDetections = (upload) => allDetections(upload).filter((one) => isAbove(one) && !state.hidden.has(one.class_id));

const cache = new WeakMap(); // result -> {filters, objects}

// Return the objects of an image that are shown: detections of several classes at one place are one object.
export function shownObjects(upload) {
  if (!upload?.result) return [];
  let known = cache.get(upload.result);
  if (known?.filters !== filters) {
    known = { filters, objects: asObjects(shownDetections(upload)) };
    cache.set(upload.result, known);
  }
  return known.objects;
}
