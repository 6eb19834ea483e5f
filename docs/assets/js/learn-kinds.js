// The kinds of questions: how a reader answers each, and when an answer is right.
// A kind makes its controls, reads and sets what is picked, and judges it. A question has `id`,
// `form`, `help`, `items` of its list by letter, and `answers` by letter, in the right order.

const pieces = document.getElementById("bb-learn");
const piece = (name) =>
  pieces.content.querySelector(`[data-piece="${name}"]`).firstElementChild.cloneNode(true);
const words = pieces?.content.querySelector('[data-piece="form"]')?.dataset;
const same = (ours, theirs) => ours.length === theirs.length && ours.every((x, i) => x === theirs[i]);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function element(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}

// Typed answers: spaces, capitals, and how a language writes its numbers do not matter.
function normal(text) {
  let plain = text.normalize("NFKC").toLowerCase().replace(/[\s`]+/g, "").replace(/\u2212/g, "-");
  if (document.documentElement.lang === "en") plain = plain.replace(/(?<=\d),(?=\d{3}(?!\d))/g, "");
  return plain.replace(/(?<=\d),(?=\d)/g, ".");
}

const choice = (type) => ({
  make({ id, items, answers }) {
    const options = [...items].map(([letter, item]) => {
      const input = Object.assign(document.createElement("input"), { type, name: id, value: letter });
      const text = element("span", "bb-option__text", ...item.childNodes);
      const label = element("label", "bb-option__choice");
      label.append(input, element("span", "bb-option__letter", letter), text);
      return element("div", "bb-option", label, answers.get(letter));
    });
    return element("div", "bb-options", ...options);
  },
  picked: ({ form }) => [...form.querySelectorAll("input:checked")].map((input) => input.value),
  set({ form }, picked) {
    for (const input of form.querySelectorAll("input")) input.checked = picked.includes(input.value);
  },
  empty: [],
  fits: ({ answers }, picked) => Array.isArray(picked) && picked.every((x) => answers.has(x)),
  isRight: ({ right }, picked) => same([...picked].sort(), right),
  isMine: (_, picked, letter) => picked.includes(letter),
  truth: ({ right }) => right.join(", "),
});

const typed = {
  make({ id, answers, help }) {
    const input = Object.assign(document.createElement("input"), {
      type: "text", className: "bb-typed", maxLength: 200, autocomplete: "off", spellcheck: false,
    });
    input.setAttribute("autocapitalize", "off");
    help.id = `help-${id}`;
    input.setAttribute("aria-labelledby", help.id);
    const options = [...answers.values()].map((answer) => element("div", "bb-option", answer));
    return element("div", "bb-options", input, ...options);
  },
  picked: ({ form }) => form.querySelector(".bb-typed").value.trim(),
  set({ form }, picked) {
    form.querySelector(".bb-typed").value = picked;
  },
  empty: "",
  fits: (_, picked) => typeof picked === "string",
  // Judged once: "12,345" is another number in the other language.
  keepsVerdict: true,
  isRight: (question, picked) => question.right.some((x) => typed.isMine(question, picked, x)),
  isMine: ({ answers }, picked, letter) => normal(typed.text(answers, letter)) === normal(picked),
  text: (answers, letter) => answers.get(letter).querySelector(".bb-answer__text").textContent.trim(),
  truth: ({ right, answers }) => right.map((letter) => typed.text(answers, letter)).join(" / "),
};

const order = {
  make(question) {
    const list = element("ol", "bb-options");
    for (const [letter, item] of question.items) {
      const text = element("span", "bb-option__text", ...item.childNodes);
      const row = element("div", "bb-option__choice");
      const moves = piece("moves");
      row.append(element("span", "bb-option__letter", letter), text, moves);
      const option = element("li", "bb-option", row, question.answers.get(letter));
      for (const button of moves.children) {
        button.setAttribute("aria-label", `${button.title}: ${text.textContent.trim()}`);
        button.addEventListener("click", () => order.move(question, option, button));
      }
      list.append(option);
    }
    return list;
  },
  move({ form }, option, button) {
    const other = button.dataset.move === "up" ? option.previousElementSibling : option.nextElementSibling;
    if (!other) return;
    if (button.dataset.move === "up") other.before(option);
    else other.after(option);
    button.focus(); // moving an element takes its focus away
    const place = [...option.parentElement.children].indexOf(option) + 1;
    const text = option.querySelector(".bb-option__text").textContent.trim();
    form.querySelector('[role="status"]').textContent = fill(words.moved, { text, place });
  },
  picked: ({ form }) => [...form.querySelectorAll(".bb-option .bb-answer")].map((x) => x.dataset.option),
  set({ form, answers, items }, picked) {
    const list = form.querySelector(".bb-options");
    for (const letter of picked.length ? picked : items.keys()) list.append(answers.get(letter).parentElement);
  },
  empty: [],
  fits: ({ right }, picked) => Array.isArray(picked) && same([...picked].sort(), [...right].sort()),
  isRight: ({ right }, picked) => same(picked, right),
  isMine: () => false,
  isInPlace: ({ right }, picked, letter) => picked.indexOf(letter) === right.indexOf(letter),
  truth: ({ right }) => right.join(", "),
};

window.blackbeltQuestions = {
  kinds: { one: choice("radio"), many: choice("checkbox"), type: typed, order },
  element,
  fill,
  piece,
  words,
};
