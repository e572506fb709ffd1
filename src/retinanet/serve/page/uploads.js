// The images that the user added: sends them to the server, selects and removes them, and keeps them for a reload.

import { withKey } from "./access.js";
import * as api from "./api.js";
import { countOf } from "./groups.js";
import { makeThumbnail } from "./images.js";
import { announce, showBusy } from "./messages.js";
import * as session from "./session.js";
import { changed, changedSoon, shownObjects, state } from "./state.js";

const MAX_REQUESTS = 2; // at a time

// Add files, and select the first one.
export function add(files) {
  const batch = {};
  const added = [...files].map((file, i) => ({
    id: crypto.getRandomValues(new Uint32Array(2)).join("-"),
    name: file.name || `pasted ${state.uploads.length + i + 1}`,
    blob: file,
    status: "waiting",
    batch,
  }));
  if (!added.length) return;
  state.uploads.push(...added);
  Object.assign(state, { current: added[0], chosen: false });
  session.saveFiles(added);
  changed();
  sendWaiting();
}

// Show the uploads of an earlier visit. Uploads without a result are sent again.
export async function restore(uploads) {
  state.uploads.push(...uploads);
  sendWaiting();
  for (const upload of uploads) {
    if (upload.status !== "done") continue;
    await makeThumbnail(upload);
    changedSoon();
  }
}

export function select(upload) {
  Object.assign(state, { current: upload, chosen: true });
  changed();
}

// Select the upload at this distance from the current one. Return whether there is one.
export function step(by) {
  const to = state.uploads.indexOf(state.current) + by;
  if (to < 0 || to >= state.uploads.length) return false;
  select(state.uploads[to]);
  return true;
}

export function remove(upload) {
  const i = state.uploads.indexOf(upload);
  if (i < 0) return;
  state.uploads.splice(i, 1);
  if (upload === state.current) state.current = state.uploads[Math.min(i, state.uploads.length - 1)] ?? null;
  session.removeFile(upload.id);
  changed();
}

export function removeAll() {
  state.uploads.length = 0;
  state.current = null;
  session.removeAll();
  changed();
}

export function retry(upload) {
  Object.assign(upload, { status: "waiting", error: null });
  changed();
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
    upload.error = reason(upload, error);
  }
  if (!state.uploads.includes(upload)) return; // removed in the meantime
  session.saveResult(upload);
  if (upload === state.current || upload.status === "failed") announce(describe(upload));
  if (upload === state.current) skipFailed();
  changedSoon();
  await makeThumbnail(upload);
  changedSoon();
}

// Return the reason of an error. A message of the server about the file begins with the name of the file.
function reason({ name }, { message }) {
  return message.startsWith(`${name}: `) ? message.slice(name.length + 2) : message;
}

// A file that failed gives way to a good one of the files that were added with it, unless the user selected it.
function skipFailed() {
  const { status, batch } = state.current;
  if (status !== "failed" || state.chosen) return;
  state.current = state.uploads.find((one) => one.status !== "failed" && one.batch === batch) ?? state.current;
}

// Return an upload and its answer in words.
export function describe(upload) {
  if (upload.status === "failed") return `${upload.name} failed: ${upload.error}`;
  if (upload.status !== "done") return `${upload.name}: waiting for the server`;
  const objects = shownObjects(upload);
  const counts = new Map();
  for (const { class: name } of objects) counts.set(name, (counts.get(name) ?? 0) + 1);
  const named = [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
  return `${upload.name}: ${countOf(objects)}${named && `: ${named}`}`;
}
