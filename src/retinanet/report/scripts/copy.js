// Copy commands. A page that is opened as a file may have no clipboard: the command is then selected.

parts.copy = (root) => {
  const announce = element("span", { class: "spoken", role: "status" });
  root.append(announce);
  for (const line of root.querySelectorAll(".line")) {
    const code = line.querySelector("code"), button = line.querySelector("button");
    button.hidden = false;

    const label = (text) => {
      button.textContent = text;
      button.setAttribute("aria-label", `${text}: ${code.textContent}`);
    };
    label("Copy");
    const report = (text, spoken) => {
      label(text);
      announce.textContent = spoken;
      setTimeout(() => { label("Copy"); announce.textContent = ""; }, 4000);
    };
    const select = () => {
      getSelection().selectAllChildren(code);
      if (document.execCommand("copy")) report("Copied", "The command is copied.");
      else report("Selected", "The command is selected. Copy it with the keyboard.");
    };
    button.addEventListener("click", () => {
      if (!navigator.clipboard) return select();
      navigator.clipboard.writeText(code.textContent).then(() => report("Copied", "The command is copied."), select);
    });
  }
};
