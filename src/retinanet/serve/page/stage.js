// The stage: shows the current image with its boxes, or the reason why it has none, and handles the keys of the image.

import { closeWhy, explainDetection, showExplanation } from "./explanation.js";
import { $ } from "./dom.js";
import { decode } from "./images.js";
import { announce, focusPage, showBusy } from "./messages.js";
import { markNext } from "./results.js";
import { onChange, shownObjects, state } from "./state.js";
import { describe, remove, retry, step } from "./uploads.js";
import { viewer } from "./view.js";

let shown = null; // upload that is on the stage
let status = ""; // of this upload when it was shown

function render() {
  const upload = state.current;
  const failed = upload?.status === "failed";
  $("empty").hidden = Boolean(upload);
  $("canvas").hidden = !upload || failed;
  $("failure").hidden = !failed;
  if (!upload || failed) $("labels-text").hidden = true;
  document.querySelector(".tools").hidden = !upload || failed;
  if (failed) [$("failure-name").textContent, $("failure-reason").textContent] = [upload.name, upload.error];
  document.title = [upload?.name, state.model?.name, "retinanet"].filter(Boolean).join(" – ");
  $("canvas").setAttribute("aria-label", upload ? describe(upload) : "No image yet");
  $("draw").disabled = upload?.status !== "done";
  if (upload !== shown || (upload && upload.status !== status)) showImage(upload);
  const boxes = shownObjects(upload);
  if (viewer.boxes !== boxes) {
    Object.assign(viewer, { boxes, marked: null });
    viewer.draw();
  }
}

async function showImage(upload) {
  const again = upload === shown && state.image;
  [shown, status] = [upload, upload?.status ?? ""];
  showBusy(status === "waiting" || status === "sent" ? "Detecting…" : "");
  if (!again) {
    state.image?.close();
    state.image = viewer.image = null;
    closeWhy();
    const image = upload && status !== "failed" ? await decode(upload) : null;
    if (upload !== shown || state.image) return image?.close();
    state.image = image;
    $("save-image").disabled = !image;
    // Boxes are in pixels of the size that the server returns. Before the answer arrives, the browser's size is used.
    if (image) viewer.show(image, upload.result?.width ?? image.width, upload.result?.height ?? image.height);
  }
  showExplanation(upload);
}

let chosen = null; // object that the key D marked

// Show the next or the previous image, and read its answer.
function showNext(by) {
  if (!step(by)) return announce(by > 0 ? "this is the last image" : "this is the first image");
  focusPage();
  announce(describe(state.current));
}

// Handle a key before the viewer does: Enter explains the object that D marked, otherwise the place of the viewer.
function handleKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key.startsWith("Arrow")) chosen = null;
  if (key === "d") chosen = markNext(event.shiftKey ? -1 : 1);
  else if (key === "Enter" && chosen && viewer.marked === chosen && !viewer.drawing) explainDetection(chosen);
  else if (key === "n" || key === "p") showNext(key === "n" ? 1 : -1);
  else if (key === "?") $("keys-dialog").showModal();
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}
$("canvas").addEventListener("keydown", handleKey, { capture: true });
$("failure").addEventListener("keydown", ({ key }) => {
  if (key === "n" || key === "p") showNext(key === "n" ? 1 : -1);
});
$("failure-retry").onclick = () => {
  retry(state.current);
  focusPage();
};
$("failure-remove").onclick = () => {
  remove(state.current);
  focusPage();
};
$("keys").onclick = () => $("keys-dialog").showModal();
// Say that some labels are missing, and how to see them.
viewer.onLabels = (omitted) => {
  $("labels-text").hidden = !omitted;
  const labels = omitted === 1 ? "1 label does" : `${omitted} labels do`;
  $("labels-text").textContent = `${labels} not fit: zoom in, or point at a box.`;
};
$("labels").onchange = () => {
  viewer.labels = $("labels").checked;
  viewer.draw();
};
$("in").onclick = () => viewer.zoom(1.4);
$("out").onclick = () => viewer.zoom(1 / 1.4);
$("fit").onclick = () => viewer.fit();
$("canvas").onfocus = $("canvas").onblur = () => viewer.draw();
onChange(render);
