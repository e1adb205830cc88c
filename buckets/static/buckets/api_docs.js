"use strict";

// Light or dark as in the admin, whose button leaves its choice here (Django's theme.js).
const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const chosen = localStorage.getItem("theme") || "auto";
const theme = chosen === "auto" ? system : chosen;
document.documentElement.classList.toggle("dark-mode", theme === "dark");

const page = document.getElementById("api");
// validatorUrl: Swagger UI would ask a server on the Internet otherwise.
SwaggerUIBundle({
  url: page.dataset.schema,
  domNode: page,
  deepLinking: true,
  validatorUrl: null,
});
