"use strict";
// Shows that a form was sent, and keeps it from being sent twice: what is done to thousands of
// buckets takes some seconds.
{
  const sent = [];

  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || event.target.method !== "post") {
      return;
    }
    // Later: a button that is disabled now would not be sent.
    setTimeout(() => {
      event.submitter?.setAttribute("aria-busy", "true");
      for (const button of event.target.querySelectorAll("button, input[type=submit]")) {
        if (!button.disabled) {
          button.disabled = true;
          sent.push(button);
        }
      }
    });
  });

  // The page may come back from the browser's memory.
  addEventListener("pageshow", () => {
    for (const button of sent.splice(0)) {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  });
}
