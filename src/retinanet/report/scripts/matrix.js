// The confusion matrix as a table whose cells are buttons.

// Return the name of a cell for screen readers.
function cellName(row, column, count, total, classes) {
  const n = classes.length;
  const share = total ? ` (${Math.round((100 * count) / total)} %)` : "";
  if (column === n) return `${count} of ${total} objects of class ${classes[row]} without a detection${share}`;
  if (row === n) return `${count} detections of class ${classes[column]} without an object${share}`;
  const what = row === column ? "with their class" : `as ${classes[column]}`;
  return `${count} of ${total} objects of class ${classes[row]} detected ${what}${share}`;
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
      const share = count / total, percent = share < 0.01 ? "<1" : Math.round(100 * share);
      cell.className = i === j ? "right" : "wrong";
      cell.style.setProperty("--share", share.toFixed(3));
      const isOpen = selected !== null && selected[0] === i && selected[1] === j;
      const button = element("button", {
        type: "button", "aria-pressed": isOpen, "data-cell": `${i},${j}`,
        "aria-label": cellName(i, j, count, total, classes),
        children: [`${count.toLocaleString("en")} `, element("small", { textContent: `${percent} %` })],
      });
      button.addEventListener("click", () => open(i, j));
      cell.append(button);
      return cell;
    });
    const name = i === n ? "background" : classes[i];
    return element("tr", { children: [element("th", { scope: "row", textContent: name }), ...cells] });
  }));
}
