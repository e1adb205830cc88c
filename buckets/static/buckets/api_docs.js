"use strict";

const page = document.getElementById("api");
// validatorUrl: Swagger UI would ask a server on the Internet otherwise.
SwaggerUIBundle({
  url: page.dataset.schema,
  domNode: page,
  deepLinking: true,
  validatorUrl: null,
});
