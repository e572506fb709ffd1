// The list of objects that the user marks in an image, and the cause for which each of them is missed.

import { $, element, swatch } from "./dom.js";

export class ObjectList {
  // request(upload, objects) returns the server's answer; onShow(objects, selected) draws the objects.
  constructor({ request, onShow, onError }) {
    Object.assign(this, { request, onShow, onError });
    this.upload = null;
    this.classes = [];
    this.label = null; // class id of the object that was marked last
    this.count = 0; // increases with each request; only the answer to the latest is shown
    this.visible = false;
    $("objects-clear").onclick = () => this.#change(() => this.objects.splice(0));
  }

  get objects() {
    return this.upload?.objects ?? [];
  }

  show(upload, visible) {
    const changed = upload !== this.upload;
    Object.assign(this, { upload, visible });
    if (changed) this.selected = this.objects.at(-1) ?? null;
    this.render();
    if (visible && this.objects.some((object) => object.label !== null && !object.result)) this.explain();
  }

  add(box) {
    this.visible = true;
    this.upload.objects ??= [];
    const label = this.label ?? (this.classes.length === 1 ? 0 : null);
    this.selected = { box, label, result: null };
    this.objects.push(this.selected);
    this.#change();
    if (label === null) $("object-list").lastChild.querySelector("select").focus();
    if (innerWidth <= 820) $("objects").scrollIntoView({ block: "start" });
  }

  // The threshold has changed: the causes hold for the previous threshold only.
  forget() {
    for (const object of this.objects) object.result = null;
    this.count++;
    this.render();
  }

  async explain() {
    const { upload } = this;
    const objects = this.objects.filter(({ label }) => label !== null);
    const count = ++this.count;
    if (!objects.length || !this.visible) return;
    try {
      const results = await this.request(upload, objects);
      if (count !== this.count) return;
      objects.forEach((object, i) => (object.result = results[i]));
    } catch (error) {
      if (count === this.count) this.onError(error.message);
    }
    this.render();
  }

  // All objects are explained again after a change, because each object is a neighbour of the others.
  #change(edit = () => {}) {
    edit();
    if (!this.objects.includes(this.selected)) this.selected = this.objects.at(-1) ?? null;
    this.forget();
    this.explain();
  }

  #select(object) {
    this.selected = object;
    this.render();
  }

  render() {
    $("objects").hidden = !this.visible || !this.objects.length;
    const focused = document.activeElement?.dataset?.key;
    $("object-list").replaceChildren(...this.objects.map((object, i) => this.#row(object, i)));
    if (focused) $("object-list").querySelector(`[data-key="${focused}"]`)?.focus();
    this.onShow(this.visible ? this.objects : [], this.selected);
  }

  #row(object, i) {
    const { label, result } = object;
    const select = element("select", { "aria-label": `Class of object ${i + 1}` });
    if (label === null) select.append(element("option", { textContent: "Choose its class…", value: "" }));
    this.classes.forEach((name, k) => select.append(element("option", { textContent: name, value: k, selected: k === label })));
    select.onchange = () => this.#change(() => (this.label = object.label = Number(select.value)));
    const cause = element("button", {
      class: `cause ${result?.cause === "detected" ? "detected" : ""}`,
      type: "button",
      textContent: result?.cause ?? (label === null ? "" : "…"),
      "aria-label": `Object ${i + 1}: ${result?.cause ?? "no cause yet"}`,
      "aria-pressed": String(object === this.selected),
    });
    cause.onclick = () => this.#select(object);
    const remove = element("button", { class: "link", type: "button", textContent: "×", title: "Remove", "aria-label": `Remove object ${i + 1}` });
    remove.onclick = () => this.#change(() => this.objects.splice(i, 1));
    [select, cause, remove].forEach((node, place) => (node.dataset.key = `${i}-${place}`));
    const line = element("div", { class: "object", children: [element("b", { textContent: i + 1 }), ...(label === null ? [] : [swatch(label)]), select, cause, remove] });
    const why = object === this.selected && result ? this.#why(result) : [];
    return element("li", { class: object === this.selected ? "on" : "", children: [line, ...why] });
  }

  #why({ summary, advice, note }) {
    const texts = [["why-text", summary], ["why-text", advice && `What can help: ${advice}.`], ["muted small", note]];
    return texts.filter(([, text]) => text).map(([name, textContent]) => element("p", { class: name, textContent }));
  }
}
