// Sends requests to the server. Every failure becomes an Error whose message is shown to the user.

export const MIN_SCORE = 0.02; // Detections are requested with this threshold. The slider filters them in the page.
const MAX_ATTEMPTS = 4;
let key = "";

export class KeyRequired extends Error {}

export function useKey(value) {
  key = value;
}

export const model = async () => (await send("v1/model")).json();

export async function detect(blob, name, onRetry) {
  const { limits, tuned } = await cachedModel();
  refuseLarge(blob, limits);
  const form = new FormData();
  form.append("file", blob, name);
  const query = new URLSearchParams({ threshold: Math.min(MIN_SCORE, ...(tuned?.thresholds ?? [])), max_detections: limits.max_detections });
  const start = performance.now();
  const answer = await (await send(`v1/detect?${query}`, { method: "POST", body: form }, onRetry)).json();
  return { ...answer.images[0], roundTrip: performance.now() - start };
}

// Return the image as JPEG without boxes, for image formats that the server can read and this browser cannot.
export async function jpegOf(blob, name) {
  const form = new FormData();
  form.append("file", blob, name);
  return (await send("v1/detect?format=jpeg&threshold=1", { method: "POST", body: form })).blob();
}

// Return why objects are found or missed: the objects {box, name}, or the object that a place [x, y] suggests beside them.
// An empty name stands for the class that the server proposes.
export async function explain(blob, name, place, objects, threshold) {
  const form = new FormData();
  form.append("file", blob, name);
  const { limits } = await cachedModel();
  const query = new URLSearchParams({ threshold, max_detections: limits.max_detections });
  if (place) for (const [key, value] of [["x", place[0]], ["y", place[1]]]) query.append(key, value.toFixed(2));
  for (const object of objects) {
    query.append("box", object.box.map((value) => value.toFixed(2)));
    query.append("class", object.name);
  }
  return (await send(`v1/explain?${query}`, { method: "POST", body: form })).json();
}

let cached;
function cachedModel() {
  cached ??= model().catch((error) => {
    cached = undefined;
    throw error;
  });
  return cached;
}

function refuseLarge(blob, limits) {
  if (blob.size > limits.upload_bytes) {
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    throw new Error(`the file has ${megabytes(blob.size)} MB, the limit of the server is ${megabytes(limits.upload_bytes)} MB`);
  }
}

async function send(path, options = {}, onRetry = () => {}) {
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
    } catch {
      throw new Error("the server does not respond. Check that it is still running");
    }
    if (response.ok) return response;
    if (response.status === 503 && attempt < MAX_ATTEMPTS) {
      const seconds = Math.min(10, Number(response.headers.get("Retry-After")) || 1);
      onRetry(`The server is busy. Trying again in ${seconds} s.`);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    let detail;
    try {
      ({ detail } = await response.json());
    } catch {
      detail = `the server answered ${response.status}`;
    }
    throw response.status === 401 ? new KeyRequired(detail) : new Error(detail);
  }
}
