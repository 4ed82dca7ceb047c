"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const at = (id) => document.getElementById(id);
const classes = data.classes;
const SVG = "http://www.w3.org/2000/svg";

// Elements are made from text alone, so a name from a user is never read as HTML.
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const known = (share) => share !== null && share !== undefined;
function percent(share) {
  if (!known(share)) return "–";
  const value = 100 * share;
  return value !== 0 && value < 0.95 ? value.toPrecision(value < 0.05 ? 1 : 2) : value.toFixed(1);
}
const whole = (number) => number.toLocaleString("en");
const rgb = (color) => `rgb(${color.join(" ")})`;
const swatch = (index) => make("span", { class: "swatch", style: `background:${rgb(classes[index].color)}` });
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

// Pictures are given to the page only as they come near the window.
const MIME = { "/": "image/jpeg", i: "image/png", U: "image/webp" }; // by how each begins in base64
const source = (number) => `data:${MIME[pictures[number][0]]};base64,${pictures[number]}`;
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    for (const img of target.querySelectorAll("img[data-picture]")) {
      img.src = source(img.dataset.picture);
      img.removeAttribute("data-picture");
    }
  }
}, { rootMargin: "600px" });
const later = (element) => (watcher.observe(element), element);
const lazy = (number, more = {}) => make("img", { "data-picture": number, loading: "lazy", decoding: "async", alt: "", ...more });

function head() {
  at("title").textContent = data.title;
  at("rule").textContent = data.rule;
  const { mean_iu, acc, acc_cls, fw_iu, bf, ece } = data.scores;
  const tiles = [
    ["mean IU", mean_iu, "overlap with the truth, each class counting alike"],
    ["pixel accuracy", acc, "share of all pixels that are right"],
    ["class accuracy", acc_cls, "share found of a class, on average"],
    ["weighted IU", fw_iu, "overlap, each class counting by its pixels"],
    ["boundary F1", bf, "how well outlines are met"],
    ["calibration error", ece, "how far its certainty is off; 0 is best"],
  ];
  for (const [name, score, meaning] of tiles) {
    at("tiles").append(make("div", { class: "tile" }, make("span", { class: "what" }, name), make("b", {}, percent(score)),
      make("span", {}, meaning)));
  }
  at("rule").append(" All scores are in percent.");
  for (const [name, value] of data.facts) at("facts").append(make("dt", {}, name), make("dd", {}, value));
  const { tolerance, height, width } = data.boundary;
  for (const element of document.querySelectorAll(".tolerance")) {
    element.textContent = `0.75 % of the image's diagonal (${tolerance.toFixed(1)} pixels in ${width} × ${height})`;
  }
}

const meter = (share, kind = "") => make("div", { class: "meter" },
  make("div", { class: `track ${kind}` }, make("i", { style: `width:${100 * (share ?? 0)}%` })), make("span", {}, percent(share)));

let sorted = { by: "iu", descending: false };
function classTable() {
  const columns = [["name", "Class"], ["iu", "IU"], ["bf", "BF"], ["recall", "Found"], ["precision", "Right"], ["share", "Pixels"]];
  const sort = (by) => {
    sorted = { by, descending: sorted.by === by ? !sorted.descending : by === "share" };
    classTable();
    at("class-table").querySelector("[aria-sort] button").focus();
  };
  const heading = ([by, text]) => make("th", { scope: "col", class: by === "iu" || by === "bf" ? "bars" : null,
    "aria-sort": sorted.by === by ? (sorted.descending ? "descending" : "ascending") : null },
    make("button", { type: "button", click: () => sort(by) }, text));
  const value = (index) => classes[index][sorted.by] ?? Infinity;
  const order = [...classes.keys()].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a - b));
  if (sorted.descending) order.reverse();
  const row = (index) => make("tr", {}, make("th", { scope: "row" }, swatch(index), classes[index].name),
    make("td", {}, meter(classes[index].iu)), make("td", {}, meter(classes[index].bf, "second")),
    ...["recall", "precision", "share"].map((by) => make("td", {}, percent(classes[index][by]))));
  at("class-table").replaceChildren(make("thead", {}, make("tr", {}, ...columns.map(heading))), make("tbody", {}, ...order.map(row)));
}

const inRow = data.confusion.map(sum);
const total = sum(inRow);
const taken = ([truth, prediction]) => `${classes[truth].name} taken for ${classes[prediction].name}`;

const LEGIBLE = 40;
function matrix() {
  const off = (index) => inRow[index] + sum(data.confusion.map((row) => row[index])) - 2 * data.confusion[index][index];
  let shown = [...classes.keys()];
  if (shown.length > LEGIBLE) {
    shown = shown.sort((a, b) => off(b) - off(a)).slice(0, LEGIBLE).sort((a, b) => a - b);
    at("left-out").textContent = `Of ${classes.length} classes the ${LEGIBLE} with the most wrong pixels are shown.`;
  }
  const many = shown.length > 22;
  const cell = (truth, prediction) => {
    const share = inRow[truth] ? data.confusion[truth][prediction] / inRow[truth] : 0;
    const depth = Math.sqrt(share); // so that a few percent are seen
    const color = truth === prediction ? "accent" : "wrong";
    return make("td", { tabindex: -1, class: depth > 0.8 ? "strong" : null, "data-pair": `${truth},${prediction}`,
      style: share ? `background:rgba(var(--${color}-rgb),${depth.toFixed(3)})` : null },
      share >= 0.005 ? (100 * share).toFixed(0) : "");
  };
  const tell = (event) => {
    if (!event.target.dataset.pair) return;
    const pair = event.target.dataset.pair.split(",").map(Number);
    const count = data.confusion[pair[0]][pair[1]];
    const what = pair[0] === pair[1] ? `${classes[pair[0]].name} found` : taken(pair);
    at("cell").textContent =
      `${what}: ${whole(count)} pixels, ${percent(inRow[pair[0]] ? count / inRow[pair[0]] : null)} % of ${classes[pair[0]].name}`;
  };
  const move = (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const from = event.target.closest("td");
    if (!step || !from) return;
    event.preventDefault();
    const to = from.closest("tbody").rows[from.parentElement.sectionRowIndex + step[0]]?.cells[from.cellIndex + step[1]];
    if (to?.dataset.pair) {
      from.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    }
  };
  const header = make("tr", {}, make("td", { style: "box-shadow:none" }),
    ...shown.map((index) => make("th", { scope: "col", title: classes[index].name }, make("span", {}, classes[index].name))));
  const rows = shown.map((truth) => make("tr", {}, make("th", { scope: "row", title: classes[truth].name }, classes[truth].name),
    ...shown.map((prediction) => cell(truth, prediction))));
  const body = make("tbody", { mouseover: tell, focusin: tell, keydown: move }, ...rows);
  body.querySelector("td").tabIndex = 0;
  at("matrix").classList.toggle("many", many);
  at("matrix").append(make("thead", {}, header), body);
}

const PAIRS_AT_ONCE = 8;
let pairsShown = PAIRS_AT_ONCE;
function pairList() {
  const count = ({ pair }) => data.confusion[pair[0]][pair[1]];
  const cost = at("pair-order").value === "share" ? (entry) => count(entry) / inRow[entry.pair[0]] : count;
  const order = [...data.pairs].sort((a, b) => cost(b) - cost(a));
  const crop = ({ name, pixels, picture }) => make("li", {}, later(make("div", {}, lazy(picture))), `${whole(pixels)} px, ${name}`);
  const entry = (told) => make("article", { class: "pair" },
    make("h3", {}, swatch(told.pair[0]), swatch(told.pair[1]), taken(told.pair)),
    make("p", {}, `${percent(count(told) / inRow[told.pair[0]])} % of ${classes[told.pair[0]].name}, ` +
      `${percent(count(told) / total)} % of all pixels`),
    make("ul", { class: "crops" }, ...told.crops.map(crop)));
  at("pair-list").replaceChildren(...order.slice(0, pairsShown).map(entry));
  if (!order.length) at("pair-list").textContent = "No class was taken for another.";
  at("more-pairs").hidden = pairsShown >= order.length;
}

function boundaries() {
  const { near, interior } = data.boundary;
  if (!near.pixels) {
    at("boundary-means").textContent =
      "The truth has no boundary between two classes: they never touch, or void lies between them. So there is nothing to score here.";
    return;
  }
  const parts = [["near a boundary", near, "second"], ["away from it", interior, ""]];
  const rows = (title, key) => [make("h3", {}, title),
    ...parts.flatMap(([name, part, kind]) => [make("span", {}, name), meter(part[key], kind)])];
  at("boundary-bars").append(make("div", { class: "compare" }, ...rows("Mean IU", "mean_iu"), ...rows("Pixel accuracy", "acc")));
  const wrong = near.wrong + interior.wrong;
  const ofErrors = wrong ? near.wrong / wrong : 0;
  const ofPixels = near.pixels / (near.pixels + interior.pixels);
  const means = !wrong ? "Nothing is wrong." : ofErrors > 0.5
    ? "It mostly knows what is there, and errs on where it ends: finer outlines would gain the most."
    : "Most of what is wrong lies inside: whole areas are taken for another class, which finer outlines would not mend.";
  at("boundary-means").textContent =
    `${percent(ofErrors)} % of the wrong pixels lie near a boundary, where ${percent(ofPixels)} % of all pixels lie. ${means}`;
}

function calibration() {
  const { pixels, right, confidence, overconfidence } = data.calibration;
  const counted = sum(pixels);
  if (!counted) {
    at("calibration-means").textContent = "No pixel was counted.";
    return;
  }
  const [left, top, size, below] = [46, 8, 300, 70];
  const bin = size / pixels.length;
  const y = (share) => top + size * (1 - share);
  const floor = top + size + 34 + below;
  const chart = draw("svg", { viewBox: `0 0 ${left + size + 14} ${floor + 36}`, role: "img",
    "aria-label": `Reliability diagram; the expected calibration error is ${percent(data.scores.ece)} percent` });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(draw("line", { x1: left, x2: left + size, y1: y(share), y2: y(share), stroke: "var(--line)" }),
      draw("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}`),
      draw("text", { x: left + size * share, y: floor + 15, "text-anchor": "middle" }, `${100 * share}`));
  }
  const most = Math.max(...pixels);
  pixels.forEach((count, index) => {
    const x = left + index * bin + 1;
    const told = draw("title", {}, count
      ? `${whole(count)} pixels; says ${percent(confidence[index] / count)} %, is right in ${percent(right[index] / count)} %` : "no pixels");
    const tall = below * (count / most);
    const group = draw("g", {}, told, draw("rect", { x, width: bin - 2, y: floor - tall, height: tall, fill: "var(--soft)" }));
    if (count) {
      const [is, says] = [right[index] / count, confidence[index] / count];
      group.append(draw("rect", { x, width: bin - 2, y: y(is), height: size * is, fill: "rgb(var(--accent-rgb))" }),
        draw("rect", { x, width: bin - 2, y: y(Math.max(is, says)), height: size * Math.abs(is - says), fill: "var(--second-fill)",
          "fill-opacity": 0.75, stroke: "var(--second-fill)" }));
    }
    chart.append(group);
  });
  chart.append(
    draw("line", { x1: left, y1: y(0), x2: left + size, y2: y(1), stroke: "var(--ink)", "stroke-dasharray": "5 4" }),
    draw("line", { x1: left, x2: left + size, y1: floor, y2: floor, stroke: "var(--line)" }),
    draw("text", { x: 0, y: 0, transform: `translate(11 ${top + size / 2}) rotate(-90)`, "text-anchor": "middle" }, "right, %"),
    draw("text", { x: left, y: floor - below - 8 }, "pixels"),
    draw("text", { x: left + size / 2, y: floor + 31, "text-anchor": "middle" }, "the network says, %"));
  at("reliability").append(make("div", { class: "chart" }, chart),
    make("p", { class: "note" }, "Blue: how often it is right. Orange: how far what it says is from that."));
  const says = sum(confidence) / counted;
  const verdict = Math.abs(overconfidence) < 0.01 ? "As a whole it promises what it keeps."
    : overconfidence > 0 ? "It is too sure of itself." : "It is better than it says.";
  at("calibration-means").textContent = `On average it says ${percent(says)} % and is right in ${percent(sum(right) / counted)} %. ` +
    `${verdict} The expected calibration error, the mean gap over 15 bins, is ${percent(data.scores.ece)} %.`;
}
