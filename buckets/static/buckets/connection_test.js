"use strict";
// Tests the form as it is and shows the outcome in place, so that typed keys need not be typed
// again. Without this the form is posted, and comes back with the outcome and without the keys.
{
  const button = document.querySelector("button[name=_test]");
  const outcome = document.getElementById("connection-test");

  button?.addEventListener("click", async (event) => {
    event.preventDefault();
    const form = new FormData(button.form);
    form.set("_test", "1");
    button.disabled = true;
    outcome.textContent = "Asking S3 …";
    try {
      const answer = await fetch(location.href, { method: "POST", body: form });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = page.getElementById("connection-test");
      outcome.replaceChildren(...(found ? document.adoptNode(found).childNodes : [`HTTP ${answer.status}`]));
    } catch (error) {
      outcome.textContent = `The server did not answer: ${error.message}`;
    }
    button.disabled = false;
  });
}
