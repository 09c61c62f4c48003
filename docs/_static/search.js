// A search shows the pages that have all of its words. This adds those that have half of them or more, further down.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const exact = Search.performTermsSearch;
  Search.performTermsSearch = (terms, excluded) => {
    const found = exact(terms, excluded);
    const known = new Set(found.map((result) => result[0]));
    const others = new Map();
    for (const term of terms) {
      for (const result of exact(new Set([term]), excluded)) {
        const before = others.get(result[0]) ?? { result, words: 0, score: 0 };
        others.set(result[0], { result, words: before.words + 1, score: before.score + result[4] });
      }
    }
    for (const [page, { result, words, score }] of others) {
      if (!known.has(page) && 2 * words >= terms.size) {
        found.push(result.with(4, words / terms.size - 1 + score / 1e6));
      }
    }
    return found;
  };
});
