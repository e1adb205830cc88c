"use strict";
// Verifies the buckets of a credential one after the other, and says how far it has come. Without
// this, one request verifies as many as it has the time for.
{
  const form = document.querySelector("[data-verify]");

  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const bar = form.querySelector("progress");
    const says = form.querySelector("[data-verify-says]");
    const rows = [...document.querySelectorAll("[data-bucket]")];
    let failed = 0;
    button.disabled = true;
    bar.hidden = false;
    for (const [n, row] of rows.entries()) {
      bar.value = n;
      says.textContent = `${n} of ${rows.length} verified`;
      const outcome = await verify(row.dataset.bucket);
      row.querySelector(".outcome").replaceWith(outcome);
      failed += outcome.querySelector(".is-watched") ? 0 : 1;
    }
    bar.hidden = true;
    says.textContent = `${rows.length} of ${rows.length} verified, ${failed} failed`;
    button.disabled = false;
  });

  async function verify(bucket) {
    const body = new FormData(form);
    body.set("bucket", bucket);
    try {
      const answer = await fetch(location.href, { method: "POST", body });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      return document.adoptNode(page.getElementById(`outcome-${bucket}`));
    } catch (error) {
      const cell = document.createElement("td");
      cell.className = "outcome";
      cell.textContent = `The server did not answer: ${error.message}`;
      return cell;
    }
  }
}
