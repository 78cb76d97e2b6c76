// Shows /openapi.json: methods by service, their parameters, bodies and answers.
"use strict";

/** An element with text or children. */
function make(tag, content, attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const part of [content].flat()) element.append(part ?? "");
  return element;
}

/** A schema in a few words, with links to those that have a name. */
function words(schema) {
  if (!schema) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [make("a", name, { href: `#schema-${name}` })];
  }
  if (schema.type === "array") return ["list of ", ...words(schema.items)];
  if (schema.type === "object" && schema.additionalProperties)
    return ["map to ", ...words(schema.additionalProperties)];
  if (schema.contentEncoding) return [schema.contentEncoding];
  return [[schema.type, schema.format].filter(Boolean).join(", ") || "anything"];
}

function table(head, rows) {
  if (rows.length === 0) return "";
  const cells = (tag, row) => make("tr", row.map((cell) => make(tag, cell)));
  return make("table", [make("thead", cells("th", head)), make("tbody", rows.map((row) => cells("td", row)))]);
}

function content(of) {
  const rows = Object.entries(of?.content ?? {});
  return rows.map(([type, { schema }]) => [make("code", type), schema ? words(schema) : "a file"]);
}

function operation(path, verb, method) {
  const parameters = method.parameters.map((one) => [
    make("code", one.name),
    one.in,
    words(one.schema),
    one.description ?? "",
  ]);
  return make("details", [
    make("summary", [
      make("span", verb.toUpperCase(), { class: "verb" }),
      make("code", path),
      ` ${method.operationId}`,
    ]),
    make("p", method.description),
    table(["parameter", "in", "type", ""], parameters),
    method.requestBody ? make("h4", "Body") : "",
    table(["type", ""], content(method.requestBody)),
    make("h4", "Answer"),
    table(["type", ""], content(method.responses[200])),
  ]);
}

function schema(name, of) {
  const rows = Object.entries(of.properties ?? {}).map(([field, value]) => [
    make("code", field),
    words(value),
    value.description ?? "",
  ]);
  return make(
    "details",
    [make("summary", make("code", name)), make("p", of.description ?? ""), table(["field", "type", ""], rows)],
    { id: `schema-${name}` },
  );
}

function show(api) {
  const main = document.getElementById("methods");
  document.getElementById("about").textContent = `${api.info.version}. ${api.info.description}`;
  main.replaceChildren();
  for (const tag of api.tags) {
    const section = make("section", [make("h2", tag.name), make("p", tag.description)]);
    for (const [path, verbs] of Object.entries(api.paths))
      for (const [verb, method] of Object.entries(verbs))
        if (method.tags.includes(tag.name)) section.append(operation(path, verb, method));
    main.append(section);
  }
  const schemas = Object.entries(api.components.schemas).map(([name, of]) => schema(name, of));
  main.append(make("section", [make("h2", "Messages"), ...schemas]));
}

/** Opens the message that a link points at. */
function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

function filter(text) {
  for (const one of document.querySelectorAll("main details"))
    one.hidden = !one.querySelector("summary").textContent.toLowerCase().includes(text.toLowerCase());
}

window.addEventListener("hashchange", open);
document.getElementById("find").addEventListener("input", (event) => filter(event.target.value));
fetch("/openapi.json")
  .then((response) => response.json())
  .then(show)
  .then(open)
  .catch((error) => {
    document.getElementById("methods").textContent = `The description cannot be read: ${error.message}`;
  });
