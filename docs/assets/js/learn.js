// Questions: what reads as options and a fold without this script becomes a form in which the
// reader commits to an answer, and then sees of every option whether it is right, and why.

const { kinds, element, fill, piece, words } = window.blackbeltQuestions;
const store = window.blackbeltProgress;
const number = document.getElementById("bb-learn")?.dataset.lesson;

function read(box) {
  const answers = new Map([...box.querySelectorAll(".bb-answer")].map((x) => [x.dataset.option, x]));
  const items = [...box.querySelectorAll(".bb-question__options > ol > li")];
  const isRight = (x) => x.classList.contains("bb-answer--right");
  return {
    box,
    id: box.dataset.question,
    kind: kinds[box.dataset.kind],
    name: box.dataset.kind,
    answers,
    items: new Map(items.map((item, index) => ["ABCDEFGH"[index], item])),
    right: [...answers.values()].filter(isRight).map((x) => x.dataset.option),
    help: box.querySelector(".bb-question__help"),
    quiz: box.closest(".bb-quiz"),
  };
}

function make(question) {
  const { box, id, kind } = question;
  const form = (question.form = piece("form"));
  const field = form.querySelector("fieldset");
  const label = box.querySelector(".bb-question__label");
  const legend = field.querySelector("legend");
  legend.textContent = label.textContent;
  legend.id = `legend-${id}`;
  const text = label.nextElementSibling;
  text.id = `text-${id}`;
  field.setAttribute("aria-labelledby", `${legend.id} ${text.id}`);
  label.remove();
  const list = box.querySelector(".bb-question__options");
  const fold = box.querySelector(".bb-question__answers");
  const controls = kind.make(question);
  list?.remove();
  fold.remove();
  legend.after(...box.childNodes, controls);
  box.append(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    commit(question);
  });
  const again = form.querySelector("[data-again]");
  again.addEventListener("click", () => forget(question));
  if (question.quiz) again.remove();
}

function commit(question) {
  const { form, kind } = question;
  const picked = kind.picked(question);
  if (!picked.length) {
    say(form, words.nothing);
    form.querySelector(".bb-options input").focus();
    return;
  }
  const answer = { picked, right: kind.isRight(question, picked), at: store.now() };
  store.change(number, (lesson) => {
    lesson.questions[question.id] = answer;
  });
  // The reasons have grown above it: let the reader stay where they read.
  form.querySelector('[role="status"]').focus({ preventScroll: true });
}

function forget(question) {
  store.change(number, (lesson) => {
    delete lesson.questions[question.id];
  });
  question.form.querySelector(".bb-options :is(input, button)").focus();
}

function say(form, text, kind = "") {
  const result = form.querySelector('[role="status"]');
  if (result.textContent !== text) result.textContent = text;
  result.dataset.kind = kind;
}

// Shows a question as it stands in the reader's progress: open, or answered.
function show(question) {
  const { form, kind, answers, box } = question;
  const known = store.lesson(number).questions[question.id];
  // An author may have changed the options since.
  const answer = known?.picked.length && kind.fits(question, known.picked) ? known : null;
  const shown = answer ? JSON.stringify(answer) : "";
  if (box.dataset.shown === shown) return; // what the reader is about to pick stays
  box.dataset.shown = shown;
  kind.set(question, answer ? answer.picked : kind.empty);
  box.classList.toggle("bb-question--answered", Boolean(answer));
  form.querySelector('[type="submit"]').hidden = Boolean(answer);
  const again = form.querySelector("[data-again]");
  if (again) again.hidden = !answer;
  for (const control of form.querySelectorAll(".bb-options :is(input, button)")) control.disabled = Boolean(answer);
  for (const letter of answers.keys()) mark(question, letter, answer?.picked);
  if (!answer) return say(form, "");
  const right = kind.keepsVerdict ? answer.right : kind.isRight(question, answer.picked);
  const result = right ? words.right : fill(words.wrong, { truth: kind.truth(question) });
  say(form, result, right ? "right" : "wrong");
}

// Says of an option whether it is right, in words and with a sign.
function mark(question, letter, picked) {
  const { kind, answers } = question;
  const reason = answers.get(letter);
  const option = reason.parentElement;
  reason.hidden = !picked;
  reason.querySelector(".bb-answer__note")?.remove();
  delete option.dataset.state;
  if (!picked) return;
  const right = kind.isInPlace?.(question, picked, letter) ?? question.right.includes(letter);
  option.dataset.state = right ? "right" : "wrong";
  const mine = kind.isMine(question, picked, letter) && words.mine;
  const note = kind.isInPlace ? (right ? words.inPlace : words.outOfPlace) : mine;
  if (note) reason.querySelector(".bb-answer__verdict").append(element("span", "bb-answer__note", note));
}

// A quiz is scored when all of its questions are answered; the best score stays.
function makeQuiz(box, questions) {
  const score = piece("score");
  box.append(score);
  score.querySelector("[data-again]").addEventListener("click", () => {
    store.change(number, (lesson) => {
      for (const { id } of questions) delete lesson.questions[id];
    });
    questions[0].form.querySelector(".bb-options :is(input, button)").focus();
  });
  return { id: box.dataset.quiz, score, questions };
}

function showQuiz({ id, score, questions }) {
  const known = store.lesson(number);
  const answered = questions.filter(({ box }) => box.dataset.shown);
  const right = answered.filter(({ form }) => form.querySelector('[data-kind="right"]')).length;
  const of = questions.length;
  const done = answered.length === of;
  const best = Math.max(done ? right : 0, known.quizzes[id]?.of === of ? known.quizzes[id].best : 0);
  const text = fill(done ? score.dataset.done : score.dataset.open, { answered: answered.length, right, of, best });
  const status = score.querySelector('[role="status"]');
  if (status.textContent !== text) status.textContent = text;
  score.querySelector("[data-again]").hidden = !done;
  if (done && (known.quizzes[id]?.best !== best || known.quizzes[id].of !== of)) {
    store.change(number, (lesson) => {
      lesson.quizzes[id] = { best, of, at: store.now() };
    });
  }
}

if (number && words) {
  const all = [...document.querySelectorAll(".bb-question")].map(read);
  all.forEach(make);
  const quizzes = [...document.querySelectorAll(".bb-quiz")].map((box) =>
    makeQuiz(box, all.filter(({ quiz }) => quiz === box)),
  );
  const render = () => {
    all.forEach(show);
    quizzes.forEach(showQuiz);
  };
  store.onChange(render);
  render();
}
