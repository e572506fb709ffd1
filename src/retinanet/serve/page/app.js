// The page: images in, boxes over them; the slider and the classes act on what was fetched once.

import * as api from "./api.js";
import { takeImage } from "./camera.js";
import { colorOf } from "./colors.js";
import { asCsv, asJson, asImage, download } from "./files.js";
import { Viewer } from "./viewer.js";

const AT_ONCE = 2; // requests
const MOST_ROWS = 200;
const $ = (id) => document.getElementById(id);

const state = {
  model: null,
  uploads: [], // {name, blob, thumb, status: "waiting" | "done" | "failed", result, error}
  current: null,
  threshold: 0.5,
  hidden: new Set(), // class ids
  image: null,
  explained: null,
  asked: 0,
};

const viewer = new Viewer($("canvas"), { onPick: picked, onHover: mark });

// ---- small helpers

function element(tag, { children = [], ...properties } = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("aria-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

function swatch(classId) {
  const made = element("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = colorOf(classId);
  return made;
}

function problem(text) {
  const line = element("p", { children: [element("span", { textContent: text })] });
  const close = element("button", { class: "link", type: "button", textContent: "dismiss" });
  close.onclick = () => line.remove();
  line.append(close);
  const lines = $("problems");
  if (lines.childElementCount >= 4) lines.firstChild.remove();
  lines.append(line);
}

function busy(text) {
  $("busy").hidden = !text;
  $("busy").textContent = text;
}

const shown = (upload) =>
  (upload?.result?.detections ?? []).filter((d) => d.score > state.threshold && !state.hidden.has(d.class_id));

// ---- images

async function add(files) {
  const added = [...files].map((file, i) => ({
    name: file.name || `pasted ${state.uploads.length + i + 1}`,
    blob: file,
    status: "waiting",
  }));
  if (!added.length) return;
  state.uploads.push(...added);
  showStrip();
  if (!state.current || state.current.status === "failed") select(added[0]);
  await work();
}

let working = 0;
async function work() {
  while (working < AT_ONCE) {
    const upload = state.uploads.find((one) => one.status === "waiting");
    if (!upload) return;
    upload.status = "sent";
    working++;
    look(upload).finally(() => {
      working--;
      work();
    });
  }
}

async function look(upload) {
  try {
    upload.result = await withKey(() => api.detect(upload.blob, upload.name, (text) => upload === state.current && busy(text)));
    upload.status = "done";
    upload.error = null;
  } catch (error) {
    upload.status = "failed";
    upload.error = error.message;
    // The server's sentence begins with the file's name where it is about the file.
    problem(error.message.startsWith(upload.name) ? error.message : `${upload.name}: ${error.message}`);
  }
  await thumbnail(upload);
  showStrip();
  if (upload === state.current) await select(upload);
}

async function withKey(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof api.NeedsKey)) throw error;
      await askForKey();
    }
  }
}

let asking;
function askForKey() {
  asking ??= new Promise((done, failed) => {
    const dialog = $("key-dialog");
    $("key").value = "";
    dialog.returnValue = "";
    dialog.onclose = () => {
      asking = undefined;
      if (dialog.returnValue !== "ok") return failed(new Error("a key is needed"));
      api.useKey($("key").value);
      done();
      if (!state.model) start();
    };
    dialog.showModal();
  });
  return asking;
}

async function decoded(upload) {
  try {
    return await createImageBitmap(upload.blob, { imageOrientation: "from-image" });
  } catch {
    if (upload.status !== "done") return null;
    return createImageBitmap(await api.plainImage(upload.blob, upload.name));
  }
}

async function thumbnail(upload) {
  if (upload.thumb) return;
  const canvas = element("canvas", { width: 184, height: 140, "aria-hidden": "true" });
  const image = await decoded(upload).catch(() => null);
  if (image) {
    const scale = Math.max(184 / image.width, 140 / image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    canvas.getContext("2d").drawImage(image, (184 - w) / 2, (140 - h) / 2, w, h);
    image.close();
    upload.thumb = canvas;
  }
}

async function select(upload) {
  const again = state.current === upload && state.image;
  state.current = upload;
  $("empty").hidden = true;
  $("canvas").hidden = false;
  document.querySelector(".tools").hidden = false;
  busy(upload.status === "waiting" || upload.status === "sent" ? "Looking…" : "");
  for (const thumb of $("strip").children) thumb.setAttribute("aria-selected", String(thumb.upload === upload));
  if (!again) {
    state.image?.close();
    state.image = null;
    viewer.image = null;
    closeWhy();
    const image = await decoded(upload).catch(() => null);
    if (upload !== state.current) return image?.close();
    state.image = image;
    // The server's size is what boxes are in; before it answers, the browser's is the same.
    if (image) viewer.show(image, upload.result?.width ?? image.width, upload.result?.height ?? image.height);
  }
  refresh();
}

function showStrip() {
  const strip = $("strip");
  strip.hidden = state.uploads.length < 2;
  strip.replaceChildren(
    ...state.uploads.map((upload) => {
      const thumb = element("div", {
        class: `thumb ${upload.status}`,
        role: "option",
        "aria-selected": String(upload === state.current),
        tabIndex: upload === state.current ? 0 : -1,
        title: upload.error ?? upload.name,
      });
      thumb.upload = upload;
      if (upload.thumb) thumb.append(upload.thumb);
      thumb.append(element("span"));
      thumb.onclick = () => select(upload);
      return thumb;
    }),
  );
  countStrip();
}

function countStrip() {
  for (const thumb of $("strip").children) {
    const { upload } = thumb;
    const count = shown(upload).length;
    thumb.lastChild.textContent = { done: count, failed: "!" }[upload.status] ?? "…";
    const said = { done: `${count} detections`, failed: upload.error }[upload.status] ?? "waiting";
    thumb.setAttribute("aria-label", `${upload.name}, ${said}`);
  }
}

// ---- what is shown

function refresh() {
  const upload = state.current;
  const boxes = shown(upload);
  const done = upload?.status === "done";
  viewer.boxes = boxes;
  viewer.marked = null;
  viewer.draw();
  const counts = new Map();
  for (const { class_id } of boxes) counts.set(class_id, (counts.get(class_id) ?? 0) + 1);
  for (const line of $("classes").children) {
    line.querySelector(".number").textContent = done ? countAbove(upload, line.classId) : "";
  }
  const named = [...counts].map(([id, count]) => `${count} ${state.model.classes[id]}`).join(", ");
  const total = boxes.length === 1 ? "1 detection" : `${boxes.length} detections`;
  $("count").textContent = done ? total : upload?.error ?? "";
  $("canvas").setAttribute("aria-label", upload ? `${upload.name}: ${done ? `${total}${named && `: ${named}`}` : "no result"}` : "");
  for (const id of ["found-section", "downloads", "timing-section"]) $(id).hidden = !done;
  if (done) {
    showFound(boxes);
    showTiming(upload.result);
  }
  $("save-image").disabled = !state.image;
  $("explain").disabled = !done;
  countStrip();
}

const countAbove = (upload, classId) =>
  upload.result.detections.filter((d) => d.class_id === classId && d.score > state.threshold).length;

function showClasses() {
  $("classes").replaceChildren(
    ...state.model.classes.map((name, id) => {
      const box = element("input", { type: "checkbox", checked: !state.hidden.has(id) });
      box.onchange = () => {
        state.hidden[box.checked ? "delete" : "add"](id);
        refresh();
      };
      const label = element("label", {
        children: [box, swatch(id), element("span", { class: "name", textContent: name, title: name }), element("span", { class: "number" })],
      });
      const line = element("li", { children: [label] });
      line.classId = id;
      return line;
    }),
  );
}

function showFound(boxes) {
  const rows = boxes.slice(0, MOST_ROWS).map((one, i) => {
    const [x1, y1, x2, y2] = one.box;
    const button = element("button", {
      type: "button",
      title: `${(x2 - x1).toFixed(0)} × ${(y2 - y1).toFixed(0)} pixels at ${x1.toFixed(0)}, ${y1.toFixed(0)}`,
      children: [
        element("span", { class: "number muted", textContent: i + 1 }),
        swatch(one.class_id),
        element("span", { class: "name", textContent: one.class }),
        element("span", { class: "number", textContent: one.score.toFixed(2) }),
      ],
    });
    button.one = one;
    button.onmouseenter = button.onfocus = () => mark(one);
    button.onmouseleave = button.onblur = () => mark(null);
    button.onclick = () => viewer.explaining && picked((x1 + x2) / 2, (y1 + y2) / 2);
    return element("li", { children: [button] });
  });
  $("found").replaceChildren(...rows);
  $("found-more").textContent = boxes.length > MOST_ROWS ? `and ${boxes.length - MOST_ROWS} more` : "";
}

function mark(one) {
  if (viewer.marked === one) return;
  viewer.marked = one;
  viewer.draw();
  for (const line of $("found").children) line.firstChild.classList.toggle("on", line.firstChild.one === one && one !== null);
}

function showTiming({ milliseconds, roundTrip, width, height }) {
  const rows = [
    ["Reading and waiting", `${milliseconds.before.toFixed(0)} ms`],
    ["Network", `${milliseconds.network.toFixed(0)} ms`],
    ["With the way there and back", `${roundTrip.toFixed(0)} ms`],
    ["Image", `${width} × ${height}`],
  ];
  $("timing").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
}

// ---- why

async function picked(x, y, box) {
  if (!viewer.explaining) {
    if (box) mark(box);
    return;
  }
  const upload = state.current;
  if (upload?.status !== "done") return;
  viewer.place = [x, y];
  viewer.proposal = null;
  viewer.draw();
  const asked = ++state.asked;
  busy("Asking every level…");
  try {
    const told = await withKey(() => api.explain(upload.blob, upload.name, x, y, state.threshold));
    if (asked === state.asked && upload === state.current) showWhy(told);
  } catch (error) {
    problem(error.message);
  } finally {
    if (asked === state.asked) busy("");
  }
}

const same = (one, other) => String([one.box, one.anchor]) === String([other.box, other.anchor]);

function showWhy(told) {
  state.explained = told;
  $("why").hidden = false;
  $("why-summary").textContent = told.summary;
  $("why-levels").replaceChildren(
    ...told.levels.map((level) => {
      const best = proposalButton(level.best, told.threshold, level);
      const covering = level.covering.filter((one) => !same(one, level.best));
      const rows = covering.map((one) => element("li", { children: [proposalButton(one, told.threshold)] }));
      return element("li", { children: [best, element("ul", { class: "covering", children: rows })] });
    }),
  );
  const best = told.levels.flatMap((level) => [level.best, ...level.covering]).reduce((a, b) => (b.score > a.score ? b : a));
  propose(best);
  if (innerWidth <= 820) $("why").scrollIntoView({ block: "start" });
}

function proposalButton(one, threshold, level = null) {
  const meter = element("span", { class: "meter", "aria-hidden": "true", children: [element("i"), element("b")] });
  meter.children[0].style.width = `${100 * one.score}%`;
  meter.children[0].style.background = colorOf(one.class_id);
  meter.children[1].style.left = `${100 * threshold}%`;
  const button = element("button", {
    class: "proposal",
    type: "button",
    "aria-pressed": "false",
    title: level
      ? `${level.level}, stride ${level.stride}: ${state.model.classes.map((name, k) => `${name} ${level.scores[k].toFixed(3)}`).join(", ")}`.slice(0, 600)
      : "Show this box",
    children: [
      ...(level ? [element("span", { class: "level", textContent: level.level })] : []),
      swatch(one.class_id),
      element("span", { class: "name", textContent: one.class }),
      meter,
      element("span", { class: "number", textContent: one.score.toFixed(3) }),
      element("span", { class: `fate ${one.fate}`, textContent: fateInShort(one) }),
      element("span", { class: "why", textContent: one.why }),
    ],
  });
  button.one = one;
  button.onmouseenter = button.onfocus = button.onclick = () => propose(one);
  return button;
}

function fateInShort({ fate, detection }) {
  const said = {
    detected: `detection ${detection + 1}`,
    below_threshold: "below threshold",
    not_a_candidate: "too many better",
    suppressed: detection === null ? "beaten" : `beaten by ${detection + 1}`,
    beyond_max_detections: "beyond the limit",
  };
  return said[fate];
}

function propose(one) {
  viewer.proposal = one;
  viewer.draw();
  for (const button of document.querySelectorAll(".proposal")) {
    button.classList.toggle("on", button.one === one);
    button.setAttribute("aria-pressed", String(button.one === one));
  }
}

function closeWhy() {
  state.asked++;
  state.explained = null;
  $("why").hidden = true;
  Object.assign(viewer, { place: null, proposal: null });
  viewer.draw();
}

function toggleExplaining() {
  viewer.explaining = !viewer.explaining;
  $("explain").setAttribute("aria-pressed", String(viewer.explaining));
  document.body.classList.toggle("explaining", viewer.explaining);
  $("hint").textContent = viewer.explaining ? "Click a place in the image; or move with the arrow keys and press Enter" : "";
  if (!viewer.explaining) closeWhy();
}

// ---- wiring

$("choose").onclick = $("choose-too").onclick = () => $("files").click();
$("files").onchange = () => {
  add($("files").files);
  $("files").value = "";
};
$("camera").onclick = async () => {
  try {
    const file = await takeImage($("camera-dialog"));
    if (file) add([file]);
  } catch (error) {
    problem(`Camera: ${error.message}`);
  }
};
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) add(event.clipboardData.files);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
});

$("threshold").oninput = () => {
  state.threshold = Number($("threshold").value);
  $("threshold-value").textContent = state.threshold.toFixed(2);
  if (state.explained) closeWhy(); // it was told for another threshold
  refresh();
};
$("labels").onchange = () => {
  viewer.labels = $("labels").checked;
  viewer.draw();
};
for (const [id, hide] of [["all", false], ["none", true]]) {
  $(id).onclick = () => {
    state.hidden = new Set(hide ? state.model?.classes.keys() : []);
    for (const box of $("classes").querySelectorAll("input")) box.checked = !hide;
    refresh();
  };
}
$("explain").onclick = toggleExplaining;
$("why-close").onclick = closeWhy;
$("in").onclick = () => viewer.zoom(1.4);
$("out").onclick = () => viewer.zoom(1 / 1.4);
$("fit").onclick = () => viewer.fit();
$("canvas").onfocus = $("canvas").onblur = () => viewer.draw();
$("canvas").onmouseleave = () => mark(null);

const finished = () => state.uploads.filter((p) => p.status === "done").map((p) => ({ ...p.result, detections: shown(p) }));
$("json").onclick = () => download(asJson(finished(), state.threshold), "detections.json");
$("csv").onclick = () => download(asCsv(finished()), "detections.csv");
$("save-image").onclick = async () => {
  const { name, result } = state.current;
  try {
    const blob = await asImage(state.image, result.width, result.height, shown(state.current), $("labels").checked);
    download(blob, `${name.replace(/\.[^.]+$/, "")} detections.jpg`);
  } catch (error) {
    problem(`${name}: ${error.message}`);
  }
};

$("strip").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  if (!step) return;
  event.preventDefault();
  const last = state.uploads.length - 1;
  const to = Math.min(Math.max(state.uploads.indexOf(state.current) + step, 0), last);
  select(state.uploads[to]);
  for (const thumb of $("strip").children) thumb.tabIndex = thumb.upload === state.current ? 0 : -1;
  $("strip").children[to].focus();
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key.toLowerCase() === "e" && !$("explain").disabled && state.current) toggleExplaining();
  if (event.key === "Escape" && viewer.explaining) (state.explained ? closeWhy : toggleExplaining)();
});

async function start() {
  try {
    state.model = await withKey(api.model);
  } catch (error) {
    problem(error.message);
    return;
  }
  const { name, classes, precision } = state.model;
  const count = classes.length === 1 ? "1 class" : `${classes.length} classes`;
  $("model").textContent = [name, count, precision].filter(Boolean).join(" · ");
  document.title = `${name} – retinanet`;
  showClasses();
  refresh();
}
start();
