// A box that narrows an index to the entries in which every typed word occurs.
for (const index of document.querySelectorAll("[data-bb-filter]")) {
  const entries = [...index.querySelectorAll(".bb-index__entry")].map((element) => ({
    element,
    text: element.querySelector("dt").textContent.toLowerCase(),
  }));
  const box = document.createElement("input");
  box.type = "search";
  box.className = "bb-filter";
  box.placeholder = index.dataset.bbFilter;
  box.setAttribute("aria-label", index.dataset.bbFilter);
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  index.before(box, said);
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { element, text } of entries) {
      element.hidden = !words.every((word) => text.includes(word));
      shown += !element.hidden;
    }
    for (const group of index.querySelectorAll(".bb-index__group")) {
      group.hidden = !group.querySelector(".bb-index__entry:not([hidden])");
    }
    said.textContent = shown ? "" : index.dataset.bbNothing;
  });
}
