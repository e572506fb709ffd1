// Repeats a request with an API key that the user enters, if the server requires a key.

import * as api from "./api.js";
import { $ } from "./dom.js";
import { focusPage } from "./messages.js";

export async function withKey(request) {
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
      focusPage();
      if (dialog.returnValue !== "ok") return failed(new Error("this server requires an API key"));
      api.useKey($("key").value);
      done();
    };
    dialog.showModal();
  });
  return keyRequest;
}
