// The table of latents: only the rows in sight exist, so that a dictionary of any size sorts and scrolls at once.
// Its state stands in the address (#q=bank&o=good&s=score&d=desc), so that a view can be sent to somebody.
"use strict";
(() => {
  const data = window.atlasLatents, table = document.querySelector("#table");
  if (!data || !table) return;
  const ROW = 34, SPARE = 8, n = data.label.length;
  const pages = data.page === "all" ? null : new Set(data.page);
  const index = Array.from({length: n}, (_, i) => i);
  const number = (value) => value === null ? "–" : value === 0 || Math.abs(value) >= 0.001 ? String(value) : value.toExponential(1);
  const share = (value) => value === null ? "–" : value === 0 ? "0 %" : `${Number((100 * value).toPrecision(2))} %`;
  // key, name, values, as text (null: they are text), first direction, shown on a phone, what it is
  const COLUMNS = [
    ["id", "latent", index, String, 1, true, "number of the latent"],
    ["outcome", "outcome", data.outcome, null, 1, false, "regime of the latent"],
    ["label", "label", data.label, null, 1, true, "what it is said to mean"],
    ["score", "score", data.score, number, -1, true, "AUC of the label on random negatives; chance is .5"],
    ["density", "density", data.density, share, -1, true, "share of tokens on which it fires"],
    ["activation", "strongest", data.activation, number, -1, false, "strongest activation"],
    ["cosine", "nearest", data.cosine, number, -1, false, "largest decoder cosine to another latent"],
    ["coherence", "coherence", data.coherence, number, -1, false, "coherence of its contexts, z"],
    ["partner", "partner", data.partner, number, -1, false, "decoder cosine of its partner in another seed"],
    ["promoted", "promotes", data.promoted, null, 1, false, "tokens whose logits it raises most"],
  ];
  const byKey = Object.fromEntries(COLUMNS.map((column) => [column[0], column]));
  const haystack = data.label.map((label, i) => `${label} ${data.token[i]} ${data.promoted[i]} ${i}`.toLowerCase());
  const controls = Object.fromEntries(["search", "outcome", "score", "density"].map((id) => [id, document.querySelector("#" + id)]));
  const count = document.querySelector("#count");
  const collator = new Intl.Collator("en", {numeric: true, sensitivity: "base"});
  let shown = index, sort = ["id", 1], at = -1, frame = 0;

  // Control, direction and other invisible characters are shown by number, as on the pages.
  const clean = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (character) =>
    character === "\n" ? "↵" : `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;  // text is never markup
    return made;
  }

  function makeHead() {
    const head = element("div", "r top");
    head.setAttribute("role", "row");
    for (const [key, name, , form, first, phone, meaning] of COLUMNS) {
      const cell = element("div", (phone ? "k " : "") + (form && key !== "id" ? "n" : "")), button = element("button", "", name);
      cell.setAttribute("role", "columnheader");
      cell.dataset.key = key;
      button.type = "button";
      button.title = meaning;
      button.addEventListener("click", () => {
        sort = [key, sort[0] === key ? -sort[1] : first];
        update();
      });
      cell.append(button);
      head.append(cell);
    }
    return head;
  }

  function fill() {
    data.outcomes.forEach((name, i) => {
      const option = element("option", "", `${name} (${data.outcome.filter((own) => own === i).length.toLocaleString("en")})`);
      option.value = name;
      controls.outcome.append(option);
    });
    document.querySelector("#tools").hidden = false;
  }

  function filtered() {
    const words = controls.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = controls.outcome.value ? data.outcomes.indexOf(controls.outcome.value) : -1;
    const least = controls.score.value === "" ? null : Number(controls.score.value);
    const most = controls.density.value === "" ? null : Number(controls.density.value);
    return index.filter((i) => (outcome < 0 || data.outcome[i] === outcome)
      && (least === null || (data.score[i] !== null && data.score[i] >= least))
      && (most === null || data.density[i] <= most)
      && words.every((word) => haystack[i].includes(word)));
  }

  function update() {
    const [key, direction] = sort, values = byKey[key][2], text = typeof values[0] === "string";
    // What is not known comes last in either direction.
    const missing = (i) => values[i] === null || values[i] === "";
    shown = filtered().sort((a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b) || a - b;
      return direction * (text ? collator.compare(values[a], values[b]) : values[a] - values[b]) || a - b;
    });
    at = -1;
    table.scrollTop = 0;
    count.textContent = shown.length.toLocaleString("en");
    body.style.height = `${Math.max(2, shown.length) * ROW}px`;
    for (const cell of head.children) {
      cell.setAttribute("aria-sort", cell.dataset.key !== key ? "none" : direction > 0 ? "ascending" : "descending");
    }
    draw();
    remember();
  }

  function line(place) {
    const i = shown[place], linked = !pages || pages.has(i), row = element(linked ? "a" : "div", "r");
    if (linked) row.href = `latents/${i}.html`;
    row.tabIndex = -1;
    row.style.top = `${place * ROW}px`;
    row.dataset.place = place;
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", String(place + 2));
    row.setAttribute("aria-selected", String(place === at));
    for (const [key, , values, form, , phone] of COLUMNS) {
      const cell = element("div", (phone ? "k " : "") + (form && key !== "id" ? "n" : "t"));
      cell.setAttribute("role", "gridcell");
      if (key === "outcome") {
        const name = data.outcomes[values[i]], pill = element("span", `pill o-${name}`);
        pill.append(element("i", ""), document.createTextNode(name));
        cell.append(pill);
      } else {
        cell.textContent = form ? form(values[i]) : clean(values[i]);
        if (!form) cell.title = cell.textContent;
      }
      row.append(cell);
    }
    return row;
  }

  function draw() {
    frame = 0;
    const first = Math.max(0, Math.floor(table.scrollTop / ROW) - SPARE);
    const last = Math.min(shown.length, Math.ceil((table.scrollTop + table.clientHeight) / ROW) + SPARE);
    const lines = Array.from({length: Math.max(0, last - first)}, (_, i) => line(first + i));
    body.replaceChildren(...(shown.length ? lines : [nothing()]));
  }

  // What was asked for, and the way back to all latents.
  function nothing() {
    const asked = Object.entries(NAMES).filter(([id]) => controls[id].value)
      .map(([id, name]) => `${name} ${id === "search" ? `“${clean(controls[id].value)}”` : controls[id].value}`);
    const box = element("div", "empty", `None of ${n.toLocaleString("en")} latents has ${asked.join(" and ")}.`);
    const button = element("button", "", "show all");
    button.type = "button";
    button.addEventListener("click", () => {
      for (const control of Object.values(controls)) control.value = "";
      update();
      controls.search.focus();
    });
    box.setAttribute("role", "status");
    box.append(button);
    return box;
  }

  const redraw = () => { frame = frame || requestAnimationFrame(draw); };

  function select(place) {
    at = Math.max(0, Math.min(shown.length - 1, place));
    const top = at * ROW, view = table.clientHeight - 2 * ROW;
    if (top < table.scrollTop) table.scrollTop = top;
    if (top > table.scrollTop + view) table.scrollTop = top - view;
    draw();
  }

  function open() {
    const row = body.querySelector(`a[data-place="${at}"]`);
    if (row) location.href = row.href;
  }

  const NAMES = {search: "the words", outcome: "outcome", score: "score ≥", density: "density ≤"};
  const STATE = {q: "search", o: "outcome", min: "score", max: "density"};

  function remember() {
    const state = new URLSearchParams();
    for (const [key, id] of Object.entries(STATE)) if (controls[id].value) state.set(key, controls[id].value);
    if (sort[0] !== "id" || sort[1] < 0) {
      state.set("s", sort[0]);
      state.set("d", sort[1] > 0 ? "asc" : "desc");
    }
    const text = state.toString();
    if (text || isState()) history.replaceState(null, "", "#" + (text || "latents"));
  }

  const isState = () => /^#(.*&)?(q|o|min|max|s)=/.test(location.hash);

  function recall() {
    if (!isState()) return false;
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [key, id] of Object.entries(STATE)) controls[id].value = state.get(key) || "";
    sort = Object.hasOwn(byKey, state.get("s")) ? [state.get("s"), state.get("d") === "desc" ? -1 : 1] : ["id", 1];
    update();
    document.querySelector("#latents").scrollIntoView();
    return true;
  }

  const head = makeHead(), body = element("div", "body");
  body.setAttribute("role", "rowgroup");
  table.replaceChildren(head, body);
  table.setAttribute("aria-rowcount", String(n + 1));
  fill();
  for (const control of Object.values(controls)) control.addEventListener(control.matches("select") ? "change" : "input", update);
  controls.search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { controls.search.value = ""; update(); table.focus(); }
    if (event.key === "Enter" || event.key === "ArrowDown") { table.focus(); select(0); event.preventDefault(); }
  });
  table.addEventListener("scroll", redraw);
  new ResizeObserver(redraw).observe(table);
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, button") || event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = event.target === table;
    const step = {j: 1, k: -1}[event.key] || (inside && {ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15}[event.key]);
    if (step) { table.focus(); select(at + step); event.preventDefault(); }
    if (inside && event.key === "Enter") open();
  });
  window.addEventListener("hashchange", recall);
  if (!recall()) update();
})();
