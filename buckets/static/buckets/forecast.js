"use strict";
// Says what a bucket would cost, as its form changes. Without this it is said of what is stored.
{
  const forecast = document.querySelector("[data-forecast]");
  const names = (forecast?.dataset.fields ?? "").split(" ");
  const form = forecast?.closest("form");
  let timer = 0;
  let asked = 0;

  form?.addEventListener("input", (event) => {
    if (names.includes(event.target.name)) {
      clearTimeout(timer);
      timer = setTimeout(ask, 300);
    }
  });

  async function ask() {
    const number = ++asked;
    const fields = [...new FormData(form)].filter(([name]) => names.includes(name));
    try {
      const answer = await fetch(`${forecast.dataset.forecast}?${new URLSearchParams(fields)}`);
      const text = answer.ok ? await answer.text() : `HTTP ${answer.status}`;
      // Answers may overtake each other.
      if (number === asked) {
        forecast.textContent = text;
      }
    } catch (error) {
      forecast.textContent = `The server did not answer: ${error.message}`;
    }
  }
}
