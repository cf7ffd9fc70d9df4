"use strict";
// Shows openapi.json. No library, nothing from elsewhere; text goes in as text, never as HTML.
const el = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
};
const resolve = (doc, schema) => {
  let seen = 0;
  while (schema && schema.$ref && seen++ < 20) {
    schema = schema.$ref.split("/").slice(1).reduce((at, key) => at && at[key], doc);
  }
  return schema || {};
};
const typeOf = (doc, schema) => {
  if (!schema) return "any";
  const options = schema.oneOf || schema.anyOf;
  if (options) return options.map((one) => typeOf(doc, one)).join(" or ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || "any";
  if (type.startsWith("array")) return "array of " + typeOf(doc, schema.items);
  return schema.format ? `${type} (${schema.format})` : type;
};
const fields = (doc, schema) => {
  const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Field"), el("th", {}, "Type"), el("th", {}, ""))));
  const body = el("tbody");
  const add = (part) => {
    part = resolve(doc, part);
    for (const one of part.allOf || []) add(one);
    for (const [name, field] of Object.entries(part.properties || {})) {
      const need = (part.required || []).includes(name) ? el("span", { class: "need" }, " required") : "";
      body.append(el("tr", {}, el("td", { class: "name" }, el("code", {}, name), need),
        el("td", {}, typeOf(doc, field)), el("td", {}, field.description || resolve(doc, field).description || "")));
    }
  };
  add(schema);
  table.append(body);
  return table;
};
const parameters = (list) => el("table", {}, el("tbody", {}, ...list.map((one) =>
  el("tr", {}, el("td", { class: "name" }, el("code", {}, one.name), one.required ? el("span", { class: "need" }, " required") : ""),
    el("td", {}, one.in), el("td", {}, one.description || "")))));
const operation = (doc, path, verb, op) => {
  const permission = op["x-permission"];
  const box = el("div", {}, el("p", {}, op.description || ""));
  if (op.parameters && op.parameters.length) box.append(el("h4", {}, "Parameters"), parameters(op.parameters));
  const body = op.requestBody && Object.values(op.requestBody.content || {})[0];
  if (body) box.append(el("h4", {}, "Body"), fields(doc, body.schema));
  for (const [status, answer] of Object.entries(op.responses || {})) {
    box.append(el("h4", {}, `${status}: ${answer.description || ""}`));
    const content = Object.values(answer.content || {})[0];
    if (content && content.schema && resolve(doc, content.schema).properties) box.append(fields(doc, content.schema));
  }
  return el("details", { class: "op", id: op.operationId || path },
    el("summary", {}, el("span", { class: "verb " + verb }, verb), el("code", {}, path), " ", op.summary || "",
      permission ? el("span", { class: "badge" }, permission) : ""), box);
};
fetch("/openapi.json").then((answer) => answer.json()).then((doc) => {
  document.getElementById("about").textContent = `${doc.info.description} Version ${doc.info.version}, OpenAPI ${doc.openapi}.`;
  const groups = new Map();
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const verb of ["get", "post", "put", "patch", "delete"]) {
      if (!item[verb]) continue;
      const tag = (item[verb].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(doc, path, verb, item[verb]));
    }
  }
  const place = document.getElementById("operations");
  place.replaceChildren(...[...groups].flatMap(([tag, list]) => [el("h2", {}, tag[0].toUpperCase() + tag.slice(1)), ...list]));
  if (location.hash) {
    const target = document.getElementById(location.hash.slice(1));
    if (target) { target.open = true; target.scrollIntoView(); }
  }
});
