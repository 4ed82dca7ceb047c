// The images, the worst first, and the large view of one.
const PANELS = ["image", "truth", "prediction", "errors"];

function panel(kind, image, put) {
  const [photo, truth, prediction, errors] = image.pictures;
  const size = { width: image.width, height: image.height };
  const layers = { image: [], truth: [truth], prediction: [prediction], errors: [errors] }[kind];
  const base = put(photo, { ...size, class: kind === "errors" ? "pale" : null, alt: `${kind} of ${image.name}` });
  return [base, ...layers.map((number) => put(number, { ...size, class: kind === "errors" ? "mask" : "mask labels" }))];
}

const cards = data.images.map((image, index) => {
  const picture = (kind) => make("figure", {}, make("button", { type: "button", class: "picture",
    "aria-label": `${kind} of ${image.name}, large`, click: () => enlarge(index) }, ...panel(kind, image, lazy)), make("figcaption", {}, kind));
  const told = make("div", { class: "told" });
  const card = make("li", { class: "card", style: `contain-intrinsic-size:auto ${Math.round(60 + 300 * (image.height / image.width))}px` },
    told, make("div", { class: "four" }, ...PANELS.map(picture)));
  return { image, index, card: later(card), told, of: new Map(image.classes.map(([number, iu, wrong]) => [number, { mean_iu: iu, wrong }])) };
});

let order = [];
function arrange() {
  const chosen = at("class").value;
  const by = at("order").value;
  const text = at("name").value.trim().toLowerCase();
  const scores = (entry) => (chosen === "" ? entry.image : entry.of.get(Number(chosen)));
  const cost = (entry) => (scores(entry)[by] === null ? -Infinity : by === "wrong" ? scores(entry).wrong : 1 - scores(entry).mean_iu);
  order = cards.filter((entry) => scores(entry) && entry.image.name.toLowerCase().includes(text));
  order.sort((a, b) => cost(b) - cost(a) || a.index - b.index);
  order.forEach((entry, place) => {
    const own = chosen === "" ? [] : [`${classes[chosen].name}: IU ${percent(scores(entry).mean_iu)}, ` +
      `missed or invented ${percent(scores(entry).wrong)} % of the pixels`];
    entry.told.replaceChildren(make("strong", {}, `${place + 1}. ${entry.image.name}`),
      ...[...own, ...summary(entry.image)].map((words) => make("span", {}, words)));
  });
  at("cards").replaceChildren(...order.map((entry) => entry.card));
  const some = order.length === cards.length ? "" : ` of ${cards.length}`;
  at("shown").textContent = order.length ? `${order.length}${some} images` : "No image is so named, or has this class.";
}

function summary({ mean_iu, wrong, bf, classes: present }) {
  if (mean_iu === null) return ["nothing is counted here: all is void"];
  const worst = [...present].sort((a, b) => b[2] - a[2]).filter(([, , share]) => share > 0).slice(0, 2);
  const names = worst.map(([number, iu]) => `${classes[number].name} (IU ${percent(iu)})`).join(", ");
  return [`mean IU ${percent(mean_iu)}`, `${percent(wrong)} % wrong`, `BF ${percent(bf)}`, names && `most in ${names}`].filter(Boolean);
}

let current = null;
const visible = new Set(PANELS);
function enlarge(index) {
  current = index;
  const { image } = cards[index];
  at("large-name").textContent = image.name;
  at("large-scores").textContent = summary(image).join(" · ");
  const place = order.indexOf(cards[index]);
  at("position").textContent = `${place + 1} of ${order.length}`;
  at("previous").disabled = place <= 0;
  at("next").disabled = place >= order.length - 1;
  const now = (number, attributes) => make("img", { src: source(number), alt: "", ...attributes });
  at("panels").replaceChildren(...PANELS.map((kind) => make("figure", { "data-kind": kind },
    make("div", { class: "picture" }, ...panel(kind, image, now)), make("figcaption", {}, kind))));
  at("panels").style.setProperty("--aspect", image.width / image.height);
  readUnder(image);
  toggle();
  if (!at("large").open) at("large").showModal();
}

function toggle() {
  for (const figure of at("panels").children) figure.hidden = !visible.has(figure.dataset.kind);
  const columns = visible.size > 1 ? 2 : 1;
  at("panels").style.setProperty("--columns", columns);
  at("panels").style.setProperty("--rows", Math.max(1, Math.ceil(visible.size / columns)));
}

function step(by) {
  const to = order[order.indexOf(cards[current]) + by];
  if (to) enlarge(to.index);
}

// What lies under the pointer, read from the colours of the two label maps.
const numbers = new Map(classes.map(({ color }, index) => [color.join(), index]));
async function readUnder(image) {
  const [truth, prediction] = await Promise.all([1, 2].map(async (which) => {
    const img = make("img", { src: source(image.pictures[which]) });
    await img.decode();
    const canvas = make("canvas", { width: img.naturalWidth, height: img.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(img, 0, 0);
    return { width: canvas.width, height: canvas.height, colors: context.getImageData(0, 0, canvas.width, canvas.height).data };
  }));
  const name = ({ width, height, colors }, x, y) => {
    const start = 4 * (Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width)));
    return classes[numbers.get(colors.slice(start, start + 3).join())]?.name;
  };
  at("under").textContent = "";
  at("panels").onpointermove = (event) => {
    const box = event.target.closest(".picture")?.getBoundingClientRect();
    if (!box) return;
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const [is, says] = [name(truth, x, y), name(prediction, x, y)];
    at("under").textContent = !is ? "void" : is === says ? is : `${is} taken for ${says}`;
  };
}

function gallery() {
  for (const [index, { name }] of classes.entries()) {
    at("class").append(make("option", { value: index }, name));
    at("legend").append(make("span", {}, swatch(index), name));
  }
  at("legend").append(make("span", {}, make("span", { class: "swatch", style: `background:${rgb(data.void)}` }), "void in the truth"));
  if (data.count > data.images.length) {
    at("kept").textContent = `Pictures are kept of the ${data.images.length} worst by mean IU; ${data.count} images were scored.`;
  }
  for (const [id, event] of [["order", "change"], ["class", "change"], ["name", "input"]]) at(id).addEventListener(event, arrange);
  for (const kind of PANELS) {
    at("toggles").append(make("label", {}, make("input", { type: "checkbox", checked: true, change: (event) => {
      if (event.target.checked) visible.add(kind); else visible.delete(kind);
      toggle();
    } }), ` ${kind}`));
  }
  at("blend").addEventListener("input", (event) => at("panels").style.setProperty("--blend", event.target.value / 100));
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("close").addEventListener("click", () => at("large").close());
  at("large").addEventListener("keydown", (event) => {
    if (event.target !== at("blend") && event.key in { ArrowLeft: 1, ArrowRight: 1 }) step(event.key === "ArrowLeft" ? -1 : 1);
  });
  at("large").addEventListener("close", () => cards[current].card.querySelector("button").focus());
  arrange();
}

head();
classTable();
matrix();
at("pair-order").addEventListener("change", pairList);
at("more-pairs").addEventListener("click", () => ((pairsShown += PAIRS_AT_ONCE), pairList()));
pairList();
boundaries();
calibration();
gallery();
