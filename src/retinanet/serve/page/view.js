// The canvas of the current image.

import { $ } from "./dom.js";
import { Viewer } from "./viewer.js";

const ignore = () => {};

// results.js and explanation.js replace the functions.
export const viewer = new Viewer($("canvas"), { onPick: ignore, onHover: ignore, onDraw: ignore });
