// What the search finds and in which order. Pagefind knows the words of every section; pages and
// their order are made of that here. Loaded when somebody opens the search (search.js).

// Pages that are shown, and how many sections of each: every section is one download.
const PAGES = 8;
const SECTIONS = [3, 3, 2];
// Words of an excerpt, and those before its first hit.
const EXCERPT = 28;
const BEFORE = 5;
// A query of so many words is a pasted text: a page may lack some, and their order counts.
const PASTED = 5;
// Each may be another piece of the index to download: of a pasted text the longest words tell enough.
const MOST_TERMS = 6;
// Shares of a query's weight that a page must have to be shown although it lacks words.
const ENOUGH = 0.45;

const COMMON = new Set(
  ("a an and are as at be but by can for from has have in is it its must not of on or that the this to was with you " +
    "ale byc co czy dla do i ich ile jak jest juz lub ma mi na nad nie niz o od oraz po pod przed przez przy sa sie ta tak te tego tej ten to tu tylko tym w we z za ze zeby").split(" "),
);

// The same folding as in the index; there the Polish l stands with a mark, which falls off, too.
const fold = (text) => text.toLowerCase().replaceAll("ł", "l").normalize("NFD").replace(/\p{M}/gu, "");
// As it was written: names in code are words of their own in the index.
const written = (text) => text.replace(/\u2060 ?/g, "").replaceAll("l\u0335", "ł").replaceAll("L\u0335", "Ł");
const wordsOf = (text) => fold(text).match(/[\p{L}\p{N}_]+/gu) ?? [];
const isNumber = (word) => /^\d/.test(word);

// Pagefind folds before it finds stems, so its stemmer never sees the genitive "gradientów".
const withoutGenitive = (word) => word.replace(/^(\p{L}{4,})ow$/u, "$1");

// Lessons are written in British English, and names in code in American.
const otherSpelling = (word) => word.replace(/i([sz])(?=e|ing|ation)/, (_, letter) => (letter === "s" ? "iz" : "is"));

function termsOf(query, language) {
  const words = [...new Set(wordsOf(query))];
  const telling = words.filter((word) => word.length > 1 && !COMMON.has(word) && !isNumber(word));
  const terms = telling.length ? telling : words;
  const longest = [...terms].sort((a, b) => b.length - a.length).slice(0, MOST_TERMS);
  const kept = terms.filter((word) => longest.includes(word));
  return [...new Set(language === "pl" ? kept.map(withoutGenitive) : kept)];
}

// A word that Pagefind does not know is shortened by it until something begins with it: is there
// enough of the word in what was found?
const isMeant = (term, found) => fold(found).includes(term.slice(0, Math.max(3, term.length - 4)));

const pairsOf = (words) => {
  const telling = words.filter((word) => !isNumber(word));
  return telling.slice(1).map((word, index) => `${telling[index]} ${word}`);
};

function excerptOf(tokens, weights, first) {
  const sumFrom = (start) => {
    let sum = 0;
    for (let i = start; i < start + EXCERPT; i++) sum += weights.get(i) ?? 0;
    return sum;
  };
  const starts = [...weights.keys()].filter((place) => place >= first).sort((a, b) => a - b);
  let best = first;
  let most = 0;
  for (const place of starts) {
    const start = Math.max(first, place - BEFORE);
    const sum = sumFrom(start);
    if (sum > most) [best, most] = [start, sum];
  }
  const end = Math.min(tokens.length, best + EXCERPT);
  const parts = tokens.slice(best, end).map((token, i) => {
    // The punctuation around a word is not what was found.
    const [, before, word, after] = /^([^\p{L}\p{N}_]*)(.*?)([^\p{L}\p{N}_]*)$/u.exec(written(token));
    const space = token.endsWith("\u2060") ? "" : " ";
    if (weights.has(best + i)) return { before, word, after: after + space };
    return { before: before + word + after + space };
  });
  if (best > first) parts.unshift({ before: "… " });
  if (end < tokens.length) parts.push({ before: "…" });
  return parts;
}

// Pagefind names records by language and hash.
const recordOf = (result) => result.id.replace(/^.*_/, "");

class Section {
  constructor(page) {
    this.page = page;
    this.scores = new Map();
    this.places = new Map();
    this.bonus = 1;
  }

  add(term, result) {
    this.scores.set(term, result.score);
    this.places.set(term, result.words);
    this.fetch = async () => {
      const { content, url, meta } = await result.data();
      this.tokens = content.split(/\s+/);
      this.anchor = /\/\d+\/([^/]+)\.html$/.exec(url)?.[1] ?? "";
      const title = meta.heading ?? meta.title;
      this.title = written(title);
      this.beginning = title.split(/\s+/).length;
    };
  }

  score(weights) {
    let sum = 0;
    let covered = 0;
    for (const [term, score] of this.scores) {
      sum += score;
      covered += weights.get(term);
    }
    return sum * (covered / weights.total) ** 2 * this.bonus;
  }

  excerpt(weights) {
    const places = new Map();
    for (const [term, words] of this.places) {
      for (const place of words) places.set(place, weights.get(term));
    }
    return excerptOf(this.tokens, places, this.beginning);
  }
}

class Page {
  constructor([address, title, boost]) {
    Object.assign(this, { address, title, boost, sections: new Set(), bonus: 1 });
  }

  // How much of the query, by the weight of its words, is anywhere on the page.
  coverage(weights) {
    const terms = new Set([...this.sections].flatMap((section) => [...section.scores.keys()]));
    return [...terms].reduce((sum, term) => sum + weights.get(term), 0) / weights.total;
  }

  // What the page says on each word in its best section, and what one section says on all of them.
  score(weights) {
    let sum = 0;
    for (const term of weights.keys()) {
      const scores = [...this.sections].map((section) => section.scores.get(term) ?? 0);
      const best = Math.max(0, ...scores);
      const others = scores.reduce((all, score) => all + score, 0) - best;
      sum += best + Math.min(best, others * 0.1);
    }
    const together = Math.max(0, ...[...this.sections].map((section) => section.score(weights)));
    return this.boost * this.bonus * (sum + together) * this.coverage(weights) ** 2;
  }

  best(weights) {
    return [...this.sections].sort((a, b) => b.score(weights) - a.score(weights));
  }
}

class Engine {
  constructor(pagefind, map, language) {
    Object.assign(this, { pagefind, map, language });
    this.pageOf = new Map();
    for (const page of Object.values(map)) {
      for (const record of page[3]) this.pageOf.set(record, page);
    }
  }

  async find(query) {
    const terms = termsOf(query, this.language);
    const found = new Map(await Promise.all(terms.map(async (term) => [term, await this.sectionsWith(term)])));
    const weights = this.weights(found);
    let pages = this.collect(found);
    const pasted = terms.length >= PASTED;
    const whole = pages.filter((page) => page.coverage(weights) > 0.999);
    const least = pasted ? ENOUGH : whole.length ? 0.999 : ENOUGH;
    pages = pages.filter((page) => page.coverage(weights) >= least);
    pages = this.sorted(pages, weights);
    if (pasted) pages = await this.compared(pages, query, weights);
    return { total: pages.length, all: whole.length > 0, pages: await this.described(pages, weights) };
  }

  async sectionsWith(term) {
    const found = await this.sectionsSaying(term);
    const other = this.language === "en" ? otherSpelling(term) : term;
    return found.length || other === term ? found : this.sectionsSaying(other);
  }

  async sectionsSaying(term) {
    const [whole, begun] = await Promise.all([this.ask(`"${term}"`), this.ask(term)]);
    if (whole.length || !begun.length) return begun;
    // No section has the word itself: it is the beginning of one, or Pagefind has shortened it.
    const { content } = await begun[0].data();
    const tokens = content.split(/\s+/);
    return begun[0].words.some((place) => isMeant(term, tokens[place] ?? "")) ? begun : [];
  }

  // An index that is newer than the map may have sections that it does not know.
  async ask(term) {
    const { results } = await this.pagefind.search(term);
    return results.filter((result) => this.pageOf.has(recordOf(result)));
  }

  // Words that few sections have tell most. A word that none has may be the reader's own: half.
  weights(found) {
    const count = this.pageOf.size;
    const weigh = (length) => (length ? Math.log(1 + (count - length + 0.5) / (length + 0.5)) : 0);
    const weights = new Map([...found].map(([term, { length }]) => [term, weigh(length)]));
    const rarest = Math.max(...weights.values());
    for (const [term, weight] of weights) weights.set(term, weight || rarest / 2);
    weights.total = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
    return weights;
  }

  collect(found) {
    const pages = new Map();
    const sections = new Map();
    for (const [term, results] of found) {
      for (const result of results) {
        const known = this.pageOf.get(recordOf(result));
        if (!pages.has(known)) pages.set(known, new Page(known));
        const page = pages.get(known);
        if (!sections.has(result.id)) sections.set(result.id, new Section(page));
        const section = sections.get(result.id);
        section.add(term, result);
        page.sections.add(section);
      }
    }
    return [...pages.values()];
  }

  sorted(pages, weights) {
    const scores = new Map(pages.map((page) => [page, page.score(weights)]));
    return [...pages].sort((a, b) => scores.get(b) - scores.get(a));
  }

  // Of a pasted text it matters whether its words stand in its order.
  async compared(pages, query, weights) {
    const asked = pairsOf(wordsOf(query));
    for (const page of pages.slice(0, PAGES)) {
      for (const section of page.best(weights).slice(0, 2)) {
        await section.fetch();
        const pairs = new Set(pairsOf(section.tokens.flatMap(wordsOf)));
        const share = asked.filter((pair) => pairs.has(pair)).length / asked.length;
        section.bonus = 1 + 4 * share;
        page.bonus = Math.max(page.bonus, section.bonus);
      }
    }
    return this.sorted(pages, weights);
  }

  async described(pages, weights) {
    const shown = pages.slice(0, PAGES).map((page, index) => {
      const best = page.best(weights);
      const enough = best[0].score(weights) * 0.2;
      const sections = best.filter((section) => section.score(weights) >= enough);
      return { page, sections: sections.slice(0, SECTIONS[index] ?? 1) };
    });
    await Promise.all(shown.flatMap(({ sections }) => sections.map((section) => section.tokens ?? section.fetch())));
    return shown.map(({ page, sections }) => ({
      address: page.address,
      title: page.title,
      hits: sections.map((section) => ({
        anchor: section.anchor,
        title: section.title,
        excerpt: section.excerpt(weights),
      })),
    }));
  }
}

export async function load(bundle, language) {
  const pagefind = await import(`${bundle}pagefind.js`);
  // Without a worker: it would be another 12 KB, and a search takes milliseconds.
  await pagefind.options({
    noWorker: true,
    // Sections are of all lengths, and the shortest (terms of the glossary) must not always win.
    ranking: { pageLength: 0.2, diacriticSimilarity: 0, metaWeights: { title: 5, heading: 1.5 } },
  });
  const [answer] = await Promise.all([
    fetch(`${bundle}sections.${language}.json`, { cache: "no-cache" }),
    pagefind.init(),
  ]);
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
  return new Engine(pagefind, await answer.json(), language);
}
