// A figure opens as large as the window. Without this, its link leads to the picture alone.
{
  const viewer = document.querySelector(".nb-viewer");
  const shown = viewer?.querySelector("img");
  const open = (event) => {
    // Whoever asks for a new tab gets the picture.
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const figure = event.currentTarget.querySelector("img");
    shown.src = figure.src;
    shown.alt = figure.alt;
    shown.className = figure.className;
    shown.style.setProperty("--bb-width", `${figure.getAttribute("width")}px`);
    shown.style.setProperty(
      "--bb-ratio",
      figure.getAttribute("width") / figure.getAttribute("height"),
    );
    // Esc closes it, and the browser gives the focus back to the link.
    viewer.showModal();
    viewer.querySelector(".nb-viewer__stage").scrollTo(0, 0);
  };
  for (const link of viewer ? document.querySelectorAll(".nb-zoom") : []) {
    link.setAttribute("aria-haspopup", "dialog");
    link.addEventListener("click", open);
  }
  viewer?.addEventListener("click", (event) => {
    if (!event.target.closest("form")) viewer.close();
  });
}
