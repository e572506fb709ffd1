// Shows the API description of /openapi.json as a readable page.

const main = document.getElementById("operations");
const origin = location.href.replace(/\/docs\.html.*$/, "");

function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function table(heads, rows) {
  const head = heads.map((name) => Object.assign(element("th", name), { scope: "col" }));
  const body = rows.map((cells) => element("tr", ...cells.map((cell) => element("td", cell))));
  const scroll = element("div", element("table", element("tr", ...head), ...body));
  scroll.className = "scroll";
  return scroll;
}

// Return a schema as one line of text, such as "number 0–1".
function type(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(type).filter((name) => name !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const) return schema.const;
  if (schema.type === "array") return `list of ${type(schema.items ?? {})}`;
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const range = low !== undefined || schema.maximum !== undefined ? ` ${low ?? ""}–${schema.maximum ?? ""}` : "";
  return (schema.type ?? "any") + range;
}

// Return the structure of an answer, with references resolved. A deprecated field is shown as its description.
function shape(schema, all, deep = 0) {
  if (schema.$ref) return shape(all[schema.$ref.split("/").pop()], all, deep);
  if (schema.anyOf) return shape(schema.anyOf[0], all, deep);
  if (schema.type === "array") return deep > 6 ? [] : [shape(schema.items ?? {}, all, deep + 1)];
  if (schema.properties) {
    const field = (property) => (property.deprecated ? property.description : shape(property, all, deep + 1));
    return Object.fromEntries(Object.entries(schema.properties).map(([name, property]) => [name, field(property)]));
  }
  return type(schema);
}

function example(path, method, operation) {
  const required = (operation.parameters ?? []).filter((parameter) => parameter.in === "query" && parameter.required);
  const query = required.map((parameter) => `${parameter.name}=100`).join("&");
  const url = `${origin}${path}${query && `?${query}`}`;
  const key = operation.security ? " -H 'Authorization: Bearer KEY'" : "";
  return method === "post" ? `curl -F file=@image.jpg${key} '${url}'` : `curl${key} '${url}'`;
}

function article(path, method, operation, all) {
  const verb = element("span", method.toUpperCase());
  verb.className = "method";
  const section = element("article", element("h2", verb, element("code", path), operation.summary ?? ""));
  if (operation.description) section.append(element("p", operation.description));
  section.append(element("h3", "Example"), element("pre", example(path, method, operation)));
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    const rows = parameters.map(({ name, schema, required, description }) => [
      element("code", name),
      type(schema) + (required ? ", required" : ""),
      description ?? schema.description ?? "",
    ]);
    section.append(element("h3", "Parameters"), table(["Name", "Type", "Meaning"], rows));
  }
  if (operation.requestBody) {
    section.append(element("h3", "Request body"), element("p", Object.keys(operation.requestBody.content).join(", or ")));
  }
  const ok = operation.responses[200]?.content?.["application/json"]?.schema;
  const rows = Object.entries(operation.responses).map(([status, response]) => [element("code", status), response.description ?? ""]);
  section.append(element("h3", "Answers"), table(["Status", "Meaning"], rows));
  if (ok?.$ref || ok?.properties) section.append(element("pre", JSON.stringify(shape(ok, all), null, 2)));
  return section;
}

try {
  const description = await (await fetch("openapi.json")).json();
  const all = description.components?.schemas ?? {};
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => article(path, method, operation, all)),
  );
  main.replaceChildren(...operations);
} catch (error) {
  main.replaceChildren(element("p", `openapi.json, the description of the API, cannot be read: ${error.message}`));
}
