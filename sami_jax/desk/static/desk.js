// All that the desk's pages do by themselves: keys of the rating page, and runs that are followed. Without it, all can be done all the same.
"use strict";

const USE_KEYS = "sami desk: keys";

function keys() {
  const box = document.getElementById("use-keys");
  if (!box) return;
  box.checked = localStorage.getItem(USE_KEYS) !== "off";
  box.addEventListener("change", () => localStorage.setItem(USE_KEYS, box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("textarea, select, input:not([type=checkbox])");
    if (!box.checked || typing || event.isComposing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.normalize("NFKC").toLowerCase() : event.key;
    for (const one of document.querySelectorAll("[data-keys]")) {
      if (key === one.dataset.keys || (key.length === 1 && one.dataset.keys.length === 2 && one.dataset.keys.includes(key))) {
        event.preventDefault();
        one.click();
        return;
      }
    }
  });
  // One answer a page: a second press while the next page comes is not another rating.
  document.getElementById("rating").addEventListener("submit", (event) => {
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => delete document.getElementById("rating").dataset.sent);
}

function follow() {
  const live = document.getElementById("live");
  const box = document.getElementById("follow");
  if (!live || !box) return;
  const said = document.getElementById("said");
  const stage = () => document.getElementById("stage")?.textContent;
  const look = async () => {
    try {
      if (!box.checked || document.hidden) return;
      const answer = await fetch(live.dataset.live, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) throw new Error(answer.status);
      const page = await answer.text();
      if (!box.checked) return;  // stopped while it was asked for
      const before = stage();
      const focused = document.activeElement && live.contains(document.activeElement);
      if (!focused) live.innerHTML = page;  // made by our templates, all texts escaped
      if (stage() !== before) said.textContent = stage();
      live.classList.remove("lost");
    } catch {
      live.classList.add("lost");
      said.textContent = live.dataset.lost;
    } finally {
      if (live.querySelector("[data-status]")?.dataset.status === "running") setTimeout(look, 2000);
    }
  };
  setTimeout(look, 2000);
}

keys();
follow();
