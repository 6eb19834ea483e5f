// What the pages do beyond Material. Everything works without it, only less well.

// The language switch keeps the section: its links lead to the page, the address says where on it.
for (const link of document.querySelectorAll(".md-select__link[hreflang]")) {
  link.addEventListener("click", () => {
    link.hash = location.hash;
  });
}

// A printed lesson has its folded parts too.
const opened = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    opened.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of opened.splice(0)) details.open = false;
});

// What scrolls sideways can be scrolled with the keyboard.
const scrollers = document.querySelectorAll(".nb-text, .nb-lines, .nb-table, .bb-math");
const reach = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const scroller of scrollers) reach.observe(scroller);
