"use strict";
// Lists the paths of /openapi.json with their schemas.

function describeType(schema) {
  if (!schema) return "";
  if (schema.enum) return schema.enum.map((item) => JSON.stringify(item)).join(" | ");
  const variants = schema.oneOf || schema.anyOf;
  if (variants) return variants.map(describeType).join(" | ");
  const type = [].concat(schema.type || "any").join(" | ");
  const limits = [["minimum", "from"], ["maximum", "to"], ["minItems", "at least"], ["maxItems", "at most"], ["maxLength", "at most", " characters"]]
    .filter(([key]) => schema[key] !== undefined && Math.abs(schema[key]) < 1e299)
    .map(([key, word, unit]) => `${word} ${schema[key].toLocaleString("en")}${unit || ""}`);
  // "string, number" would read like two types.
  const format = schema.format && `written as ${schema.format}`;
  return [type === "array" ? `list of ${describeType(schema.items) || "any"}` : type, format, ...limits].filter(Boolean).join(", ");
}

// Large parts that are the same under several names are shown once.
function merged(entries) {
  const [first, ...others] = entries;
  const same = first && others.length && first[1].properties && others.every(([, part]) => JSON.stringify(part) === JSON.stringify(first[1]));
  return same ? [[entries.map(([name]) => name).join(", "), first[1]]] : entries;
}

function tree(schema) {
  if (!schema) return null;
  if (schema.oneOf) return make("div", {}, ...schema.oneOf.map((one, index) => make("div", { className: "variant" }, make("p", { className: "hint" }, `Form ${index + 1}`), tree(one))));
  if (schema.type === "array") return tree(schema.items);
  if (!schema.properties) return null;
  const required = new Set(schema.required || []);
  const items = merged(Object.entries(schema.properties)).map(([name, part]) => make("li", {},
    make("code", {}, name), make("span", { className: "type" }, ` ${describeType(part)}`),
    required.has(name) ? make("b", {}, " required") : null,
    part.description ? make("span", { className: "hint" }, ` · ${part.description}`) : null,
    tree(part)));
  return make("ul", { className: "tree" }, ...items);
}

function content(title, part) {
  const blocks = Object.entries(part.content || {}).map(([type, { schema }]) => make("div", { className: "scroll" },
    make("p", { className: "hint" }, `${title}: ${type}`), tree(schema) || make("p", {}, describeType(schema))));
  return blocks;
}

function operation(path, method, details) {
  const answers = Object.entries(details.responses).filter(([status]) => status !== "200");
  return make("section", { className: "operation" },
    make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`)),
    make("p", {}, details.summary || ""),
    ...content("Request", details.requestBody || {}),
    ...content("Answer", details.responses["200"] || {}),
    answers.length ? make("details", {}, make("summary", {}, "Errors"),
      make("p", { className: "hint" }, "Every error is an object with error (a sentence) and problems (a list of field, value, allowed)."),
      make("ul", {}, ...answers.map(([status, answer]) => make("li", {}, make("code", {}, status), ` ${answer.description}`)))) : null);
}

withToken(async () => {
  const schema = await call("openapi.json");
  find("#name").textContent = schema.info.title;
  find("#summary").replaceChildren(`${schema.info.description} The schema for programs is at `, make("a", { href: "openapi.json" }, "openapi.json"), ".");
  find("#paths").replaceChildren(...Object.entries(schema.paths).sort(([a], [b]) => (b === "/predict") - (a === "/predict")).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, details]) => operation(path, method, details))));
});
