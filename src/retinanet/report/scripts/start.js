// Start each interactive part with the data of the element that follows it.

for (const root of document.querySelectorAll("[data-part]")) {
  parts[root.dataset.part](root, JSON.parse(root.nextElementSibling.textContent));
}
