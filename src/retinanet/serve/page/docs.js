// The API as its own description tells it: /openapi.json, made readable.

const main = document.getElementById("operations");
const origin = location.href.replace(/\/docs\.html.*$/, "");

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function table(heads, rows) {
  const body = rows.map((cells) => element("tr", ...cells.map((cell) => element("td", cell))));
  const made = element("table", element("tr", ...heads.map((head) => element("th", head))), ...body);
  const scroll = element("div", made);
  scroll.className = "scroll";
  return scroll;
}

// A schema in a line: number 0..1, or null.
function type(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(type).filter((one) => one !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const) return schema.const;
  if (schema.type === "array") return `list of ${type(schema.items ?? {})}`;
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const range = low !== undefined || schema.maximum !== undefined ? ` ${low ?? ""}–${schema.maximum ?? ""}` : "";
  return (schema.type ?? "any") + range;
}

// An answer's shape, references followed.
function shape(schema, all, deep = 0) {
  if (schema.$ref) return shape(all[schema.$ref.split("/").pop()], all, deep);
  if (schema.anyOf) return shape(schema.anyOf[0], all, deep);
  if (schema.type === "array") return deep > 6 ? [] : [shape(schema.items ?? {}, all, deep + 1)];
  if (schema.properties) return Object.fromEntries(Object.entries(schema.properties).map(([name, one]) => [name, shape(one, all, deep + 1)]));
  return type(schema);
}

function example(path, method, operation) {
  const needed = (operation.parameters ?? []).filter((one) => one.in === "query" && one.required);
  const query = needed.map((one) => `${one.name}=100`).join("&");
  const url = `${origin}${path}${query && `?${query}`}`;
  const key = operation.security ? " -H 'Authorization: Bearer KEY'" : "";
  return method === "post" ? `curl -F file=@image.jpg${key} '${url}'` : `curl${key} '${url}'`;
}

function article(path, method, operation, all) {
  const verb = element("span", method.toUpperCase());
  verb.className = "method";
  const made = element("article", element("h2", verb, element("code", path), operation.summary ?? ""));
  if (operation.description) made.append(element("p", operation.description));
  made.append(element("h3", "Example"), element("pre", example(path, method, operation)));
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    const rows = parameters.map((one) => [element("code", one.name), type(one.schema), one.required ? "yes" : "", one.description ?? one.schema.description ?? ""]);
    made.append(element("h3", "Parameters"), table(["Name", "Type", "Needed", "Meaning"], rows));
  }
  if (operation.requestBody) {
    made.append(element("h3", "Body"), element("p", Object.keys(operation.requestBody.content).join(", or ")));
  }
  const ok = operation.responses[200]?.content?.["application/json"]?.schema;
  const rows = Object.entries(operation.responses).map(([status, one]) => [element("code", status), one.description ?? ""]);
  made.append(element("h3", "Answers"), table(["Status", "Meaning"], rows));
  if (ok?.$ref || ok?.properties) made.append(element("pre", JSON.stringify(shape(ok, all), null, 2)));
  return made;
}

try {
  const description = await (await fetch("openapi.json")).json();
  const all = description.components?.schemas ?? {};
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => article(path, method, operation, all)),
  );
  main.replaceChildren(...operations);
} catch (error) {
  main.replaceChildren(element("p", `The description cannot be read: ${error.message}`));
}
