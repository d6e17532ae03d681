// Which view is shown. The address says it, so that links, the way back and a reload do what they should.

function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, number] = path.split("/");
  const latent = Number(number);
  if (view === "latent" && /^\d+$/.test(number ?? "") && latent < latentCount) return { view, latent };
  if (view === "latents") return { view, asked: Object.fromEntries(new URLSearchParams(query)) };
  return { view: view === "map" ? view : "overview" };
}

const scrolls = new Map(); // by address, how far down each was left
let shownHash = location.hash;
let forward = false; // a link was followed, not the way back
history.scrollRestoration = "manual"; // a browser would restore before there is anything to scroll

function show() {
  const route = routeOf(location.hash);
  for (const name of ["overview", "latents", "latent", "map"]) byId(name).hidden = name !== route.view;
  document.body.dataset.view = route.view;
  for (const link of document.querySelectorAll("[data-view-of]")) {
    if (link.dataset.viewOf === route.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const done = { latents: () => showLatents(route.asked), latent: () => showLatent(route.latent), map: showMap }[route.view]?.();
  document.title = `${route.view === "latent" ? `${labelOf(route.latent)} (${route.latent}) – ` : ""}${index.name}`;
  const down = forward ? 0 : (scrolls.get(location.hash) ?? 0);
  forward = false;
  Promise.resolve(done).then(() => scrollTo(0, down));
}

addEventListener("hashchange", () => {
  scrolls.set(shownHash, scrollY);
  shownHash = location.hash;
  show();
});

document.addEventListener("click", (event) => {
  forward = Boolean(event.target.closest('a[href^="#/"]'));
});

const searchField = byId("search");
let typing;

function searchNow() {
  clearTimeout(typing);
  const q = searchField.value.trim();
  const { asked = {} } = routeOf(location.hash);
  const next = listAddress({ q, where: q ? asked.where : "", show: asked.show });
  if (routeOf(location.hash).view === "latents") {
    history.replaceState(null, "", next); // typing is one step of the way back, not one a letter
    shownHash = next;
    show();
  } else if (q) location.hash = next;
}

searchField.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(searchNow, 120);
});
byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  searchNow();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape") {
      searchField.value = "";
      searchNow();
      searchField.blur();
    }
    return;
  }
  const { view, latent } = routeOf(location.hash);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === "/") {
    searchField.focus();
    searchField.select();
    event.preventDefault();
  } else if (view === "latent" && step && latent + step >= 0 && latent + step < latentCount) {
    location.hash = latentLink(latent + step);
  } else if ({ o: "#/", l: "#/latents", m: "#/map" }[event.key]) {
    location.hash = { o: "#/", l: "#/latents", m: "#/map" }[event.key];
  }
});

byId("theme").addEventListener("click", () => {
  if (routeOf(location.hash).view === "map") showMap();
});

startTheme();
show();
