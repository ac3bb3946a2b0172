// A sheet's marks: kept in this browser, saved as a file, scored here when all are made. Nothing is sent.
"use strict";
(() => {
  const { study, sheet, kinds } = document.body.dataset;
  const numbers = [...document.querySelectorAll(".item")].map((item) => item.dataset.item);
  const reader = document.querySelector("#reader"), message = document.querySelector("#message");
  const PLACE = `sae-atlas-reading-${sheet}`;
  let ended = false;

  const marked = (number) => document.querySelector(`input[name="vote-${number}"]:checked`);
  const named = (number) => document.querySelector(`input[name="name-${number}"]`);
  const missing = () => numbers.filter((number) => !marked(number));
  const say = (text) => { message.textContent = text; };

  function votes() {
    const found = {};
    for (const number of numbers) {
      if (marked(number)) found[number] = { vote: marked(number).value, name: named(number).value };
    }
    return { study, sheet, reader: reader.value.trim(), votes: found };
  }

  function keep() {
    document.querySelector("#progress").textContent = `${numbers.length - missing().length} of ${numbers.length} marked`;
    try { localStorage.setItem(PLACE, JSON.stringify({ ...votes(), ended })); } catch { say("This browser keeps nothing: save the file."); }
  }

  function end() {
    ended = true;
    for (const field of document.querySelectorAll(".votes input")) field.disabled = true;
  }

  function restore() {
    let kept = null;
    try { kept = JSON.parse(localStorage.getItem(PLACE)); } catch { return; }
    if (!kept || typeof kept.votes !== "object") return;
    reader.value = kept.reader || "";
    for (const [number, { vote, name }] of Object.entries(kept.votes)) {
      const field = document.querySelector(`input[name="vote-${CSS.escape(number)}"][value="${CSS.escape(vote)}"]`);
      if (field) field.checked = true;
      if (named(CSS.escape(number))) named(CSS.escape(number)).value = name || "";
    }
    if (kept.ended) end();
  }

  function complete() {
    const left = missing();
    if (left.length) {
      say(`${left.length} of ${numbers.length} are not marked, first ${left[0]}.`);
      document.querySelector(`#item-${left[0]}`).scrollIntoView();
    } else if (!reader.value.trim()) {
      say("Write your name at the top.");
      reader.focus();
    }
    return !left.length && Boolean(reader.value.trim());
  }

  function save() {
    if (!complete()) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(votes(), null, 1)], { type: "application/json" }));
    link.download = `${study}_reading_${reader.value.trim().replace(/[^A-Za-z0-9._-]+/g, "-")}.json`;
    link.click();
    say(`Saved as ${link.download}.`);
  }

  // Wilson's interval: close to the table's, which is exact, and short to write.
  function share(n, of) {
    const z = 1.96, p = n / of, middle = (p + z * z / (2 * of)) / (1 + z * z / of);
    const half = z / (1 + z * z / of) * Math.sqrt(p * (1 - p) / of + z * z / (4 * of * of));
    return `${n} of ${of} (${Math.round(100 * p)} %; about ${Math.round(100 * (middle - half))} to ${Math.round(100 * (middle + half))} %)`;
  }

  function kappa(first, second) {
    const agree = numbers.filter((number) => first(number) === second(number)).length / numbers.length;
    const rate = (clear) => numbers.filter(clear).length / numbers.length;
    const chance = rate(first) * rate(second) + (1 - rate(first)) * (1 - rate(second));
    return chance === 1 ? "not defined: one value alone" : ((agree - chance) / (1 - chance)).toFixed(2);
  }

  function table(rows) {
    const made = document.createElement("table");
    made.className = "rows";
    for (const [name, value] of rows) {
      const row = made.insertRow(), head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head);
      row.insertCell().textContent = value;
    }
    document.querySelector("#result").append(made);
  }

  const clear = (number) => marked(number)?.value === "clear";

  function score() {
    if (!complete()) return;
    end();
    keep();
    const kindOf = JSON.parse(atob(kinds)), rows = [];
    for (const kind of [...new Set(Object.values(kindOf))].sort()) {
      const own = numbers.filter((number) => kindOf[number] === kind);
      rows.push([`clear, dictionary ${kind}`, share(own.filter(clear).length, own.length)]);
    }
    document.querySelector("#result").replaceChildren();
    table(rows);
    say("Marks can no longer be changed.");
  }

  async function compare(event) {
    const file = event.target.files[0];
    if (!file || !complete()) return;
    let other = null;
    try { other = JSON.parse(await file.text()); } catch { say(`${file.name} is no JSON; expected a file that this page saved.`); return; }
    if (other?.study !== study || other?.sheet !== sheet) { say(`${file.name} is of another sheet.`); return; }
    const left = numbers.filter((number) => !other.votes?.[number]?.vote);
    if (left.length) { say(`${file.name}: ${left.length} of ${numbers.length} are not marked, first ${left[0]}.`); return; }
    table([[`Cohen's kappa with ${other.reader}, clear or not`, kappa(clear, (number) => other.votes[number].vote === "clear")]]);
  }

  document.addEventListener("input", keep);
  document.querySelector("#save").addEventListener("click", save);
  document.querySelector("#score").addEventListener("click", score);
  document.querySelector("#other").addEventListener("change", compare);
  restore();
  keep();
})();
