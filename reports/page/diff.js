// What differs between two texts, word by word.

const MOST_CELLS = 1_000_000;

function words(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

/** [part, kept] pairs for both texts: what the longest common subsequence of their words keeps, and what not. */
function diff(before, after) {
  const [a, b] = [words(before), words(after)];
  const shorter = Math.min(a.length, b.length);
  let head = 0;
  while (head < shorter && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const [keptA, keptB] = commonWords(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const edge = (length, kept) => (at) => at < head || at >= length - tail || kept[at - head];
  return [joined(a, edge(a.length, keptA)), joined(b, edge(b.length, keptB))];
}

/** Two arrays of booleans: which words of a, and which of b, are of their longest common subsequence. */
function commonWords(a, b) {
  const kept = [new Array(a.length).fill(false), new Array(b.length).fill(false)];
  if ((a.length + 1) * (b.length + 1) > MOST_CELLS) return kept; // too long to compare: all of it has changed
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] =
        a[i] === b[j]
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) [kept[0][i++], kept[1][j++]] = [true, true];
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return kept;
}

/** Neighbouring words of the same fate as one part. */
function joined(parts, isKept) {
  const result = [];
  parts.forEach((part, at) => {
    const kept = Boolean(isKept(at));
    if (result.length && result.at(-1)[1] === kept) result.at(-1)[0] += part;
    else result.push([part, kept]);
  });
  return result;
}

/** The two texts as two lists of nodes, with <del> and <ins> around what differs. */
function diffNodes(before, after) {
  const [a, b] = diff(before, after);
  const nodes = (parts, name) => parts.map(([text, kept]) => (kept ? text : element(name, { text })));
  return [nodes(a, "del"), nodes(b, "ins")];
}

/** Two texts side by side under their headings, what differs marked. */
function textsSideBySide(headings, before, after) {
  const sides = diffNodes(before, after).map((nodes, side) =>
    element("div", {}, element("h4", { text: headings[side] }), element("p", { class: "text block" }, nodes)),
  );
  return element("div", { class: "sides" }, sides);
}
