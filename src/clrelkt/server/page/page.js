"use strict";

// All that comes from the server or the address is put in as text, never as markup.

const STEP = 10;
const AROUND = 220; // Characters that are shown before and behind the highlighted sentence.
const WAITING_MS = 180; // A search that is quicker shows no placeholders.

const at = (id) => document.getElementById(id);
const form = at("form");
const box = at("question");
const problem = at("problem");
const status = at("status");
const results = at("results");
const answerPlace = at("answer");
const reader = at("reader");
const languageNames = new Intl.DisplayNames(["en"], { type: "language" });

let health = null;
let running = null; // The AbortController of the search under way.
let shown = null; // The state whose hits are on the page, as text.
let opener = null; // What had the focus before a document was opened.

// Elements

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "lang" && name !== "dir") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Mark the language and direction of an element whose text is in `language`. */
function inLanguage(element, language) {
  if (language) element.lang = language;
  element.dir = "auto";
  return element;
}

function nameOf(language) {
  try {
    return languageNames.of(language) ?? language;
  } catch {
    return language;
  }
}

const titleOf = (document_) => (document_.title || document_.id || document_.document_id).replaceAll("_", " ");
const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

// The state of the page is its address.

function readState() {
  const query = new URLSearchParams(location.search);
  const k = Number.parseInt(query.get("k") ?? "", 10);
  return {
    q: query.get("q") ?? "",
    by: query.get("by") === "passage" ? "passage" : "document",
    languages: (query.get("languages") ?? "").split(",").filter((code) => /^[a-z]{2}$/.test(code)),
    k: Number.isFinite(k) && k > 0 ? Math.min(k, 1000) : STEP,
    document: query.get("document") ?? "",
    passage: query.get("passage") ?? "",
  };
}

function addressOf(state) {
  const query = new URLSearchParams();
  if (state.q) query.set("q", state.q);
  if (state.by !== "document") query.set("by", state.by);
  if (state.languages.length) query.set("languages", state.languages.join(","));
  if (state.k !== STEP) query.set("k", state.k);
  if (state.document) query.set("document", state.document);
  if (state.passage) query.set("passage", state.passage);
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

function go(state) {
  const address = addressOf(state);
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
  show();
}

function stateOfForm() {
  const languages = [...form.querySelectorAll("input[name=language]:checked")].map((input) => input.value);
  return { q: box.value.trim(), by: form.elements.by.value, languages, k: STEP, document: "", passage: "" };
}

function fillForm(state) {
  box.value = state.q;
  form.elements.by.value = state.by;
  for (const input of form.querySelectorAll("input[name=language]")) {
    input.checked = state.languages.includes(input.value);
  }
}

// The server

class RefusedError extends Error {}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: { accept: "application/json" }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RefusedError("The server cannot be reached. Is it still running?");
  }
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RefusedError(`The server answered with something else than JSON (status ${response.status}).`);
  }
  if (!response.ok) throw new RefusedError(body.message ?? `Status ${response.status}.`);
  return body;
}

function searchFor(state, answers, signal) {
  const request = { question: state.q, k: state.k, by: state.by, answers };
  if (state.languages.length) request.languages = state.languages;
  return ask("/search", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
}

// Showing

async function show() {
  const state = readState();
  fillForm(state);
  document.body.classList.toggle("asked", Boolean(state.q));
  document.title = state.q ? `${state.q} – clrelkt` : "Ask in any language";
  const search = addressOf({ ...state, document: "", passage: "" });
  if (search !== shown) await showHits(state, search);
  await showDocument(state);
}

async function showHits(state, search) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  shown = search;
  problem.hidden = true;
  answerPlace.hidden = true;
  if (!state.q) {
    status.textContent = "";
    await welcome(signal);
    return;
  }
  const waiting = setTimeout(() => showWaiting(), WAITING_MS);
  results.setAttribute("aria-busy", "true");
  try {
    const found = await searchFor(state, false, signal);
    clearTimeout(waiting);
    drawHits(state, found);
    if (health?.reader && found.hits.length) {
      status.textContent += " Looking for the answer…";
      const read = await searchFor(state, true, signal);
      drawHits(state, read);
      drawAnswer(state, read.hits);
    }
  } catch (error) {
    clearTimeout(waiting);
    if (error.name === "AbortError") return;
    shown = null;
    drawFailure(error);
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

function showWaiting() {
  status.textContent = "Searching…";
  const bones = () => [1, 2, 3].map(() => make("div", { className: "bone" }));
  const cards = [1, 2, 3].map(() => make("div", { className: "hit" }, ...bones()));
  results.replaceChildren(make("div", { className: "hits waiting", "aria-hidden": "true" }, ...cards));
}

async function welcome(signal) {
  results.replaceChildren();
  try {
    const [list] = await Promise.all([ask("/documents?count=8", { signal }), known]);
    const languages = Object.keys(health?.languages ?? {}).map(nameOf);
    const inThem = languages.length && languages.length < 4 ? ` in ${languages.join(" and ")}` : "";
    const text = health
      ? `${counted(health.passages, "passage")} of ${counted(health.documents, "document")}${inThem} are here to be found.`
      : "";
    const titles = list.shown.map((entry) => {
      const link = make("a", { href: addressOf({ ...readState(), document: entry.id }) }, titleOf(entry));
      inLanguage(link, entry.language);
      link.addEventListener("click", (event) => openDocument(event, entry.id, ""));
      return make("li", {}, link);
    });
    results.replaceChildren(
      make("div", { className: "welcome" }, make("p", {}, text), make("ul", { className: "titles" }, ...titles)),
    );
  } catch (error) {
    if (error.name !== "AbortError") drawFailure(error);
  }
}

function drawHits(state, found) {
  const many = found.hits.length;
  if (!many) {
    status.textContent = "Nothing found.";
    const filtered = state.languages.length > 0;
    const advice = filtered
      ? `No document in ${state.languages.map(nameOf).join(" or ")} has been found.`
      : "There is nothing in this index yet.";
    const notice = make("div", { className: "notice" }, make("h2", {}, "Nothing found"), make("p", {}, advice));
    if (filtered) {
      const all = make("button", { className: "onward", type: "button" }, "Search in all languages");
      all.addEventListener("click", () => go({ ...state, languages: [] }));
      notice.append(all);
    }
    results.replaceChildren(notice);
    return;
  }
  const milliseconds = Math.max(1, Math.round(found.seconds * 1000));
  status.textContent = `${counted(many, state.by === "document" ? "document" : "passage")} in ${milliseconds} ms.`;
  const focused = results.contains(document.activeElement) ? document.activeElement.dataset.passage : null;
  const best = Math.max(...found.hits.map((hit) => hit.score), 1e-9);
  const list = make("ol", { className: "hits" }, ...found.hits.map((hit) => drawHit(state, hit, best)));
  results.replaceChildren(list);
  const limit = health?.max_hits ?? 100;
  if (many === state.k && state.k < limit) {
    const more = make("button", { className: "onward", type: "button" }, "Show more");
    more.addEventListener("click", () => go({ ...state, k: Math.min(state.k + STEP, limit) }));
    results.append(more);
  }
  if (focused) titles().find((link) => link.dataset.passage === focused)?.focus();
}

function drawHit(state, hit, best) {
  const link = make("a", { className: "title" }, titleOf(hit));
  link.href = addressOf({ ...state, document: hit.document_id, passage: hit.passage_id });
  link.dataset.passage = hit.passage_id;
  link.addEventListener("click", (event) => openDocument(event, hit.document_id, hit.passage_id));
  const score = make("span", { className: "score", title: "Similarity to the question" });
  score.style.setProperty("--share", Math.max(0, Math.min(1, hit.score / best)).toFixed(3));
  score.append(make("span", { className: "unseen" }, "Score "), hit.score.toFixed(3));
  const about = make("div", { className: "about" });
  if (hit.language) about.append(make("span", {}, nameOf(hit.language)));
  about.append(score);
  const heading = make("h2", {}, link);
  inLanguage(heading, hit.language);
  const article = make(
    "article",
    { className: "hit" },
    make("div", { className: "head" }, heading, about),
    ...drawText(hit),
  );
  const metadata = Object.entries(hit.metadata);
  if (metadata.length) {
    const rows = metadata.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, String(value))));
    article.append(make("dl", { className: "data", dir: "auto" }, ...rows));
  }
  return make("li", {}, article);
}

function drawText(hit) {
  const paragraph = inLanguage(make("p", { className: "text" }), hit.language);
  // The server counts Unicode code points, JavaScript halves of surrogate pairs.
  const characters = Array.from(hit.text);
  const sentence = hit.highlights[0] ?? hit.answer ?? { start: 0, stop: 0 };
  const first = Math.min(sentence.start, hit.answer?.start ?? sentence.start);
  const last = Math.max(sentence.stop, hit.answer?.stop ?? sentence.stop);
  const from = wordEdge(characters, Math.max(0, first - AROUND), -1);
  const to = wordEdge(characters, Math.min(characters.length, last + AROUND), 1);
  const draw = (start, stop) => {
    paragraph.replaceChildren();
    if (start > 0) paragraph.append("… ");
    paragraph.append(...marked(characters, hit, start, stop));
    if (stop < characters.length) paragraph.append(" …");
  };
  draw(from, to);
  if (from === 0 && to === characters.length) return [paragraph];
  const more = make("button", { className: "more", type: "button", "aria-expanded": "false" }, "Whole passage");
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "Less" : "Whole passage";
    draw(open ? 0 : from, open ? characters.length : to);
  });
  return [paragraph, more];
}

/** Return a place near `place` between words; where words have no spaces, the place itself. */
function wordEdge(characters, place, direction) {
  if (place <= 0 || place >= characters.length) return place;
  for (let step = 0; step < 30; step += 1) {
    const here = place + step * direction;
    if (here <= 0) return 0;
    if (here >= characters.length) return characters.length;
    if (/\s/.test(characters[direction < 0 ? here - 1 : here])) return here;
  }
  return place;
}

/** Return the characters from `start` to `stop`, in pieces: plain, highlighted, answer. */
function marked(characters, hit, start, stop) {
  const spans = hit.highlights.map(({ start: a, stop: b }) => [a, b, ""]);
  if (hit.answer) spans.push([hit.answer.start, hit.answer.stop, "said"]);
  const edges = new Set([start, stop]);
  for (const [a, b] of spans) {
    for (const edge of [a, b]) if (edge > start && edge < stop) edges.add(edge);
  }
  const places = [...edges].sort((a, b) => a - b);
  return places.slice(0, -1).map((place, number) => {
    const text = characters.slice(place, places[number + 1]).join("");
    const over = spans.filter(([a, b]) => a <= place && place < b);
    if (!over.length) return text;
    return make("mark", { className: over.some((span) => span[2]) ? "said" : "" }, text);
  });
}

function drawAnswer(state, hits) {
  const answered = hits.filter((hit) => hit.answer);
  const best = answered.reduce(
    (left, right) => (left && left.answer.probability >= right.answer.probability ? left : right),
    null,
  );
  if (!best) return;
  const link = make("a", {}, titleOf(best));
  link.href = addressOf({ ...state, document: best.document_id, passage: best.passage_id });
  link.addEventListener("click", (event) => openDocument(event, best.document_id, best.passage_id));
  const long = best.answer.text.length > 90 ? " long" : "";
  const said = make("p", { className: `said${long}` }, best.answer.text);
  answerPlace.replaceChildren(
    make("h2", {}, "Answer"),
    inLanguage(said, best.language),
    make("p", { className: "from" }, "from ", inLanguage(link, best.language)),
  );
  answerPlace.hidden = false;
}

function drawFailure(error) {
  status.textContent = "";
  const message = error instanceof RefusedError ? error.message : "The page could not show what was found.";
  const again = make("button", { className: "onward", type: "button" }, "Try again");
  again.addEventListener("click", () => {
    shown = null;
    show();
  });
  results.replaceChildren(
    make(
      "div",
      { className: "notice bad", role: "alert" },
      make("h2", {}, "That did not work"),
      make("p", { dir: "auto" }, message),
      again,
    ),
  );
}

// A whole document

function openDocument(event, id, passage) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  opener = document.activeElement;
  go({ ...readState(), document: id, passage });
}

async function showDocument(state) {
  if (!state.document) {
    if (reader.open) reader.close();
    return;
  }
  const text = at("reader-text");
  const title = at("reader-title");
  title.textContent = "…";
  text.replaceChildren();
  if (!reader.open) reader.showModal();
  try {
    const found = await ask(`/documents/${encodeURIComponent(state.document)}`);
    if (readState().document !== state.document) return;
    title.textContent = titleOf(found);
    inLanguage(title, found.language);
    for (const passage of found.passages) {
      const paragraph = inLanguage(make("p", {}, passage.text), found.language);
      text.append(paragraph);
      if (passage.id === state.passage) {
        paragraph.classList.add("found");
        paragraph.scrollIntoView({ block: "center" });
      }
    }
    text.focus({ preventScroll: true });
  } catch (error) {
    title.textContent = "This document cannot be shown";
    text.replaceChildren(make("p", { dir: "auto" }, error.message));
  }
}

function closeDocument() {
  const state = readState();
  if (state.document) go({ ...state, document: "", passage: "" });
  else reader.close();
}

reader.addEventListener("cancel", (event) => {
  event.preventDefault();
  closeDocument();
});
reader.addEventListener("click", (event) => {
  if (event.target === reader) closeDocument();
});
reader.addEventListener("close", () => {
  if (opener?.isConnected) opener.focus();
  opener = null;
});
at("close").addEventListener("click", closeDocument);

// Asking

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const state = stateOfForm();
  if (!state.q) {
    box.focus();
    return;
  }
  const limit = health?.max_question ?? 1000;
  const length = Array.from(state.q).length;
  if (length > limit) {
    problem.textContent = `The question has ${length} characters; at most ${limit} are possible.`;
    problem.hidden = false;
    return;
  }
  if (addressOf(state) === shown) shown = null; // Asked again: searched again.
  go(state);
});

form.addEventListener("change", (event) => {
  if (event.target === box) return;
  const { q } = readState();
  if (q) go({ ...stateOfForm(), q });
});

at("home").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go({ ...stateOfForm(), q: "", languages: [], by: "document" });
  box.focus();
});

window.addEventListener("popstate", show);

// Keys

const titles = () => [...results.querySelectorAll("a.title, .titles a")];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || reader.open) return;
  const typing = event.target === box;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "Escape") {
    if (typing) box.value = "";
    box.focus();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    move(event, event.key === "ArrowDown" ? 1 : -1);
  }
});

function move(event, direction) {
  const inFilters = event.target.matches?.(".filters input");
  const links = titles();
  if (!links.length || inFilters) return;
  const here = links.indexOf(document.activeElement);
  if (here < 0 && direction < 0) return;
  event.preventDefault();
  const next = here + direction;
  if (next < 0) box.focus();
  else links[Math.min(next, links.length - 1)].focus();
  document.activeElement.closest(".hit")?.scrollIntoView({ block: "nearest" });
}

// What is served

function drawLanguages() {
  const place = at("languages");
  const entries = Object.entries(health.languages).filter(([code]) => code);
  if (entries.length < 2) return;
  entries.sort((left, right) => right[1] - left[1]);
  for (const [code, count] of entries) {
    const id = `language-${code}`;
    const input = make("input", { type: "checkbox", name: "language", value: code, id });
    const label = make("label", { htmlFor: id }, nameOf(code), make("small", {}, count.toLocaleString("en")));
    place.append(input, label);
  }
  place.hidden = false;
}

const known = ask("/healthz")
  .then((found) => {
    health = found;
    drawLanguages();
    fillForm({ ...readState(), q: box.value || readState().q });
    at("served").textContent = `Version ${found.version} of the index, encoder ${found.encoder}.`;
  })
  .catch(() => {}); // The search itself will say what is wrong.

known.then(show);
if (!readState().q) box.focus();
