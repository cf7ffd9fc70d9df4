"use strict";
// Draws openapi.json. No library, nothing from elsewhere; text goes in as text, never as HTML.

const el = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
};
/** Text in which `back-ticked` parts are code. */
const prose = (text) => (text || "").split("`").map((part, n) => (n % 2 ? el("code", {}, part) : part));

class Reference {
  constructor(doc) {
    this.doc = doc;
  }

  resolve(schema) {
    for (let seen = 0; schema && schema.$ref && seen < 20; seen++) {
      schema = schema.$ref.split("/").slice(1).reduce((at, key) => at && at[key], this.doc);
    }
    return schema || {};
  }

  /** Members of an object, those of its parts included. */
  members(schema) {
    schema = this.resolve(schema);
    const own = Object.entries(schema.properties || {}).map(([name, field]) => ({
      name, field, required: (schema.required || []).includes(name),
    }));
    return [...(schema.allOf || []).flatMap((part) => this.members(part)), ...own];
  }

  /** The options of a schema but for "null". */
  options(schema) {
    return (schema.oneOf || schema.anyOf || []).filter((one) => one.type !== "null");
  }

  kind(schema) {
    const options = this.options(schema);
    if (options.length) return options.map((one) => this.kind(one)).join(" or ");
    const target = this.resolve(schema);
    if (target !== schema) return this.kind(target);
    const types = [].concat(schema.type || "any").filter((type) => type !== "null");
    if (types.includes("array")) return `list of ${this.kind(schema.items || {})}`;
    const range = [schema.minimum ?? schema.minLength, schema.maximum ?? schema.maxLength];
    const [least, most] = range;
    const unit = schema.maxLength === undefined ? "" : " characters";
    const bounds = most === undefined ? "" : `, ${least ?? 0} to ${most}${unit}`;
    return `${types.join(" or ")}${schema.format && !schema.format.startsWith("int") ? ` (${schema.format})` : ""}${bounds}`;
  }

  choices(schema) {
    const target = [schema, ...this.options(schema)].map((one) => this.resolve(one)).find((one) => one.enum);
    return target ? target.enum.filter((one) => one !== null) : [];
  }

  /** What is said of a schema, by itself or by what it may be. */
  about(schema) {
    const target = this.resolve(schema);
    const said = [schema, target, ...this.options(target)].find((one) => one.description);
    return said ? said.description : "";
  }

  /** The object inside a field: itself, an item of its list, or its one option. */
  inner(schema) {
    const target = this.resolve(schema);
    const options = this.options(target);
    if (options.length) return this.inner(options[0]);
    if (target.items) return this.inner(target.items);
    return this.members(target).length ? target : null;
  }

  row(name, required, schema, description, where) {
    const target = this.resolve(schema);
    const choices = this.choices(schema);
    const shown = choices.length > 0 && choices.length <= 12;
    return el("tr", {},
      el("td", { class: "name" }, el("code", {}, name), required ? el("span", { class: "need" }, "required") : null,
        el("span", { class: "kind" }, where ? `${where}, ` : "", this.kind(schema))),
      el("td", {}, el("p", {}, prose(description || this.about(schema))),
        shown ? el("p", {}, choices.map((one, n) => [n ? " · " : "", el("code", {}, String(one))])) : null));
  }

  fields(schema, depth = 0) {
    const members = this.members(schema).sort((one, other) => other.required - one.required);
    const nested = members.map(({ name, field }) => [name, this.inner(field)]).filter(([, inside]) => inside && depth < 3);
    return [
      el("div", { class: "scroll" }, el("table", {}, el("tbody", {},
        members.map(({ name, field, required }) => this.row(name, required, field, field.description))))),
      nested.map(([name, inside]) => el("details", {}, el("summary", {}, "Inside ", el("code", {}, name)),
        this.fields(inside, depth + 1))),
    ];
  }

  /** A plausible value. */
  example(schema, name = "", depth = 0) {
    const target = this.resolve(schema);
    if (target.example !== undefined) return target.example;
    if (target.examples && target.examples.length) return target.examples[0];
    if (target.enum) return target.enum[0];
    const options = this.options(target);
    if (options.length) return this.example(options[0], name, depth);
    const members = this.members(target);
    if (members.length) {
      if (depth > 4) return {};
      return Object.fromEntries(members.map((one) => [one.name, this.example(one.field, one.name, depth + 1)]));
    }
    const type = [].concat(target.type || "object")[0];
    if (type === "array") return target.items ? [this.example(target.items, name, depth + 1)] : [];
    if (type === "object") return {};
    if (type === "boolean") return false;
    if (type === "integer" || type === "number") return target.minimum ?? 0;
    if (target.format === "uuid") return "0197c2d4-7d0e-7b1a-9c55-1f0a2b3c4d5e";
    if (target.format === "date-time") return "2026-05-21T08:28:04.063Z";
    if (name === "device_id" || name === "gateway_id") return "SIM-DOCK-0001";
    return "…";
  }

  code(value) {
    return el("pre", { tabindex: "0" }, el("code", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2)));
  }

  answer(status, answer) {
    const [type, content] = Object.entries(answer.content || {})[0] || [];
    const label = el("summary", {}, el("span", { class: "status" }, status === "default" ? "4xx, 5xx" : status), " ", prose(answer.description));
    if (status === "default") {
      return el("details", {}, label, el("p", {}, "Every refusal has ", el("a", { href: "#refusals" }, "one form"), "."));
    }
    const schema = content && content.schema;
    const options = schema ? this.options(this.resolve(schema)) : [];
    const shown = options.length ? options : schema ? [schema] : [];
    const body = shown.filter((one) => this.members(one).length)
      .map((one) => [options.length ? el("p", {}, prose(this.about(one))) : null, this.fields(one)]);
    return el("details", {}, label, body.length ? body : el("p", {}, el("code", {}, type || "no body")));
  }

  operation(path, verb, op) {
    const parameters = op.parameters || [];
    const request = op.requestBody && Object.values(op.requestBody.content || {})[0];
    const good = Object.entries(op.responses || {}).find(([status]) => status.startsWith("2") && status !== "200")
      || Object.entries(op.responses || {}).find(([status]) => status === "200");
    const content = good && good[1].content && good[1].content["application/json"];
    const permission = op["x-permission"];
    const body = request ? this.example(request.schema) : null;
    for (const { name, required } of request ? this.members(request.schema) : []) if (!required) delete body[name];
    return el("article", { id: op.operationId },
      el("header", {},
        el("div", { class: "line" }, el("span", { class: `verb ${verb}` }, verb), el("code", {}, path),
          el("span", { class: "badge" }, permission ? `needs ${permission}` : op.security ? "signed" : "not signed")),
        el("h3", {}, prose(op.summary)), op.description ? el("p", {}, prose(op.description)) : null),
      el("div", { class: "columns" },
        el("div", {},
          parameters.length ? [el("h4", {}, "Parameters"), el("div", { class: "scroll" }, el("table", {}, el("tbody", {},
            parameters.map((one) => this.row(one.name, one.required, one.schema, one.description, one.in)))))] : null,
          request ? [el("h4", {}, "Body"), this.fields(request.schema)] : null,
          el("h4", {}, "Answers"), Object.entries(op.responses || {}).map(([status, answer]) => this.answer(status, answer))),
        el("div", {},
          el("h4", {}, "Request"),
          this.code(`${verb.toUpperCase()} ${path}${body ? `\n\n${JSON.stringify(body, null, 2)}` : ""}`),
          content ? [el("h4", {}, `Answer ${good[0]}`), this.code(this.example(content.schema))] : null)));
  }

  draw() {
    const groups = new Map((this.doc.tags || []).map((tag) => [tag.name, { about: tag.description, list: [] }]));
    for (const [path, item] of Object.entries(this.doc.paths)) {
      for (const verb of ["post", "get", "put", "patch", "delete"]) {
        if (!item[verb]) continue;
        const tag = (item[verb].tags || ["other"])[0];
        if (!groups.has(tag)) groups.set(tag, { about: "", list: [] });
        groups.get(tag).list.push([path, verb, item[verb]]);
      }
    }
    const title = (tag) => tag[0].toUpperCase() + tag.slice(1);
    const all = [...groups].filter(([, { list }]) => list.length);
    document.getElementById("about").replaceChildren(...prose(this.doc.info.description),
      ` Version ${this.doc.info.version}.`);
    document.getElementById("contents").replaceChildren(...all.flatMap(([tag, { list }]) => [
      el("h2", {}, title(tag)),
      el("ul", {}, list.map(([, verb, op]) => el("li", {}, el("a", { href: `#${op.operationId}` },
        el("span", { class: `verb ${verb}` }, verb), op.operationId)))),
    ]));
    document.getElementById("operations").replaceChildren(...all.map(([tag, { about, list }]) =>
      el("section", {}, el("h2", {}, title(tag)), about ? el("p", {}, prose(about)) : null,
        list.map(([path, verb, op]) => this.operation(path, verb, op)))));
  }
}

fetch("/openapi.json").then((answer) => answer.json()).then((doc) => {
  new Reference(doc).draw();
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) target.scrollIntoView({ behavior: "instant" });
}).catch((error) => {
  document.getElementById("operations").replaceChildren(el("p", {}, `The OpenAPI document could not be shown: ${error}`));
});
