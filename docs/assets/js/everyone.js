// Names for screen readers and ways for the keyboard that Material leaves out.

// Material takes titles away while it shows them, which for an icon is the only name it has, and
// makes a landmark without a name of the buttons of each piece of code.
const name = (element) => {
  for (const group of element.querySelectorAll(".md-code__nav")) group.setAttribute("role", "none");
  for (const item of element.querySelectorAll(":is(a, button)[title]:not([aria-label])")) {
    if (!item.textContent.trim()) item.setAttribute("aria-label", item.title);
  }
};
name(document);
new MutationObserver((changes) => {
  for (const { target } of changes) name(target);
}).observe(document.querySelector("article"), { childList: true, subtree: true });

// The menu of a narrow window: the keyboard goes into it, and leaving it closes it.
const drawer = document.getElementById("__drawer");
const sidebar = document.querySelector(".md-sidebar--primary");
const menu = document.querySelector(".md-header [for=__drawer]");
if (drawer && sidebar && menu) {
  const close = () => {
    if (drawer.checked) drawer.click();
  };
  drawer.addEventListener("change", () => {
    // Hidden elements take no focus, and the style changes after this event.
    if (drawer.checked && document.activeElement === menu) {
      setTimeout(() => sidebar.querySelector("a, [tabindex]")?.focus(), 50);
    }
  });
  addEventListener("focusin", ({ target }) => {
    if (!sidebar.contains(target) && target !== menu && target !== drawer) close();
  });
  addEventListener("keydown", ({ key }) => {
    if (key === "Escape" && drawer.checked) {
      close();
      menu.focus();
    }
  });
}
