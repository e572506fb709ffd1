// The web page: sends images to the server and shows the detections. The slider and the classes filter the detections
// in the page, without another request.

import { withKey } from "./access.js";
import * as api from "./api.js";
import { takeImage } from "./camera.js";
import { showClasses } from "./classes.js";
import { setStyles } from "./colors.js";
import { $ } from "./dom.js";
import { startExplanation } from "./explanation.js";
import { focusPage, showError } from "./messages.js";
import * as session from "./session.js";
import { changed, onChange, state } from "./state.js";
import { startThreshold } from "./threshold.js";
import { add, restore } from "./uploads.js";
import "./results.js";
import "./stage.js";
import "./strip.js";

// Add files that the user chose, and move the focus to the place of the answer.
function open(files) {
  if (!files.length) return;
  add(files);
  focusPage();
}

$("choose").onclick = $("choose-too").onclick = () => $("files").click();
$("files").onchange = () => {
  open($("files").files);
  $("files").value = "";
};
$("camera").onclick = async () => {
  try {
    const file = await takeImage($("camera-dialog"));
    if (file) open([file]);
  } catch (error) {
    showError(`Camera: ${error.message}`);
  }
};
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) open(event.clipboardData.files);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer.files);
});

async function start() {
  try {
    state.model = await withKey(api.model);
  } catch (error) {
    showError(error.message);
    return;
  }
  const { name, classes, precision, styles } = state.model;
  setStyles(styles);
  const count = classes.length === 1 ? "1 class" : `${classes.length} classes`;
  $("model").textContent = [name, count, precision].filter(Boolean).join(" · ");
  await restoreSession();
  startExplanation();
  showClasses();
  changed();
}

// Show the images and the filters of the last visit. Filters of a model with other classes are left out.
async function restoreSession() {
  session.whenDropped((count) => {
    $("kept-text").hidden = !count;
    $("kept-count").textContent = count === 1 ? "The oldest image is" : `The ${count} oldest images are`;
  });
  const { model } = state;
  const settings = await session.loadSettings();
  const filters = String(settings.classes) === String(model.classes) ? settings : {};
  state.hidden = new Set(filters.hidden ?? []);
  state.hasChosenThreshold = filters.threshold !== undefined;
  startThreshold(filters);
  const uploads = await session.load(model.server_id);
  state.current ??= uploads.find(({ id }) => id === settings.current) ?? uploads[0] ?? null;
  restore(uploads);
  $("keeps").hidden = !(await session.isKept());
  onChange(saveSoon);
}

let timer;
let saved = "";
function saveSoon() {
  clearTimeout(timer);
  timer = setTimeout(save, 200);
}
function save() {
  const { model, current, hidden, threshold, tuned, hasChosenThreshold } = state;
  const chosen = hasChosenThreshold ? { threshold, tuned: Boolean(tuned) } : {};
  const settings = { classes: model.classes, current: current?.id, hidden: [...hidden], ...chosen };
  const text = JSON.stringify(settings);
  if (text !== saved) session.saveSettings(settings);
  saved = text;
}
addEventListener("pagehide", save);
start();
