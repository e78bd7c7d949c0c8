"use strict";
// The page that asks the model: a form from its inputs, the tasks to compute, and what it answers.

let model = null;
// Where the model is asked; a server of several has each under its name.
let root = "";
let readInputs = () => null;
let asked = false;
let running = null;
let timer = null;

const sliders = { budget: null, importance: new Map() };

function option(value, text) {
  return make("option", { value }, text);
}

function tableField(input) {
  const id = `field-${input.name}`;
  let control;
  let suggestions = null;
  if (input.type === "image") return pictureField(input, id);
  if (input.type === "series" || input.type === "moments") return seriesField(input, id);
  if (input.type === "text") {
    control = make("textarea", { id, rows: 3 });
  } else if (input.type === "categorical" && input.num_levels > input.levels.length) {
    // Too many to list: any can be typed, the frequent ones are suggested.
    suggestions = make("datalist", { id: `${id}-levels` }, ...input.levels.map((level) => option(level)));
    control = make("input", { id, type: "text", list: suggestions.id, value: input.levels[0], placeholder: "missing" });
  } else if (input.type === "categorical") {
    control = make("select", { id }, ...input.levels.map((level) => option(level, level)), option("", "(missing)"));
    if (!input.levels.length) control.value = "";
  } else if (input.type === "date") {
    control = make("input", { id, type: "date", value: input.typical });
  } else if (input.type === "history") {
    control = make("input", { id, type: "text", placeholder: `ids of ${input.item}, the most recent last` });
  } else {
    control = make("input", { id, type: "number", step: "any", value: input.typical, placeholder: "missing" });
  }
  control.name = input.name;
  return [make("div", { className: "field" }, make("label", { htmlFor: id }, input.name), control, suggestions), () => {
    if (control.value === "") return null;
    return input.type === "numeric" ? Number(control.value) : control.value;
  }];
}

// What is no number stays as it was typed: the server names it.
function numberOf(word) {
  if (/^(null|nan|\?)$/i.test(word)) return null;
  return Number.isNaN(Number(word)) ? word : Number(word);
}

function seriesField(input, id) {
  const area = make("textarea", { id, rows: 5, name: input.name });
  area.setAttribute("aria-describedby", `${id}-form`);
  const isMoments = input.type === "moments", isWide = !isMoments && input.channels > 1;
  const form = isMoments ? "The time of each step, one a line." : isWide ? `One step a line, with ${input.channels} numbers.` : "Numbers with spaces or commas between them.";
  const hint = make("p", { className: "hint", id: `${id}-form` }, `${form} The oldest first; the last ${input.length} steps count.`);
  return [make("div", { className: "field" }, make("label", { htmlFor: id }, input.name), area, hint), () => {
    const parts = area.value.split(isMoments || isWide ? /\n/ : /[\s,;]+/).map((part) => part.trim()).filter(Boolean);
    if (!parts.length) return null;
    return parts.map((part) => isWide ? part.split(/[\s,;]+/).map(numberOf) : numberOf(part));
  }];
}

function pictureField(input, id) {
  let picture = null;
  const chooser = make("input", { id, type: "file", accept: "image/*" });
  chooser.addEventListener("change", async () => {
    picture = chooser.files[0] ? await inBase64(chooser.files[0]) : null;
    if (asked) ask();
  });
  return [make("div", { className: "field" }, make("label", { htmlFor: id }, input.name), chooser), () => picture];
}

function inBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function buildTable(place) {
  const readers = new Map();
  const fields = model.inputs.map((input) => {
    const [field, read] = tableField(input);
    readers.set(input.name, read);
    return field;
  });
  place.append(make("div", { className: "fields" }, ...fields));
  readInputs = () => ({ rows: [Object.fromEntries([...readers].map(([name, read]) => [name, read()]))] });
}

function buildText(place) {
  const area = make("textarea", { id: "text", rows: 6, placeholder: "Type or paste a text" });
  place.append(make("label", { htmlFor: "text" }, model.inputs[0].name), area);
  readInputs = () => area.value.trim() ? { texts: [area.value] } : null;
}

function buildSeries(place) {
  if (model.keys[0] === "rows") return buildTable(place);
  const [field, read] = seriesField(model.inputs[0], "series");
  place.append(field);
  readInputs = () => { const series = read(); return series ? { series: [series] } : null; };
}

function buildPicture(place) {
  let file = null;
  const chooser = make("input", { id: "picture", type: "file", accept: "image/*", className: "unseen" });
  const preview = make("img", { alt: "The picture that was chosen", hidden: true });
  const words = make("span", {}, "Drop a picture here, or choose one");
  const zone = make("label", { htmlFor: "picture", className: "zone" }, preview, words);
  const take = (chosen) => {
    if (!chosen) return;
    file = chosen;
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(file);
    preview.hidden = false;
    words.textContent = `${file.name}: choose another`;
    ask();
  };
  chooser.addEventListener("change", () => take(chooser.files[0]));
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.remove("over"); });
  zone.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
  place.append(chooser, zone);
  readInputs = () => file ? { file } : null;
}

function buildTasks() {
  for (const task of model.tasks) {
    const share = model.cost && model.tasks.length > 1 ? model.cost.shares[task.name] : null;
    const title = share === null ? "" : `Alone it needs ${Math.round(100 * share)} % of the model's cost`;
    const box = make("input", { type: "checkbox", checked: true, name: "task", value: task.name });
    find("#tasks .chips").append(make("label", { className: "chip", title }, box, make("span", {}, task.name)));
  }
  find("#tasks").hidden = model.tasks.length < 2;
}

function slider(id, label, low, high, step, value, show) {
  const input = make("input", { id, type: "range", min: low, max: high, step });
  input.value = value;
  const output = make("output", { htmlFor: id });
  const update = () => { output.textContent = show(Number(input.value)); input.setAttribute("aria-valuetext", output.textContent); };
  input.addEventListener("input", update);
  update();
  return [make("div", { className: "slider" }, make("label", { htmlFor: id }, label), output, input), input];
}

function buildControls() {
  if (!model.controls) return;
  const place = find("#controls");
  place.hidden = false;
  const [row, budget] = slider("budget", "Budget", model.controls.smallest_budget, 1, 0.001, 1, (value) => `${(100 * value).toFixed(0)} % of the full cost`);
  sliders.budget = budget;
  place.append(row);
  if (model.tasks.length < 2) return;
  for (const task of model.tasks) {
    const [one, input] = slider(`importance-${task.name}`, `Importance of ${task.name}`, 0, 1, 0.05, 1, (value) => value.toFixed(2));
    sliders.importance.set(task.name, input);
    place.append(one);
  }
}

function options() {
  const chosen = [...document.querySelectorAll("input[name=task]:checked")].map((box) => box.value);
  const found = { tasks: chosen, probabilities: true };
  if (sliders.budget) found.budget = Number(sliders.budget.value);
  if (sliders.importance.size) found.importance = Object.fromEntries([...sliders.importance].map(([name, input]) => [name, Number(input.value)]));
  return found;
}

function request(inputs, chosen) {
  if (!inputs.file) {
    return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...inputs, ...chosen }) };
  }
  const form = new FormData();
  form.append("images", inputs.file);
  chosen.tasks.forEach((task) => form.append("tasks", task));
  for (const [name, value] of Object.entries(chosen)) if (name !== "tasks") form.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  return { method: "POST", body: form };
}

async function ask() {
  const inputs = readInputs(), chosen = options();
  if (!inputs || !chosen.tasks.length) {
    showEmpty(inputs ? "Choose at least one task." : null);
    return;
  }
  asked = true;
  find("#live").textContent = "Answers follow every change.";
  if (running) running.abort();
  const mine = running = new AbortController();
  find("#answer").setAttribute("aria-busy", "true");
  const started = performance.now();
  try {
    const answer = await call(`${root}predict`, { ...request(inputs, chosen), signal: mine.signal });
    if (mine !== running) return;
    showError(null);
    showAnswer(answer, performance.now() - started);
    showCommand(inputs, chosen);
  } catch (error) {
    if (error.name === "AbortError" || mine !== running) return;
    showEmpty("");
    showError(error);
  }
  find("#answer").setAttribute("aria-busy", "false");
}

function showEmpty(text) {
  const words = { table: "Press Predict.", joint: "Press Predict.", text: "Type a text and press Predict.", image: "Choose a picture.", series: "Type a series and press Predict." };
  find("#empty").textContent = text === null ? words[model.kind] : text;
  find("#empty").hidden = text === "";
  showError(null);
  find("#results").replaceChildren();
  for (const id of ["#facts", "#widths", "#same"]) find(id).hidden = true;
}

function bars(shares, chosen) {
  const all = Object.entries(shares).sort((a, b) => b[1] - a[1]);
  const list = all.slice(0, 6).map(([name, share]) => {
    const fill = make("i");
    fill.style.width = `${100 * (share || 0)}%`;
    const mark = chosen.includes(name) ? "bar chosen" : "bar";
    return make("li", { className: mark }, make("span", { className: "label" }, name), make("span", { className: "track" }, fill), make("span", { className: "share" }, `${(100 * (share || 0)).toFixed(1)} %`));
  });
  if (all.length > 6) list.push(make("li", { className: "more" }, `and ${all.length - 6} more`));
  return make("ul", { className: "bars" }, ...list);
}

function card(task, prediction) {
  const head = make("h2", {}, task.name);
  if (task.positions) return make("article", { className: "dense" }, head, drawPrediction(task, prediction));
  if (prediction.values) {
    const rows = Object.entries(prediction.values).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, tidy(value))));
    return make("article", {}, head, make("dl", { className: "values" }, ...rows));
  }
  if (prediction.vector) return make("article", {}, head, make("p", { className: "value" }, `${prediction.vector.slice(0, 4).map(tidy).join(", ")} … (${prediction.vector.length} values)`));
  const value = Array.isArray(prediction.value) ? prediction.value.join(", ") || "none" : typeof prediction.value === "number" ? tidy(prediction.value) : prediction.value ?? "none";
  const chosen = [].concat(prediction.value);
  return make("article", {}, head, make("p", { className: "value" }, String(value)), prediction.probabilities ? bars(prediction.probabilities, chosen) : null);
}

function showAnswer(answer, milliseconds) {
  find("#empty").hidden = true;
  const known = new Map(model.tasks.map((task) => [task.name, task]));
  find("#results").replaceChildren(...answer.tasks.map((name) => card(known.get(name), answer.predictions[0][name])));
  const saved = answer.cost.saved;
  const facts = [
    ["Round trip", `${milliseconds.toFixed(1)} ms`],
    ["Model", `${answer.milliseconds.model.toFixed(2)} ms`],
    ["Waited for others", `${answer.milliseconds.queue.toFixed(2)} ms`],
    ["Cost saved", saved === null ? "not known" : `${(100 * saved).toFixed(0)} %`],
  ];
  find("#facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  find("#facts").hidden = false;
  showWidths(answer.configuration);
}

function showWidths(configuration) {
  const place = find("#widths");
  place.hidden = !configuration;
  if (!configuration) return;
  const parts = [["encoder", configuration.encoder], ...Object.entries(configuration.decoders).map(([name, width]) => [`decoder: ${name}`, width])];
  const list = parts.map(([name, width]) => {
    const fill = make("i");
    fill.style.width = `${100 * width}%`;
    return make("li", { className: "bar" }, make("span", { className: "label" }, name), make("span", { className: "track" }, fill), make("span", { className: "share" }, `${Math.round(100 * width)} %`));
  });
  place.replaceChildren(make("h2", {}, "Widths in use"), make("ul", { className: "bars" }, ...list));
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function showCommand(inputs, chosen) {
  const address = new URL(`${root}predict`, location.href).href;
  const token = sessionStorage.getItem("graftwork-token") ? " \\\n  -H \"Authorization: Bearer $GRAFTWORK_TOKEN\"" : "";
  let body;
  if (inputs.file) {
    const fields = Object.entries(chosen).map(([name, value]) => `-F ${quoted(`${name}=${name === "tasks" ? value.join(",") : typeof value === "object" ? JSON.stringify(value) : value}`)}`);
    body = ` \\\n  -F ${quoted(`images=@${inputs.file.name}`)} \\\n  ${fields.join(" \\\n  ")}`;
  } else {
    body = ` \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify({ ...inputs, ...chosen }))}`;
  }
  find("#same pre").textContent = `curl ${address}${token}${body}`;
  find("#same").hidden = false;
}

function buildServed() {
  const date = model.created && new Date(model.created);
  const facts = [
    ["Plan", model.plan],
    ["Run", model.name],
    [model.tasks.length === 1 ? "Task" : "Tasks", model.tasks.slice(0, 12).map((task) => task.name).join(", ") + (model.tasks.length > 12 ? ` and ${model.tasks.length - 12} more` : "")],
    ["Made", date && !Number.isNaN(date.getTime()) ? date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : ""],
  ].filter(([, value]) => value);
  find("#served").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  find("#served").hidden = false;
}

// Returns the description of the model: the only one, or that which the address of the page names.
async function describe() {
  if (!document.documentElement.dataset.several) return call("model");
  const { models } = await call("models");
  const wanted = new URLSearchParams(location.search).get("model");
  const { name } = models.find((one) => one.name === wanted) || models[0];
  root = `models/${encodeURIComponent(name)}/`;
  const select = find("#models select");
  select.replaceChildren(...models.map((one) => make("option", { value: one.name, selected: one.name === name }, one.name)));
  select.addEventListener("change", () => { location.search = `?model=${encodeURIComponent(select.value)}`; });
  find("#models").hidden = false;
  return call(root.slice(0, -1));
}

async function start() {
  model = await describe();
  document.title = `${model.name}: graftwork serve`;
  find("#name").textContent = model.name;
  const what = { table: "a row of a table", joint: "a row with inputs of several kinds", text: "a text", image: "a picture", series: "a series" }[model.kind];
  const count = model.tasks.length;
  find("#summary").textContent = `Predicts ${count === 1 ? model.tasks[0].name : `${count} tasks at once`} from ${what}.`;
  buildServed();
  ({ table: buildTable, joint: buildTable, text: buildText, image: buildPicture, series: buildSeries })[model.kind](find("#inputs"));
  buildTasks();
  buildControls();
  find("#work").hidden = false;
  showEmpty(null);
  find("#predict").hidden = model.kind === "image";
  find("#ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  find("#ask").addEventListener("input", () => {
    if (!asked) return;
    clearTimeout(timer);
    timer = setTimeout(ask, 80);
  });
  if (model.kind === "table") ask();
}

withToken(start);
