// The sliders of the loss microscope. The element is complete at the setting of training; the sliders replace its numbers.
{
  const { comparedLosses, drawnGradients, percentText, rankedPlaces, settingText, sharesByKind, total, trainOptions } = lossTerms;
  const numberText = (value) => Math.round(value).toLocaleString("en-US");

  // Return a labelled slider over the values, and the element that shows its value.
  function slider(label, values, value, onInput) {
    const input = element("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
    input.value = values.indexOf(value);
    input.addEventListener("input", onInput);
    const shown = element("span", { class: "value", "aria-hidden": "true" });
    const field = element("label", { class: "slider", children: [element("span", { textContent: label }), shown, input] });
    return { input, shown, field, get value() { return values[Number(input.value)]; } };
  }

  function stepPath(heights) {
    return `M0 100${heights.map((h) => `V${(100 - 100 * h).toFixed(1)}h1`).join(" ")}V100`;
  }

  parts.loss_microscope = (root, data) => {
    const at = (selector) => root.querySelector(selector);
    const start = data.start;
    const alpha = slider("Alpha, weight of objects", data.alphas, start.alpha ?? 0.5, update);
    const gamma = slider("Gamma, focus on hard examples", data.gammas, start.gamma, update);
    const equal = element("input", { type: "checkbox", checked: start.alpha === null });
    equal.addEventListener("change", update);
    const back = element("button", { type: "button", textContent: "Back to the start" });
    back.addEventListener("click", () => {
      alpha.input.value = data.alphas.indexOf(start.alpha ?? 0.5);
      gamma.input.value = data.gammas.indexOf(start.gamma);
      equal.checked = start.alpha === null;
      update();
    });
    const equalField = element("label", { class: "check", children: [equal, element("span", { textContent: "Equal weights (no alpha)" })] });
    at(".controls").append(alpha.field, gamma.field, equalField, back);
    const list = at(".places");
    const places = new Map([...list.children].map((item) => [Number(item.dataset.place), item]));
    addCopyButton(at(".command"));

    function update() {
      const a = equal.checked ? null : alpha.value, g = gamma.value;
      const losses = comparedLosses(data, a, g);
      const [focal] = losses, byKind = { Loss: sharesByKind(data, focal.loss), Gradient: sharesByKind(data, focal.gradient) };
      alpha.input.disabled = equal.checked;
      alpha.shown.textContent = equal.checked ? "off" : a.toFixed(2);
      gamma.shown.textContent = String(g);
      const [objects, rare, hard, easy] = byKind.Gradient;
      const rareText = at('[data-row="rare objects"]') ? ` (rare classes ${percentText(rare)})` : "";
      const headline = `With ${settingText(a, g)}, objects cause ${percentText(objects + rare)} of the gradient${rareText}, ` +
        `hard background ${percentText(hard)} and easy background ${percentText(easy)}.`;
      at(".headline").textContent = headline;
      alpha.input.setAttribute("aria-valuetext", `${alpha.shown.textContent}. ${headline}`);
      gamma.input.setAttribute("aria-valuetext", `${g}. ${headline}`);
      showShares(byKind);
      showDrawing(a, g, focal.gradientSum);
      showPlaces(rankedPlaces(data, a, g), focal.gradientSum);
      showLosses(losses);
      for (const row of root.querySelectorAll("[data-group]")) {
        const group = Number(row.dataset.group);
        [focal.loss, focal.gradient].forEach((values, i) => { row.cells[i + 2].textContent = percentText(values[group]); });
      }
      const options = trainOptions(a, g);
      const name = options === "--loss ce" ? "ce" : `focal-${(a ?? 0.5).toFixed(2)}-${g}`;
      at(".command pre").textContent = data.command.replace("NAME", name).replace("OPTIONS", options);
    }

    function showShares(byKind) {
      data.kinds.forEach((kind, i) => {
        for (const [what, values] of Object.entries(byKind)) {
          const segment = at(`[data-bar="${what}"] .${kind.replace(" ", "-")}`);
          if (segment) segment.style.width = `${(100 * values[i]).toFixed(3)}%`;
          const cell = at(`[data-row="${kind}"] [data-cell="${what.toLowerCase()}"]`);
          if (cell) cell.textContent = percentText(values[i]);
        }
      });
    }

    function showDrawing(a, g, gradientSum) {
      const drawn = drawnGradients(data, a, g);
      const largest = Math.max(...Object.values(drawn).flat());
      for (const [kind, values] of Object.entries(drawn)) {
        const path = at(`path[data-panel="gradient"][data-kind="${kind}"]`);
        if (path) path.setAttribute("d", stepPath(values.map((value) => value / (largest || 1))));
      }
      at('[data-top="gradient"]').textContent = `highest: ${percentText(largest / (gradientSum || 1))} of the gradient`;
    }

    function showPlaces(ranked, gradientSum) {
      const shown = new Set(ranked.map(([index]) => index));
      for (const [index, item] of places) item.hidden = !shown.has(index);
      ranked.forEach(([index, value], rank) => {
        const item = places.get(index);
        item.querySelector("strong").textContent = `${rank + 1}. ${(100 * value / (gradientSum || 1)).toFixed(2)}% of the gradient`;
        list.append(item);
      });
    }

    function showLosses(losses) {
      const kinds = data.kinds.filter((kind) => at(`[data-row="${kind}"]`));
      [...at(".losses").rows].forEach((row, i) => {
        const { loss, gradient, examples, effective } = losses[i], byKind = sharesByKind(data, gradient);
        const texts = [
          ...kinds.map((kind) => percentText(byKind[data.kinds.indexOf(kind)])),
          percentText(total(sharesByKind(data, loss).slice(0, 2))),
          numberText(examples / data.images), numberText(effective / data.images),
        ];
        texts.forEach((text, column) => { row.cells[column + 1].textContent = text; });
      });
    }

    update();
  };

  function addCopyButton(box) {
    const text = box.querySelector("pre"), done = element("span", { role: "status" });
    const button = element("button", { type: "button", textContent: "Copy" });
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        done.textContent = "Copied.";
      } catch {
        getSelection().selectAllChildren(text);
        done.textContent = "Selected: press Ctrl+C.";
      }
    });
    box.append(button, done);
  }
}
