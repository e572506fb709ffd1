// The confusion matrix as a table whose cells are buttons.

// Return the visible text of a cell, count and percentage, and its name for screen readers, which starts with this text.
function cellTexts(row, column, count, total, classes) {
  const n = classes.length, share = count / total;
  const texts = [count.toLocaleString("en"), `${share < 0.01 ? "<1" : Math.round(100 * share)} %`];
  const objects = `objects of class ${classes[row]}`, found = `detected as ${classes[column]}`;
  const what = column === n ? `${objects} without a detection` : row === n
    ? `detections of class ${classes[column]} without an object` : `${objects} ${found}`;
  return { texts, name: `${texts.join(" ")}, ${what}` };
}

// Replace the rows of a table. `chosen` holds the classes that are shown, `open(row, column)` opens a cell.
function drawMatrix(table, counts, classes, chosen, selected, open) {
  const n = classes.length, places = [...chosen, n];
  const head = [element("th", { scope: "col", textContent: "Object" })];
  for (const k of chosen) head.push(element("th", { scope: "col", textContent: classes[k] }));
  head.push(element("th", { scope: "col", textContent: "missed" }));
  table.tHead.replaceChildren(element("tr", { children: head }));
  table.tBodies[0].replaceChildren(...places.map((i) => {
    const total = counts[i].reduce((sum, count) => sum + count, 0);
    const cells = places.map((j) => {
      const count = counts[i][j], cell = element("td");
      if (!count) return cell;
      const { texts, name } = cellTexts(i, j, count, total, classes);
      cell.className = i === j ? "right" : "wrong";
      cell.style.setProperty("--share", (count / total).toFixed(3));
      const isOpen = selected !== null && selected[0] === i && selected[1] === j;
      const button = element("button", {
        type: "button", "aria-pressed": isOpen, "data-cell": `${i},${j}`,
        "aria-label": name, children: [`${texts[0]} `, element("small", { textContent: texts[1] })],
      });
      button.addEventListener("click", () => open(i, j));
      cell.append(button);
      return cell;
    });
    const name = i === n ? "background" : classes[i];
    return element("tr", { children: [element("th", { scope: "row", textContent: name }), ...cells] });
  }));
}
