// What a reader has done, kept in this browser only: no account, no request.
// Lessons are known by their number, and what is in them by the id that its author gave it, so
// that nothing is lost when a page is rebuilt, a section renamed or a lesson retitled. Both
// languages share it.

const KEY = "pytorch-black-belt:progress:1";
const FORMAT = "pytorch-black-belt progress";
const VERSION = 1;
const NUMBER = /^\d\d[a-z]?$/;
const ID = /^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/;
const DATE = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/;

// Without a prototype: an exercise may be called "constructor".
const empty = () => Object.create(null);
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isDate = (value) => typeof value === "string" && DATE.test(value);
const isCount = (value) => Number.isInteger(value) && value >= 0 && value < 1000;
const isPicked = (value) =>
  (typeof value === "string" && value.length <= 200) ||
  (Array.isArray(value) && value.length <= 26 && value.every((letter) => /^[A-Z]$/.test(letter)));

const PARTS = {
  exercises: (value) => (isDate(value) ? value : null),
  questions: ({ picked, right, at } = {}) =>
    isPicked(picked) && typeof right === "boolean" && isDate(at) ? { picked, right, at } : null,
  quizzes: ({ best, of, at } = {}) =>
    isCount(best) && isCount(of) && isDate(at) ? { best, of, at } : null,
};

const newLesson = () => ({ exercises: empty(), questions: empty(), quizzes: empty() });

// A file or what is stored, as progress; null if it is anything else. Nothing of it is trusted.
function parse(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(data) || data.format !== FORMAT || data.version !== VERSION) return null;
  if (!isRecord(data.lessons)) return null;
  const lessons = empty();
  for (const [number, from] of Object.entries(data.lessons)) {
    if (!NUMBER.test(number) || !isRecord(from)) return null;
    const lesson = newLesson();
    if (from.finished !== undefined) {
      if (!isDate(from.finished)) return null;
      lesson.finished = from.finished;
    }
    for (const [part, read] of Object.entries(PARTS)) {
      if (from[part] !== undefined && !isRecord(from[part])) return null;
      for (const [id, value] of Object.entries(from[part] ?? {})) {
        const known = ID.test(id) && value !== null ? read(value) : null;
        if (known === null) return null;
        lesson[part][id] = known;
      }
    }
    lessons[number] = lesson;
  }
  return lessons;
}

const write = (lessons) => JSON.stringify({ format: FORMAT, version: VERSION, lessons });

// Of two records of the same thing, the later one, but of a quiz the better one.
function merge(ours, theirs) {
  const merged = parse(write(ours));
  for (const [number, from] of Object.entries(theirs)) {
    const lesson = (merged[number] ??= newLesson());
    lesson.finished ??= from.finished;
    for (const [id, date] of Object.entries(from.exercises)) lesson.exercises[id] ??= date;
    for (const [id, answer] of Object.entries(from.questions)) {
      const known = lesson.questions[id];
      if (!known || known.at < answer.at) lesson.questions[id] = answer;
    }
    for (const [id, result] of Object.entries(from.quizzes)) {
      const known = lesson.quizzes[id];
      if (!known || known.best * result.of < result.best * known.of) lesson.quizzes[id] = result;
    }
  }
  return merged;
}

// A private window or a blocked storage: everything works, and is forgotten with the page.
let memory = empty();
let kept = true;

function load() {
  if (!kept) return memory;
  let text;
  try {
    text = localStorage.getItem(KEY);
  } catch {
    kept = false;
    return memory;
  }
  if (text === null) return empty();
  const lessons = parse(text);
  if (lessons) return lessons;
  // Whatever it is, somebody may want it back.
  save(empty(), text);
  return empty();
}

function save(lessons, damaged) {
  memory = lessons;
  if (!kept) return;
  try {
    if (damaged !== undefined) localStorage.setItem(`${KEY}:damaged`, damaged);
    localStorage.setItem(KEY, write(lessons));
  } catch {
    kept = false;
  }
}

function probe() {
  try {
    localStorage.setItem(`${KEY}:probe`, "1");
    localStorage.removeItem(`${KEY}:probe`);
  } catch {
    memory = load(); // what is there can still be read when the disk is full
    kept = false;
  }
}

const listeners = [];
const notify = () => {
  for (const listener of listeners) listener();
};

probe();
// Another window of the site, or this one when the reader comes back to it.
addEventListener("storage", (event) => {
  if (event.key === KEY || event.key === null) notify();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) notify();
});

window.blackbeltProgress = {
  isKept: () => kept,
  all: load,
  lesson: (number) => load()[number] ?? newLesson(),
  onChange: (listener) => listeners.push(listener),
  // Read again before each change: another window may have written in between.
  change(number, edit) {
    const lessons = load();
    edit((lessons[number] ??= newLesson()));
    save(lessons);
    notify();
  },
  replace(lessons) {
    save(lessons);
    notify();
  },
  merge(lessons) {
    save(merge(load(), lessons));
    notify();
  },
  parse,
  text: () => `${JSON.stringify(JSON.parse(write(load())), null, 1)}\n`,
  now: () => new Date().toISOString(),
};
