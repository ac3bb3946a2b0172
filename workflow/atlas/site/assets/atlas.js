// Keys on every page: moving through links, between latents, and a list of the keys. Nothing is loaded from anywhere.
"use strict";
(() => {
  const KEYS = [["← →", "latent before, latent after"], ["u", "up: all latents, or the first page"], ["/", "search latents"],
    ["j k", "down and up in a table"], ["Enter", "open"], ["g", "health"], ["?", "these keys"]];
  const follow = (selector) => {
    const link = document.querySelector(selector);
    if (link) location.href = link.href;
    return Boolean(link);
  };

  function help() {
    let box = document.querySelector("dialog");
    if (!box) {
      box = document.createElement("dialog");
      const list = document.createElement("dl");
      for (const [key, meaning] of KEYS) {
        const name = document.createElement("dt"), text = document.createElement("dd"), kbd = document.createElement("kbd");
        kbd.textContent = key;
        text.textContent = meaning;
        name.append(kbd);
        list.append(name, text);
      }
      box.append(list);
      document.body.append(box);
      box.addEventListener("click", () => box.close());
    }
    if (box.open) box.close(); else box.showModal();
    return true;
  }

  function move(step) {
    const links = [...document.querySelectorAll(".saes tbody th a")];
    if (!links.length) return false;
    const at = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + step))].focus();
    return true;
  }

  function search() {
    const field = document.querySelector("#search");
    if (!field) return follow("a[rel=up]");
    field.focus();
    return true;
  }

  const health = () => {
    if (document.querySelector("#health")) location.hash = "health";
    return true;
  };
  const actions = {
    ArrowLeft: () => follow("a[rel=prev]"), ArrowRight: () => follow("a[rel=next]"),
    u: () => follow("a[rel=up]") || follow("a.home"), g: health,
    j: () => move(1), k: () => move(-1), "?": help, "/": search,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.target.closest("#table") && event.key.startsWith("Arrow")) return;
    if (Object.hasOwn(actions, event.key) && actions[event.key]()) event.preventDefault();
  });
})();
