// Decodes images, with the help of the server where the browser cannot read the format.

import { withKey } from "./access.js";
import * as api from "./api.js";
import { element } from "./dom.js";

const [WIDTH, HEIGHT] = [184, 140]; // of a thumbnail, twice the size on the screen

// Return an ImageBitmap, or null if nothing can read the image.
export async function decode(upload) {
  try {
    return await createImageBitmap(upload.blob, { imageOrientation: "from-image" });
  } catch {
    if (upload.status !== "done") return null;
    try {
      return await createImageBitmap(await withKey(() => api.jpegOf(upload.blob, upload.name)));
    } catch {
      return null;
    }
  }
}

// Set the thumbnail of an upload, if the image can be read.
export async function makeThumbnail(upload) {
  if (upload.thumb) return;
  const image = await decode(upload);
  if (!image) return;
  const canvas = element("canvas", { width: WIDTH, height: HEIGHT, "aria-hidden": "true" });
  const scale = Math.max(WIDTH / image.width, HEIGHT / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  canvas.getContext("2d").drawImage(image, (WIDTH - w) / 2, (HEIGHT - h) / 2, w, h);
  image.close();
  upload.thumb = canvas;
}
