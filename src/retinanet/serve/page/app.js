// The web page: sends images to the server and shows the detections. The slider and the classes filter the detections
// in the page, without another request.

import * as api from "./api.js";
import { takeImage } from "./camera.js";
import { colorOf, setStyles } from "./colors.js";
import { $, element, swatch } from "./dom.js";
import { asCsv, asJson, asImage, download } from "./files.js";
import { ObjectList } from "./objects.js";
import { Viewer } from "./viewer.js";

const MAX_REQUESTS = 2; // at a time
const MAX_ROWS = 200;
const HINT = matchMedia("(pointer: coarse)").matches
  ? "Drag a box around a missed object, or tap a place"
  : "Drag a box around a missed object, or click a place (keys: arrows, B, Enter)";

const state = {
  model: null,
  uploads: [], // {name, blob, thumb, status: "waiting" | "done" | "failed", result, error}
  current: null,
  threshold: 0.5,
  tuned: null, // threshold of each class id, while the tuned thresholds are used
  hidden: new Set(), // class ids
  image: null, // ImageBitmap of the current upload
  explanation: null, // answer of /v1/explain that is shown
  explainCount: 0, // increases with each explanation that is requested or closed; only the answer to the latest is shown
};

const viewer = new Viewer($("canvas"), { onPick: pick, onHover: mark, onDraw: (box) => markObject(box) });
const objectList = new ObjectList({ request: explainObjects, onShow: showObjects, onError: (text) => showError(text) });

// ---- small helpers

function showError(text) {
  const line = element("p", { children: [element("span", { textContent: text })] });
  const close = element("button", { class: "link", type: "button", textContent: "dismiss" });
  close.onclick = () => line.remove();
  line.append(close);
  const lines = $("problems");
  if (lines.childElementCount >= 4) lines.firstChild.remove();
  lines.append(line);
}

function showBusy(text) {
  $("busy").hidden = !text;
  $("busy").textContent = text;
}

const shownDetections = (upload) =>
  (upload?.result?.detections ?? []).filter((d) => isAbove(d) && !state.hidden.has(d.class_id));

const thresholdOf = (classId) => state.tuned?.[classId] ?? state.threshold;
const isAbove = ({ score, class_id }) => score > thresholdOf(class_id);

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
  sendWaiting();
}

let running = 0;
function sendWaiting() {
  while (running < MAX_REQUESTS) {
    const upload = state.uploads.find(({ status }) => status === "waiting");
    if (!upload) return;
    upload.status = "sent";
    running++;
    detect(upload).finally(() => {
      running--;
      sendWaiting();
    });
  }
}

async function detect(upload) {
  try {
    upload.result = await withKey(() => api.detect(upload.blob, upload.name, (text) => upload === state.current && showBusy(text)));
    upload.status = "done";
    upload.error = null;
  } catch (error) {
    upload.status = "failed";
    upload.error = error.message;
    // If the server's message is about the file, it already begins with the file name.
    showError(error.message.startsWith(upload.name) ? error.message : `${upload.name}: ${error.message}`);
  }
  await thumbnail(upload);
  showStrip();
  if (upload === state.current) await select(upload);
}

async function withKey(request) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof api.KeyRequired)) throw error;
      await askForKey();
    }
  }
}

let keyRequest;
function askForKey() {
  keyRequest ??= new Promise((done, failed) => {
    const dialog = $("key-dialog");
    $("key").value = "";
    dialog.returnValue = "";
    dialog.onclose = () => {
      keyRequest = undefined;
      if (dialog.returnValue !== "ok") return failed(new Error("this server requires an API key"));
      api.useKey($("key").value);
      done();
      if (!state.model) start();
    };
    dialog.showModal();
  });
  return keyRequest;
}

async function decode(upload) {
  try {
    return await createImageBitmap(upload.blob, { imageOrientation: "from-image" });
  } catch {
    if (upload.status !== "done") return null;
    return createImageBitmap(await api.jpegOf(upload.blob, upload.name));
  }
}

async function thumbnail(upload) {
  if (upload.thumb) return;
  const canvas = element("canvas", { width: 184, height: 140, "aria-hidden": "true" });
  const image = await decode(upload).catch(() => null);
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
  showBusy(upload.status === "waiting" || upload.status === "sent" ? "Detecting…" : "");
  for (const thumb of $("strip").children) thumb.setAttribute("aria-selected", String(thumb.upload === upload));
  if (!again) {
    state.image?.close();
    state.image = null;
    viewer.image = null;
    closeWhy();
    const image = await decode(upload).catch(() => null);
    if (upload !== state.current) return image?.close();
    state.image = image;
    // Boxes are in pixels of the size that the server returns. Before the answer arrives, the browser's size is used.
    if (image) viewer.show(image, upload.result?.width ?? image.width, upload.result?.height ?? image.height);
  }
  objectList.show(upload, viewer.explaining);
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
    const count = shownDetections(upload).length;
    thumb.lastChild.textContent = { done: count, failed: "!" }[upload.status] ?? "…";
    const status = { done: count === 1 ? "1 detection" : `${count} detections`, failed: upload.error }[upload.status] ?? "waiting";
    thumb.setAttribute("aria-label", `${upload.name}, ${status}`);
  }
}

// ---- results

function refresh() {
  const upload = state.current;
  const boxes = shownDetections(upload);
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
  upload.result.detections.filter((d) => d.class_id === classId && isAbove(d)).length;

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
  const rows = boxes.slice(0, MAX_ROWS).map((detection, i) => {
    const [x1, y1, x2, y2] = detection.box;
    const button = element("button", {
      type: "button",
      title: `${(x2 - x1).toFixed(0)} × ${(y2 - y1).toFixed(0)} pixels at ${x1.toFixed(0)}, ${y1.toFixed(0)}`,
      children: [
        element("span", { class: "number muted", textContent: i + 1 }),
        swatch(detection.class_id),
        element("span", { class: "name", textContent: detection.class }),
        element("span", { class: "number", textContent: detection.score.toFixed(2) }),
      ],
    });
    button.detection = detection;
    button.onmouseenter = button.onfocus = () => mark(detection);
    button.onmouseleave = button.onblur = () => mark(null);
    button.onclick = () => viewer.explaining && pick((x1 + x2) / 2, (y1 + y2) / 2);
    return element("li", { children: [button] });
  });
  $("found").replaceChildren(...rows);
  $("found-more").textContent = boxes.length > MAX_ROWS ? `and ${boxes.length - MAX_ROWS} more` : "";
}

function mark(detection) {
  if (viewer.marked === detection) return;
  viewer.marked = detection;
  viewer.draw();
  for (const { firstChild: button } of $("found").children) {
    button.classList.toggle("on", button.detection === detection && detection !== null);
  }
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

// ---- explain objects that the user marks

function markObject(box) {
  if (state.current?.status !== "done") return;
  closeWhy();
  objectList.add(box);
}

// Return the result of each object: one request for each threshold, because the tuned thresholds differ by class.
async function explainObjects(upload, objects) {
  const marked = objects.map(({ box, label }) => ({ box, name: state.model.classes[label] }));
  const thresholds = [...new Set(objects.map(({ label }) => thresholdOf(label)))];
  const answers = await whileBusy(upload, () =>
    Promise.all(thresholds.map((threshold) => api.explainObjects(upload.blob, upload.name, marked, threshold))),
  );
  return objects.map(({ label }, i) => {
    const answer = answers[thresholds.indexOf(thresholdOf(label))];
    return { ...answer.objects[i], note: answer.note, found: answer.detections };
  });
}

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

// Draw the objects. For the selected one, also the box that fits it, and the detection that its cause concerns.
function showObjects(objects, selected) {
  const { best, detection, found } = selected?.result ?? {};
  const involved = [best, found?.[detection]].filter(Boolean);
  viewer.objects = objects.map(({ box }, i) => ({ box, number: i + 1, selected: objects[i] === selected }));
  viewer.evidence = objects.length ? involved.filter((one, i) => !i || String(one.box) !== String(involved[0].box)) : [];
  viewer.draw();
}

// ---- explain a place

async function pick(x, y, box) {
  if (!viewer.explaining) {
    if (box) mark(box);
    return;
  }
  const upload = state.current;
  if (upload?.status !== "done") return;
  viewer.place = [x, y];
  viewer.proposal = null;
  objectList.show(upload, false);
  viewer.draw();
  const count = ++state.explainCount;
  try {
    const explanation = await whileBusy(upload, () => api.explain(upload.blob, upload.name, x, y, Math.min(...(state.tuned ?? [state.threshold]))));
    if (count === state.explainCount && upload === state.current) showWhy(explanation);
  } catch (error) {
    showError(error.message);
  }
}

const isSameBox = (a, b) => String([a.box, a.anchor]) === String([b.box, b.anchor]);

function showWhy(explanation) {
  state.explanation = explanation;
  $("why").hidden = false;
  $("why-summary").textContent = explanation.summary;
  $("why-levels").replaceChildren(
    ...explanation.levels.map((level) => {
      const best = proposalButton(level.best, explanation.threshold, level);
      const covering = level.covering.filter((proposal) => !isSameBox(proposal, level.best));
      const rows = covering.map((proposal) => element("li", { children: [proposalButton(proposal, explanation.threshold)] }));
      return element("li", { children: [best, element("ul", { class: "covering", children: rows })] });
    }),
  );
  const best = explanation.levels.flatMap((level) => [level.best, ...level.covering]).reduce((a, b) => (b.score > a.score ? b : a));
  showProposal(best);
  if (innerWidth <= 820) $("why").scrollIntoView({ block: "start" });
}

function proposalButton(proposal, threshold, level = null) {
  const meter = element("span", { class: "meter", "aria-hidden": "true", children: [element("i"), element("b")] });
  meter.children[0].style.width = `${100 * proposal.score}%`;
  meter.children[0].style.background = colorOf(proposal.class_id);
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
      swatch(proposal.class_id),
      element("span", { class: "name", textContent: proposal.class }),
      meter,
      element("span", { class: "number", textContent: proposal.score.toFixed(3) }),
      element("span", { class: `fate ${proposal.fate}`, textContent: fateLabel(proposal) }),
      element("span", { class: "why", textContent: proposal.why }),
    ],
  });
  button.proposal = proposal;
  button.onmouseenter = button.onfocus = button.onclick = () => showProposal(proposal);
  return button;
}

function fateLabel({ fate, detection }) {
  const labels = {
    detected: `detection ${detection + 1}`,
    below_threshold: "below threshold",
    not_a_candidate: "not a candidate",
    suppressed: detection === null ? "suppressed" : `suppressed by ${detection + 1}`,
    beyond_max_detections: "over the limit",
  };
  return labels[fate];
}

function showProposal(proposal) {
  viewer.proposal = proposal;
  viewer.draw();
  for (const button of document.querySelectorAll(".proposal")) {
    button.classList.toggle("on", button.proposal === proposal);
    button.setAttribute("aria-pressed", String(button.proposal === proposal));
  }
}

function closeWhy() {
  state.explainCount++;
  state.explanation = null;
  $("why").hidden = true;
  Object.assign(viewer, { place: null, proposal: null });
  viewer.draw();
}

function toggleExplaining() {
  viewer.cancelBox();
  viewer.explaining = !viewer.explaining;
  $("explain").setAttribute("aria-pressed", String(viewer.explaining));
  document.body.classList.toggle("explaining", viewer.explaining);
  $("hint").textContent = viewer.explaining ? HINT : "";
  if (!viewer.explaining) closeWhy();
  objectList.show(state.current, viewer.explaining);
}

// ---- events

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
    showError(`Camera: ${error.message}`);
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

function showTuned() {
  const { tuned, classes } = state.model;
  if (!tuned) return;
  $("tuned-line").hidden = $("ticks").hidden = false;
  $("tuned-line").title = tuned.sentence;
  $("tuned-name").textContent = `Tuned thresholds (${tuned.aim})`;
  $("ticks").replaceChildren(
    ...tuned.thresholds.map((value, id) => {
      const tick = element("i", { title: `${classes[id]}: ${value.toFixed(3)}` });
      const { min, max } = $("threshold");
      tick.style.left = `${Math.min(100, Math.max(0, (100 * (value - min)) / (max - min)))}%`;
      tick.style.background = colorOf(id);
      return tick;
    }),
  );
}

$("tuned").onchange = () => {
  state.tuned = $("tuned").checked ? state.model.tuned.thresholds : null;
  $("threshold").disabled = Boolean(state.tuned);
  changeThreshold();
  objectList.explain();
};

$("threshold").oninput = () => {
  state.threshold = Number($("threshold").value);
  changeThreshold();
};

function changeThreshold() {
  $("threshold-value").textContent = state.tuned ? "tuned" : state.threshold.toFixed(2);
  if (state.explanation) closeWhy(); // the explanation holds for the previous threshold only
  for (const { objects } of state.uploads) for (const object of objects ?? []) object.result = null;
  objectList.forget();
  refresh();
}
$("threshold").onchange = () => objectList.explain();
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
$("why-close").onclick = () => {
  closeWhy();
  objectList.show(state.current, viewer.explaining);
};
$("in").onclick = () => viewer.zoom(1.4);
$("out").onclick = () => viewer.zoom(1 / 1.4);
$("fit").onclick = () => viewer.fit();
$("canvas").onfocus = $("canvas").onblur = () => viewer.draw();
$("canvas").onmouseleave = () => mark(null);

const results = () =>
  state.uploads
    .filter(({ status }) => status === "done")
    .map((upload) => ({ ...upload.result, detections: shownDetections(upload) }));
$("json").onclick = () => download(asJson(results(), state.tuned ? "tuned" : state.threshold), "detections.json");
$("csv").onclick = () => download(asCsv(results()), "detections.csv");
$("save-image").onclick = async () => {
  const { name, result } = state.current;
  try {
    const blob = await asImage(state.image, result.width, result.height, shownDetections(state.current), $("labels").checked);
    download(blob, `${name.replace(/\.[^.]+$/, "")} detections.jpg`);
  } catch (error) {
    showError(`${name}: ${error.message}`);
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
  if (event.key === "Escape" && viewer.explaining && !viewer.cancelBox()) (state.explanation ? $("why-close").onclick : toggleExplaining)();
});

async function start() {
  try {
    state.model = await withKey(api.model);
  } catch (error) {
    showError(error.message);
    return;
  }
  const { name, classes, precision } = state.model;
  setStyles(state.model.styles);
  const count = classes.length === 1 ? "1 class" : `${classes.length} classes`;
  $("model").textContent = [name, count, precision].filter(Boolean).join(" · ");
  document.title = `${name} – retinanet`;
  objectList.classes = classes;
  showClasses();
  showTuned();
  refresh();
}
start();
