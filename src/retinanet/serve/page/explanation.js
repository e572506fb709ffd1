// Explains why objects that the user marks, or a place of the image, are detected or not.

import { withKey } from "./access.js";
import * as api from "./api.js";
import { colorOf } from "./colors.js";
import { $, element, swatch } from "./dom.js";
import { showBusy, showError } from "./messages.js";
import { ObjectList } from "./objects.js";
import { state, thresholdOf } from "./state.js";
import { viewer } from "./view.js";

const HINT = matchMedia("(pointer: coarse)").matches
  ? "Drag a box around a missed object, or tap a place"
  : "Drag a box around a missed object, or click a place (keys: arrows, B, Enter)";

const objectList = new ObjectList({ request: explainObjects, onShow: showObjects, onError: showError });
let shown = null; // answer of /v1/explain that is shown
let count = 0; // increases with each explanation that is requested or closed; only the answer to the latest is shown

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


async function pick(x, y, box) {
  if (!viewer.explaining) {
    if (box) viewer.onHover(box);
    return;
  }
  const upload = state.current;
  if (upload?.status !== "done") return;
  viewer.place = [x, y];
  viewer.proposal = null;
  objectList.show(upload, false);
  viewer.draw();
  const own = ++count;
  try {
    const explanation = await whileBusy(upload, () => api.explain(upload.blob, upload.name, x, y, Math.min(...(state.tuned ?? [state.threshold]))));
    if (own === count && upload === state.current) showWhy(explanation);
  } catch (error) {
    showError(error.message);
  }
}

const isSameBox = (a, b) => String([a.box, a.anchor]) === String([b.box, b.anchor]);

function showWhy(explanation) {
  shown = explanation;
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
  count++;
  shown = null;
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

// Show what the user marked in an image, in place of the previous image.
export function showExplanation(upload) {
  if (!upload) closeWhy();
  objectList.show(upload, viewer.explaining);
}

// Close the explanation of a place, because another image is shown.
export { closeWhy };

// The thresholds have changed: explanations hold for the previous thresholds only.
export function forgetExplanations() {
  if (shown) closeWhy();
  for (const { objects } of state.uploads) for (const object of objects ?? []) object.result = null;
  objectList.forget();
}

// Explain the marked objects with the thresholds that are now set.
export const explainAgain = () => objectList.explain();

// Explain a detection of the list of detections.
export function explainDetection({ box: [x1, y1, x2, y2] }) {
  if (viewer.explaining) pick((x1 + x2) / 2, (y1 + y2) / 2);
}

export function startExplanation() {
  objectList.classes = state.model.classes;
}

viewer.onPick = pick;
viewer.onDraw = markObject;
$("explain").onclick = toggleExplaining;
$("why-close").onclick = () => {
  closeWhy();
  objectList.show(state.current, viewer.explaining);
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key.toLowerCase() === "e" && !$("explain").disabled && state.current) toggleExplaining();
  if (event.key === "Escape" && viewer.explaining && !viewer.cancelBox()) (shown ? $("why-close").onclick : toggleExplaining)();
});
