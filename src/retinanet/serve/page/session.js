// Keeps the images, their results and the filters in this browser (IndexedDB), so that a reload of the page keeps them.
// Without IndexedDB, as in some private windows, nothing is kept and nothing fails.

const NAME = `retinanet ${new URL(".", location.href).pathname}`; // servers below different paths keep their own
const STORES = ["files", "results", "settings"];
const MAX_BYTES = 200e6; // of the kept images and results; the oldest are dropped
const BYTES_PER_DETECTION = 200;

const stored = new Map(); // id -> bytes, the oldest first
let database = null; // promise of the database, or of null

function open() {
  database ??= new Promise((done) => {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
      request.onsuccess = () => done(request.result);
      request.onerror = request.onblocked = () => done(null);
    } catch {
      done(null);
    }
  });
  return database;
}

// Run `work` on the stores in one transaction. Return its result, or null if the browser refuses.
async function run(mode, work) {
  const db = await open();
  if (!db) return null;
  return new Promise((done) => {
    try {
      const transaction = db.transaction(STORES, mode);
      const [files, results, settings] = STORES.map((name) => transaction.objectStore(name));
      const answer = work({ files, results, settings });
      transaction.oncomplete = () => done(answer?.result ?? true);
      transaction.onerror = transaction.onabort = () => done(null);
    } catch {
      done(null);
    }
  });
}

let dropped = 0;
let onDrop = () => {};

// Call `listener` with the number of images that are no longer kept, when it increases.
export const whenDropped = (listener) => (onDrop = listener);

export const isKept = async () => (await open()) !== null;

let order = 0; // of the next file

export async function saveFiles(uploads) {
  for (const { id, blob } of uploads) stored.set(id, blob.size);
  for (const { id, name, blob } of uploads) {
    if (!stored.has(id)) continue; // removed in the meantime
    const place = (order = Math.max(order + 1, Date.now()));
    if (!(await run("readwrite", ({ files }) => files.put({ order: place, name, blob }, id)))) stored.delete(id);
  }
  await bound();
}

export async function saveResult({ id, result, status, error, blob }) {
  if (!stored.has(id)) return;
  const size = blob.size + BYTES_PER_DETECTION * (result?.detections.length ?? 0);
  stored.set(id, size);
  await run("readwrite", ({ results }) => results.put({ result, status, error, server }, id));
  await bound();
}

// Drop the oldest images while the kept ones exceed the limit.
async function bound() {
  let bytes = [...stored.values()].reduce((sum, size) => sum + size, 0);
  for (const [id, size] of [...stored]) {
    if (bytes <= MAX_BYTES) break;
    bytes -= size;
    await removeFile(id);
    onDrop(++dropped);
  }
}

export async function removeFile(id) {
  stored.delete(id);
  await run("readwrite", ({ files, results }) => {
    files.delete(id);
    results.delete(id);
  });
}

export async function removeAll() {
  stored.clear();
  dropped = 0;
  onDrop(0);
  await run("readwrite", (stores) => Object.values(stores).forEach((store) => store.clear()));
}

export const saveSettings = (values) => run("readwrite", ({ settings }) => settings.put(values, "page"));

// Return the settings that were saved last, or an empty object.
export async function loadSettings() {
  const values = await run("readonly", ({ settings }) => settings.get("page"));
  return typeof values === "object" && values ? values : {};
}

let server = null; // identifier of the running server

// Return the kept uploads, the oldest first. Results of another start of the server are left out: its model or its options
// can differ, so that the image is to be sent again.
export async function load(serverId) {
  server = serverId;
  const found = [];
  await run("readonly", ({ files, results }) => {
    files.openCursor().onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      found.push({ id: cursor.key, ...cursor.value });
      cursor.continue();
    };
    results.openCursor().onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      const upload = found.find(({ id }) => id === cursor.key);
      if (upload && cursor.value.server === server && cursor.value.status === "done") Object.assign(upload, cursor.value);
      cursor.continue();
    };
  });
  found.sort((a, b) => a.order - b.order);
  for (const { id, blob, result } of found) stored.set(id, blob.size + BYTES_PER_DETECTION * (result?.detections.length ?? 0));
  return found.map(({ id, name, blob, status = "waiting", result, error }) => ({ id, name, blob, status, result, error }));
}
