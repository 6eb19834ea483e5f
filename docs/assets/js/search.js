// The search box: opening and closing, keys, and what is shown. What is found: search-engine.js.

(() => {
  const box = document.querySelector(".bb-search");
  const opener = document.querySelector(".bb-search-open");
  if (!box) return;
  if (location.protocol === "file:") {
    // Pages opened as files may not load an index.
    box.remove();
    opener.remove();
    return;
  }
  const toggle = document.getElementById("__search");
  const form = box.querySelector("form");
  const input = box.querySelector("input");
  const status = box.querySelector("[role=status]");
  const list = box.querySelector("[role=listbox]");
  const strings = JSON.parse(box.dataset.strings);
  const language = document.documentElement.lang;
  const plural = new Intl.PluralRules(language);

  let engine;
  let cameFrom;
  let asked = 0;
  let pending = Promise.resolve();

  const address = (name) => new URL(box.dataset[name], location.href).href;

  function load() {
    engine ??= import(address("engine")).then((module) => module.load(address("bundle"), language));
    // The next letter tries again.
    engine.catch(() => (engine = undefined));
    return engine;
  }

  // Opening and closing. Material's styles follow the hidden checkbox.

  function open() {
    if (!toggle.checked) toggle.click();
    if (document.activeElement !== input) {
      cameFrom = document.activeElement;
      input.focus();
    }
    load().catch(() => say(strings.failed));
  }

  function close() {
    if (toggle.checked) toggle.click();
  }

  function closed() {
    select(undefined);
    input.setAttribute("aria-expanded", "false");
    if (!box.contains(document.activeElement)) return;
    input.blur();
    if (cameFrom && cameFrom !== document.body) cameFrom.focus();
    cameFrom = undefined;
  }

  opener.addEventListener("click", open);
  input.addEventListener("focus", () => {
    input.setAttribute("aria-expanded", String(list.childElementCount > 0));
    open();
  });
  toggle.addEventListener("change", () => (toggle.checked ? open() : closed()));
  box.addEventListener("focusout", ({ relatedTarget }) => {
    // Not when another window comes to the front: then nothing takes the focus.
    if (relatedTarget && !box.contains(relatedTarget)) {
      cameFrom = undefined;
      close();
    }
  });

  // Keys

  const isTyping = ({ target }) => target.isContentEditable || target.matches("input, textarea, select");

  addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    const shortcut = event.ctrlKey || event.metaKey ? key === "k" : ["/", "s", "f"].includes(key) && !isTyping(event);
    if (!shortcut || event.altKey || event.defaultPrevented) return;
    event.preventDefault();
    open();
    input.select();
  });

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "Enter") follow();
    else return;
    event.preventDefault();
  });

  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    close();
    event.preventDefault();
  });

  const options = () => [...list.querySelectorAll("[role=option]")];
  const selected = () => list.querySelector("[aria-selected=true]");

  function select(option) {
    selected()?.setAttribute("aria-selected", "false");
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  }

  // Above the first and below the last option is the input itself.
  function move(step) {
    const places = [undefined, ...options()];
    const index = places.indexOf(selected() ?? undefined);
    select(places[(index + step + places.length) % places.length]);
  }

  async function follow() {
    await pending;
    (selected() ?? options()[0])?.click();
  }

  // Asking

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    input.focus();
    // The event comes before the input is empty.
    setTimeout(ask);
  });
  input.addEventListener("input", () => {
    asked += 1;
    const mine = asked;
    pending = new Promise((done) => setTimeout(done, 100)).then(() => (mine === asked ? ask() : pending));
  });

  async function ask() {
    const query = input.value.trim();
    const mine = ++asked;
    if (query.length < 2) return show([], strings.hint);
    const slow = setTimeout(() => mine === asked && say(strings.loading), 300);
    try {
      const found = await (await load()).find(query);
      if (mine === asked) show(found.pages, summary(found, query));
    } catch (error) {
      console.error(error);
      if (mine === asked) show([], strings.failed);
    } finally {
      clearTimeout(slow);
    }
  }

  function summary({ total, all, pages }, query) {
    if (!total) return strings.none.replace("{query}", () => (query.length > 60 ? `${query.slice(0, 60)}…` : query));
    if (!all) return strings.some;
    const form = { one: 0, few: 1 }[plural.select(total)] ?? 2;
    const text = total > pages.length ? strings.best : strings.found;
    return text.replace("{pages}", `${total}\u00a0${strings.forms[form]}`).replace("{shown}", pages.length);
  }

  // Showing. Texts of lessons may contain markup; as text nodes they cannot become any.

  const say = (text) => (status.textContent = text);

  function element(name, className, ...children) {
    const made = document.createElement(name);
    made.className = className;
    made.append(...children);
    return made;
  }

  function link(href, ...children) {
    const made = element("a", "md-search-result__link", ...children);
    made.href = href;
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", "false");
    made.tabIndex = -1;
    made.addEventListener("click", close);
    // The focus stays in the input, which says what is selected.
    made.addEventListener("mousedown", (event) => event.preventDefault());
    return made;
  }

  function excerpt(words) {
    const made = element("p", "bb-search__excerpt");
    for (const { before, word, after = "" } of words) {
      made.append(before, ...(word ? [element("mark", "", word)] : []), after);
    }
    return made;
  }

  function article(kind, ...children) {
    return element("div", `md-search-result__article md-typeset bb-search__${kind}`, ...children);
  }

  function item({ address, title, hits }) {
    const href = new URL(address, new URL(box.dataset.root, location.href)).href;
    const [start] = hits.filter((hit) => !hit.anchor);
    const heading = element("span", "bb-search__title", title);
    const page = link(href, article("page", heading, ...(start ? [excerpt(start.excerpt)] : [])));
    const sections = hits
      .filter((hit) => hit.anchor)
      .map((hit) => {
        const name = element("span", "bb-search__heading", hit.title);
        return link(`${href}#${hit.anchor}`, article("section", name, excerpt(hit.excerpt)));
      });
    const group = element("div", "md-search-result__item", page, ...sections);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", title);
    return group;
  }

  function show(pages, text) {
    list.replaceChildren(...pages.map(item));
    options().forEach((option, index) => (option.id = `search-result-${index}`));
    select(undefined);
    input.setAttribute("aria-expanded", String(pages.length > 0));
    say(text);
  }
})();
