// Shows and announces messages.

import { $, element } from "./dom.js";

const MAX_ERRORS = 4;

// Show an error that concerns no image. The reason why an image failed is shown in its place instead.
export function showError(text) {
  const line = element("p", { children: [element("span", { textContent: text })] });
  const close = element("button", { class: "link", type: "button", textContent: "dismiss" });
  close.onclick = () => {
    line.remove();
    focusPage();
  };
  line.append(close);
  const lines = $("problems");
  if (lines.childElementCount >= MAX_ERRORS) lines.firstChild.remove();
  lines.append(line);
}

export function showBusy(text) {
  $("busy").hidden = !text;
  $("busy").textContent = text;
}

// Let a screen reader read an answer. The text is emptied first, so that a text that repeats is read again.
export function announce(text) {
  $("status").textContent = "";
  setTimeout(() => ($("status").textContent = text), 50);
}

// Move the focus to the image, its error, or the button that adds images: an element that had the focus has gone.
export function focusPage() {
  const place = [$("canvas"), $("failure"), $("choose")].find((node) => node.checkVisibility());
  place.focus();
}
