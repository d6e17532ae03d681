// What is known of latents: the index of all of them in the page, and files of some latents each, read when asked for.

const byId = (id) => document.getElementById(id);
const index = JSON.parse(byId("index").textContent);
const latentCount = index.counts.length;

const densityOf = (latent) => index.counts[latent] / Math.max(1, index.rows);
const isDead = (latent) => index.counts[latent] === 0;
const isDense = (latent) => densityOf(latent) > index.denseAbove;
const typicalOf = (latent) => index.typical[latent].map((number) => index.texts[number]);

// A script from a file may be run where a file may not be fetched. Nothing else gets through this policy.
const ownFiles = window.trustedTypes
  ? trustedTypes.createPolicy("data-files", {
      createScriptURL(address) {
        if (/^data\/(latents-\d{4,}|tokens)\.js$/.test(address)) return address;
        throw new TypeError(`not a file of this page: ${address}`);
      },
    })
  : { createScriptURL: (address) => address };

const waiting = new Map(); // by a file's name, the promise of its content
const arrivals = new Map(); // by a file's name, what to do with its content

/** Called by every file. */
function receive(name, content) {
  arrivals.get(name)?.(content);
}

function fileNamed(name, address) {
  if (!waiting.has(name)) {
    const promise = new Promise((resolve, reject) => {
      arrivals.set(name, resolve);
      const script = document.createElement("script");
      script.src = ownFiles.createScriptURL(address);
      script.addEventListener("error", () => {
        waiting.delete(name);
        reject(new Error(`${address} is missing beside this page`));
      });
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    });
    waiting.set(name, promise);
  }
  return waiting.get(name);
}

const latentsFile = (number) => fileNamed(number, `data/latents-${String(number).padStart(4, "0")}.js`);
const tokensFile = () => fileNamed("tokens", "data/tokens.js");

/** { latent, file } of a latent's number. */
async function readLatent(number) {
  const file = await latentsFile(Math.floor(number / index.perFile));
  return { latent: file.latents[number % index.perFile], file };
}

/** A context as a file tells it, with words in place of numbers. */
function contextOf(file, [document, position, weaker, marked, texts, on]) {
  const values = new Array(texts.length).fill(0);
  for (let at = 0; at < on.length; at += 2) values[on[at]] = on[at + 1];
  return { document: file.documents[document], position, weaker, marked, values, texts: texts.map((at) => file.texts[at]) };
}

// Numbers and names as they are shown

const labelOf = (latent) => index.labels[latent] || (isDead(latent) ? "never fires" : "no typical token");

function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0%";
  return `${value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toPrecision(2).replace(/e.*/, "")}%`;
}

function short(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace("-", "−") : "–";
}

/** A token as it can be seen: blanks and ends of lines too. */
function seen(text) {
  if (text.trim()) return text.replaceAll("\n", "↵");
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "∅";
}
