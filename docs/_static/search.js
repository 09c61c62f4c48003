// A search shows the pages that have all of its words. Where there is none, show those that have most of them.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const exact = Search.performTermsSearch;
  Search.performTermsSearch = (terms, excluded) => {
    const found = exact(terms, excluded);
    if (found.length || terms.size < 2) return found;
    const pages = new Map();
    for (const term of terms) {
      for (const result of exact(new Set([term]), excluded)) {
        const known = pages.get(result[0]) ?? { result, words: 0, score: 0 };
        pages.set(result[0], { result, words: known.words + 1, score: known.score + result[4] });
      }
    }
    const most = Math.max(0, ...[...pages.values()].map((page) => page.words));
    return [...pages.values()]
      .filter((page) => page.words === most)
      .map(({ result, score }) => result.with(4, score));
  };
});
