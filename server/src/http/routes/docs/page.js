// Sets up Swagger UI. No validator: its badge would ask a server on the Internet.
// Groups in the order a newcomer needs them; any other comes last.
const GROUPS = ["auth", "models", "async generations", "generations", "outputs", "projects", "credits", "user", "system", "webhooks"];
const place = (group) => (GROUPS.includes(group) ? GROUPS.indexOf(group) : GROUPS.length);

window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#ui",
    deepLinking: true,
    displayRequestDuration: true,
    docExpansion: "list",
    tagsSorter: (one, other) => place(one) - place(other),
    defaultModelsExpandDepth: 0,
    filter: true,
    persistAuthorization: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    layout: "BaseLayout",
    presets: [SwaggerUIBundle.presets.apis],
  });
});
