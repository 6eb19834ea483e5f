// Keeps the language of the address that was not found: English below /en/, else Polish.
{
  const english = new URL(document.currentScript.dataset.english, location.href);
  const language = location.pathname.startsWith(english.pathname) ? "en" : "pl";
  document.documentElement.lang = language;
  for (const section of document.querySelectorAll(".bb-not-found")) {
    section.hidden = section.lang !== language;
  }
}
