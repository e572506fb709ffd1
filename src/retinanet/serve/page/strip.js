// The list of the images: thumbnails that select and remove images, with the mouse and with the keyboard.

import { $, element } from "./dom.js";
import { countOf } from "./groups.js";
import { focusPage } from "./messages.js";
import { onChange, shownObjects, state } from "./state.js";
import { remove, removeAll, select, step } from "./uploads.js";

const items = new Map(); // upload -> {line, open, badge, close, look}

function create(upload) {
  const badge = element("span", { class: "badge", "aria-hidden": "true" });
  const open = element("button", { class: "thumb", type: "button", title: upload.name, children: [badge] });
  open.onclick = () => select(upload);
  const close = element("button", { class: "close", type: "button", textContent: "×", "aria-label": `Remove ${upload.name}`, title: "Remove" });
  close.onclick = () => removeAndFocus(upload);
  const line = element("li", { children: [open, close] });
  line.upload = upload;
  return { line, open, badge, close };
}

function update({ open, badge, close }, upload) {
  const isCurrent = upload === state.current;
  const objects = shownObjects(upload);
  const texts = { done: [objects.length, countOf(objects)], failed: ["!", `failed: ${upload.error}`] };
  const [short, long] = texts[upload.status] ?? ["…", "waiting"];
  if (upload.thumb && upload.thumb.parentNode !== open) open.prepend(upload.thumb);
  badge.textContent = short;
  open.className = `thumb ${upload.status}`;
  open.setAttribute("aria-label", `${upload.name}, ${long}`);
  if (isCurrent) open.setAttribute("aria-current", "true");
  else open.removeAttribute("aria-current");
  open.tabIndex = close.tabIndex = isCurrent ? 0 : -1; // one stop of the Tab key, then the arrow keys
}

let timer = 0;

// Update the counts of all images in short slices, because the filters can change with each step of the slider.
function updateLater(uploads, wait = 100) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const end = performance.now() + 8;
    let i = 0;
    for (; i < uploads.length && performance.now() < end; i++) if (items.has(uploads[i])) update(items.get(uploads[i]), uploads[i]);
    if (i < uploads.length) updateLater(uploads.slice(i), 0);
  }, wait);
}

function render() {
  const uploads = new Set(state.uploads);
  for (const [upload, { line }] of items) {
    if (uploads.has(upload)) continue;
    line.remove();
    items.delete(upload);
  }
  for (const upload of state.uploads) {
    if (!items.has(upload)) {
      items.set(upload, create(upload));
      $("strip").append(items.get(upload).line);
    }
    const item = items.get(upload);
    const look = [upload.status, upload === state.current, Boolean(upload.thumb)].join();
    if (item.look !== look || upload === state.current) update(item, upload);
    item.look = look;
  }
  updateLater(state.uploads);
  $("images").hidden = !state.uploads.length;
  const failed = state.uploads.filter(({ status }) => status === "failed").length;
  const waiting = state.uploads.filter(({ status }) => status === "waiting" || status === "sent").length;
  const count = state.uploads.length;
  $("strip-text").textContent = [
    `${count} ${count === 1 ? "image" : "images"}`,
    waiting && `${waiting} waiting`,
    failed && `${failed} failed`,
  ].filter(Boolean).join(", ");
  showCurrent();
}

let shown = null;
function showCurrent() {
  if (shown === state.current) return;
  shown = state.current;
  items.get(shown)?.line.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function removeAndFocus(upload) {
  remove(upload);
  focusCurrent();
}

function focusCurrent() {
  const item = items.get(state.current);
  if (item) item.open.focus();
  else focusPage();
}

$("strip").onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { upload } = event.target.closest("li") ?? {};
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const steps = { ArrowRight: 1, ArrowLeft: -1, n: 1, p: -1 };
  if (key in steps) step(steps[key]);
  else if (key === "Home") select(state.uploads[0]);
  else if (key === "End") select(state.uploads.at(-1));
  else if (key === "Delete" && upload) remove(upload);
  else return;
  event.preventDefault();
  focusCurrent();
};
$("remove-all").onclick = () => {
  removeAll();
  focusPage();
};
onChange(render);
