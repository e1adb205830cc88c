"use strict";
// Keeps a page with [data-live] up to date: asks for it again every so many seconds (5, unless it
// says more), and puts in those of its parts, [data-part] with an id, that have changed.
{
  const bar = document.querySelector("[data-live] .live");

  if (bar) {
    start();
  }

  function start() {
    const says = bar.querySelector("[data-live-says]");
    const button = bar.querySelector("[data-live-pause]");
    const shown = new Map(parts(document).map((part) => [part.id, part.outerHTML]));
    const everyMs = 1000 * (Number(bar.closest("[data-live]").dataset.live) || 5);
    let paused = sessionStorage.getItem("live") === "paused";
    let timer = 0;

    bar.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      sessionStorage.setItem("live", paused ? "paused" : "on");
      show();
      if (!paused) {
        look();
      }
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !paused) {
        look();
      }
    });
    show();
    wait();

    function show(problem) {
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Resume updates" : "Pause updates";
      bar.classList.toggle("is-paused", paused);
      bar.classList.toggle("is-failing", Boolean(problem) && !paused);
      says.textContent = paused ? "Paused" : problem || "Live";
    }

    function wait() {
      clearTimeout(timer);
      timer = setTimeout(look, everyMs);
    }

    async function look() {
      clearTimeout(timer);
      if (paused || document.hidden) {
        return;
      }
      try {
        const answer = await fetch(location.href, { redirect: "manual" });
        if (answer.type === "opaqueredirect") {
          show("You are logged out: load this page again");
          return;
        }
        if (!answer.ok) {
          throw new Error(String(answer.status));
        }
        put(new DOMParser().parseFromString(await answer.text(), "text/html"));
        show();
      } catch {
        const since = new Date().toLocaleTimeString();
        show(says.textContent.startsWith("No answer") ? says.textContent : `No answer since ${since}`);
      }
      wait();
    }

    function put(page) {
      const news = new Map(parts(page).map((part) => [part.id, part]));
      for (const old of parts(document)) {
        const part = news.get(old.id);
        const html = part ? part.outerHTML : "";
        if (part && html !== shown.get(old.id)) {
          shown.set(old.id, html);
          replace(old, document.adoptNode(part));
        }
      }
    }
  }

  function parts(page) {
    return [...page.querySelectorAll("[data-part]")];
  }

  function replace(old, part) {
    const focused = old.contains(document.activeElement) ? address(document.activeElement) : "";
    if (old.matches("tr")) {
      // The cell with the check box stays: it may be checked, and Django listens to it.
      [...part.children].forEach((cell, n) => {
        if (!cell.matches(".action-checkbox")) {
          old.children[n].replaceWith(cell);
        }
      });
    } else {
      for (const details of old.querySelectorAll("details[open][id]")) {
        part.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
      }
      old.replaceWith(part);
    }
    if (focused) {
      document.querySelector(focused)?.focus({ preventScroll: true });
    }
  }

  function address(element) {
    const href = element.getAttribute("href");
    return element.id ? `#${CSS.escape(element.id)}` : href ? `[href="${CSS.escape(href)}"]` : "";
  }
}
