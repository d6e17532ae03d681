// Which latents a search finds: by number, by label and typical tokens at once, by what fires on a token, by contexts.

const lowered = index.labels.map((label, latent) => `${label}\n${typicalOf(latent).join("\n")}`.toLowerCase());

/** [{ latent, why }] of the index alone, best first. */
function foundInIndex(query) {
  const words = query.trim().toLowerCase();
  if (!words) return null;
  const number = /^\d+$/.test(words) && Number(words) < latentCount ? [{ latent: Number(words), why: "its number" }] : [];
  const exact = [];
  const inside = [];
  for (let latent = 0; latent < latentCount; latent += 1) {
    if (!lowered[latent].includes(words)) continue;
    const whole = typicalOf(latent).some((text) => text.trim().toLowerCase() === words);
    (whole ? exact : inside).push({ latent, why: whole ? "a typical token" : "label or typical tokens" });
  }
  return [...number, ...exact, ...inside];
}

/** Those that fire on a token, the surest first. */
async function firingOn(query) {
  const tokens = await tokensFile();
  const words = query.trim().toLowerCase();
  const pairs = Object.hasOwn(tokens, words) ? tokens[words] : [];
  const found = [];
  for (let at = 0; at < pairs.length; at += 2) found.push({ latent: pairs[at], why: `fires on ${pairs[at + 1]}% of “${words}”` });
  return found;
}

/** Those in whose contexts the words stand, file by file: `onFile` is given what each adds and how many are read. It
 * returns false when nobody wants more. */
async function inContexts(query, onFile) {
  const words = query.trim().toLowerCase();
  for (let number = 0; number < index.files; number += 1) {
    const file = await latentsFile(number);
    const found = [];
    file.latents.forEach((latent, at) => {
      const context = [...latent.strongest, ...latent.sampled].find(([, , , , texts]) =>
        texts.map((text) => file.texts[text]).join("").toLowerCase().includes(words),
      );
      if (context) found.push({ latent: number * index.perFile + at, why: "a context", context: contextOf(file, context) });
    });
    if (!onFile(found, number + 1)) return;
  }
}
