// The page, put together.

function start() {
  document.getElementById("asked").textContent = told.query;
  const clamps = Object.entries(told.clamps).map(([latent, value]) =>
    element("li", {}, latentButton(Number(latent)), element("span", { class: "amount", text: ` set to ${value}` })));
  fill(document.getElementById("query"),
    element("h2", { text: "The query, as the model reads it" }),
    tokenText(told.read, "Query"),
    clamps.length ? element("div", {}, element("h3", { text: "Clamped in the query" }), element("ul", { class: "latents clamps" }, clamps)) : null,
    element("p", { id: "marked", role: "status" }));
  const scale = barScale();
  fill(document.getElementById("documents"), told.documents.map((one) => documentCard(one, scale)), restOf());
  fill(document.getElementById("about"), Object.entries({ ...told.about, Written: told.written }).map(([name, words]) =>
    [element("dt", { text: name }), element("dd", { text: words })]));
  const views = document.getElementById("views");
  if (told.documents.length < 2) {
    views.hidden = true;
  } else {
    const [first, second] = told.versus ?? told.documents.slice(0, 2).map((one) => one.number);
    showVersus(first, second);
    views.addEventListener("change", (event) => show(event.target.value));
    if (told.versus) {
      views.querySelector("[value=versus]").checked = true;
      show("versus");
    }
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) choose(chosen);
  });
  choose(null);
  // what speaks for the first document is a good latent to begin with
  const first = told.documents[0]?.shared[0];
  if (first) choose(first.latent);
}

function show(view) {
  document.getElementById("documents").hidden = view === "versus";
  document.getElementById("versus").hidden = view !== "versus";
}

startTheme();
start();
