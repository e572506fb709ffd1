// The canvas of the current image.

import { $ } from "./dom.js";
import { Viewer } from "./viewer.js";

// results.js and explanation.js replace the functions of the viewer.
export const viewer = new Viewer($("canvas"));
