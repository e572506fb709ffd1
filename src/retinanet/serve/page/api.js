// Talks to the server. Everything that goes wrong becomes an Error with a sentence for people.

export const LEAST = 0.02; // Detections are fetched from this score on; the slider filters them here.
const MOST_TRIES = 4;
let key = "";

export class NeedsKey extends Error {}

export function useKey(value) {
  key = value;
}

export const model = async () => (await send("v1/model")).json();

export async function detect(blob, name, waiting) {
  const { limits } = await knownModel();
  refuseLarge(blob, limits);
  const form = new FormData();
  form.append("file", blob, name);
  const query = new URLSearchParams({ threshold: LEAST, max_detections: limits.max_detections });
  const start = performance.now();
  const answer = await (await send(`v1/detect?${query}`, { method: "POST", body: form }, waiting)).json();
  return { ...answer.images[0], roundTrip: performance.now() - start };
}

// The image as JPEG, for formats that the server reads and this browser does not.
export async function plainImage(blob, name) {
  const form = new FormData();
  form.append("file", blob, name);
  return (await send("v1/detect?format=jpeg&threshold=1", { method: "POST", body: form })).blob();
}

export async function explain(blob, name, x, y, threshold) {
  const form = new FormData();
  form.append("file", blob, name);
  const query = new URLSearchParams({ x: x.toFixed(2), y: y.toFixed(2), threshold: threshold.toFixed(4) });
  return (await send(`v1/explain?${query}`, { method: "POST", body: form })).json();
}

let known;
function knownModel() {
  known ??= model().catch((error) => {
    known = undefined;
    throw error;
  });
  return known;
}

function refuseLarge(blob, limits) {
  if (blob.size > limits.upload_bytes) {
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    throw new Error(`the file has ${megabytes(blob.size)} MB, the server takes ${megabytes(limits.upload_bytes)} MB`);
  }
}

async function send(path, options = {}, waiting = () => {}) {
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
    } catch {
      throw new Error("the server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 503 && attempt < MOST_TRIES) {
      const seconds = Math.min(10, Number(response.headers.get("Retry-After")) || 1);
      waiting(`The server is busy; trying again in ${seconds} s`);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    let detail;
    try {
      ({ detail } = await response.json());
    } catch {
      detail = `the server answered ${response.status}`;
    }
    throw response.status === 401 ? new NeedsKey(detail) : new Error(detail);
  }
}
