// Progress: what is done is marked on lessons, in the navigation and on the roadmap, and can be
// saved to a file, loaded and cleared.

const pieces = document.getElementById("bb-learn");
const store = window.blackbeltProgress;
const number = pieces?.dataset.lesson;
const LESSON = /\/lessons\/[^/]+\/(\d\d[a-z]?)_[^/]+\/(?:index\.html)?$/;
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const clone = (name) =>
  pieces.content.querySelector(`[data-piece="${name}"]`).firstElementChild.cloneNode(true);

// Buttons of a lesson

function toggle(button, read, change) {
  button.addEventListener("click", () => store.change(number, change));
  const show = () => button.setAttribute("aria-pressed", String(Boolean(read(store.lesson(number)))));
  store.onChange(show);
  show();
}

function exercise(card) {
  const id = card.dataset.exercise;
  const button = clone("done");
  const title = card.querySelector("h2, h3, h4");
  if (title?.id) button.setAttribute("aria-describedby", title.id);
  card.append(button);
  toggle(
    button,
    (lesson) => lesson.exercises[id],
    (lesson) => {
      if (lesson.exercises[id]) delete lesson.exercises[id];
      else lesson.exercises[id] = store.now();
    },
  );
}

function finish() {
  const end = clone("finish");
  const article = document.querySelector("article");
  const provenance = article.querySelector(".bb-provenance");
  if (provenance) provenance.before(end);
  else article.append(end);
  warn(end.querySelector("[data-not-kept]"));
  toggle(
    end.querySelector("button"),
    (lesson) => lesson.finished,
    (lesson) => {
      if (lesson.finished) delete lesson.finished;
      else lesson.finished = store.now();
    },
  );
}

// Says so where nothing is kept: in a private window, or with storage switched off.
function warn(note) {
  const check = () => {
    if (!store.isKept()) note.textContent = note.dataset.notKept;
  };
  store.onChange(check);
  check();
}

// Ticks on links to finished lessons

function ticks() {
  const links = document.querySelectorAll(
    ".md-nav--primary a.md-nav__link, .bb-lesson a, h3[id^=lesson-] > a:not(.headerlink)",
  );
  const found = [...links].map((link) => [link, link.pathname.match(LESSON)?.[1]]);
  const lessons = found.filter(([, lesson]) => lesson);
  const show = () => {
    const known = store.all();
    for (const [link, lesson] of lessons) {
      const finished = Boolean(known[lesson]?.finished);
      const tick = link.querySelector(".bb-tick");
      if (finished === Boolean(tick)) continue;
      if (!finished) tick.remove();
      else link.append(tickOf());
    }
  };
  store.onChange(show);
  show();
}

function tickOf() {
  const tick = document.createElement("span");
  tick.className = "bb-tick";
  tick.setAttribute("role", "img");
  tick.setAttribute("aria-label", pieces.dataset.finished);
  return tick;
}

// The home page: what the roadmap holds, compared with what is done

function written() {
  return [...document.querySelectorAll(".bb-lesson[data-lesson]")].map((item) => ({
    number: item.dataset.lesson,
    module: item.closest(".bb-module"),
    exercises: item.dataset.exercises.split(" ").filter(Boolean).map((x) => x.split(":")),
    questions: item.dataset.questions.split(" ").filter(Boolean),
  }));
}

function counts(lessons, known) {
  const sum = (count) => lessons.reduce((total, lesson) => total + count(lesson, known[lesson.number]), 0);
  return {
    lessons: [sum((_, done) => (done?.finished ? 1 : 0)), lessons.length],
    exercises: [
      sum(({ exercises }, done) => exercises.filter(([, id]) => done?.exercises[id]).length),
      sum(({ exercises }) => exercises.length),
    ],
    questions: [
      sum(({ questions }, done) => questions.filter((id) => done?.questions[id]?.right).length),
      sum(({ questions }) => questions.length),
    ],
  };
}

// A belt of a module is earned when each of its exercises in all written lessons is done.
function belts(panel, lessons, known) {
  const template = panel.querySelector("template").content;
  for (const module of new Set(lessons.map((lesson) => lesson.module))) {
    const theirs = lessons.filter((lesson) => lesson.module === module);
    const all = theirs.flatMap(({ number: lesson, exercises }) =>
      exercises.map(([belt, id]) => [belt, Boolean(known[lesson]?.exercises[id])]),
    );
    const earned = [...template.querySelectorAll("[data-belt]")].filter(({ dataset }) => {
      const wanted = all.filter(([belt]) => belt === dataset.belt);
      return wanted.length && wanted.every(([, done]) => done);
    });
    module.querySelector(".bb-module__belts")?.remove();
    if (!earned.length) continue;
    const line = template.querySelector(".bb-module__belts").cloneNode();
    line.append(...earned.map((belt) => belt.cloneNode(true)));
    module.querySelector(".bb-module__header").after(line);
  }
}

function home(panel) {
  const lessons = written();
  const show = () => {
    const known = store.all();
    for (const [name, [done, total]] of Object.entries(counts(lessons, known))) {
      panel.querySelector(`[data-count="${name}"]`).textContent = fill(panel.dataset.of, { number: done, total });
    }
    panel.querySelector('[data-do="clear"]').disabled = !Object.keys(known).length;
    panel.querySelector('[data-do="save"]').disabled = !Object.keys(known).length;
    belts(panel, lessons, known);
  };
  store.onChange(show);
  show();
  warn(panel.querySelector("[data-not-kept]"));
  panel.hidden = false;
  // The address of this part was of no use while it was hidden.
  if (location.hash === "#progress") panel.scrollIntoView();
  const result = panel.querySelector('[role="status"]');
  const say = (text) => {
    result.textContent = text;
  };
  const press = (name, action) =>
    panel.querySelector(`[data-do="${name}"]`).addEventListener("click", action);
  press("save", () => say(fill(panel.dataset.saved, { name: save() })));
  press("clear", () => ask(panel, "clear", () => {
    store.replace(Object.create(null));
    say(panel.dataset.cleared);
    panel.querySelector('[data-do="load"]').focus();
  }));
  const input = panel.querySelector('input[type="file"]');
  press("load", () => input.click());
  input.addEventListener("change", () => load(panel, input, say));
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([store.text()], { type: "application/json" }));
  link.download = `pytorch-black-belt-${store.now().slice(0, 10)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  return link.download;
}

async function load(panel, input, say) {
  const [file] = input.files;
  if (!file) return;
  say("");
  const text = file.size < 5_000_000 ? await file.text().catch(() => "") : "";
  input.value = ""; // or the same file could not be chosen again
  const lessons = store.parse(text);
  if (!lessons) return say(panel.dataset.damaged);
  const all = Object.values(lessons);
  const sum = (part) => all.reduce((total, lesson) => total + Object.keys(lesson[part]).length, 0);
  const words = panel.querySelector('[data-dialog="load"] [data-text]');
  words.textContent = fill(words.dataset.text, {
    lessons: all.filter((lesson) => lesson.finished).length,
    exercises: sum("exercises"),
    questions: sum("questions"),
  });
  ask(panel, "load", (how) => {
    store[how](lessons);
    say(panel.dataset.loaded);
  });
}

function ask(panel, name, then) {
  const dialog = panel.querySelector(`[data-dialog="${name}"]`);
  dialog.returnValue = "";
  dialog.addEventListener("close", () => dialog.returnValue && then(dialog.returnValue), { once: true });
  dialog.showModal();
}

if (pieces && store) {
  if (number) {
    document.querySelectorAll(".exercise[data-exercise]").forEach(exercise);
    finish();
  }
  ticks();
  const panel = document.querySelector(".bb-progress");
  if (panel) home(panel);
}
