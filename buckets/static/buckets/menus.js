"use strict";
// Menus are <details>: they open without this, which closes them again.
{
  const open = () => document.querySelectorAll("details.menu[open]");

  document.addEventListener("click", (event) => {
    for (const menu of open()) {
      if (!menu.contains(event.target)) {
        menu.open = false;
      }
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") {
      return;
    }
    for (const menu of open()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

// On a narrow screen the row of sections is longer than it: show the part where we are.
{
  const here = document.querySelector(".sections [aria-current]");
  const row = here?.closest(".sections");
  if (row) {
    row.scrollLeft = here.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
  }
}
