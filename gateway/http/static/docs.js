// Renders openapi.json and sends requests. Everything is made with the DOM's own calls, so no text becomes markup.

import { Tabs } from "../page/tabs.js";

const BASE = new URL(".", location.href);
const METHODS = ["get", "post", "patch", "put", "delete"];
const KEPT = ["apiKey", "deviceToken"];
const THEMES = ["system", "light", "dark"];

const byId = (id) => document.getElementById(id);

/** An element with these properties (`class`, attributes, `on…` listeners) and children. */
function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** Text in which `words` between backticks are code, and blank lines end a paragraph. */
function prose(text) {
  return text.split(/\n\s*\n/).map((paragraph) => el("p", {}, inline(paragraph)));
}

function inline(text) {
  return text.split(/``?([^`]+)``?/).map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

// ---- the document ----

let api;

function resolve(node) {
  while (node?.$ref) node = node.$ref.slice(2).split("/").reduce((inner, key) => inner[key], api);
  return node ?? {};
}

function operations() {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => ({ path, method, ...methods[method] })));
}

/** A schema in a few words: "integer, 1 to 100", "bound | unbound". */
function kind(schema) {
  schema = resolve(schema);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map(kind))].join(" or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  const type = [schema.type ?? "anything"].flat().join(" or ");
  const least = schema.minimum ?? schema.minLength;
  const most = schema.maximum ?? schema.maxLength;
  const unit = schema.type === "string" ? " characters" : "";
  if (least != null && most != null) return `${type}, ${least} to ${most}${unit}`;
  if (most != null) return `${type}, at most ${most}${unit}`;
  return least != null ? `${type}, at least ${least}${unit}` : type;
}

/** What an operation is opened with here: the security schemes, with the scopes asked for. No cookie is sent from here. */
function keysOf(operation) {
  return schemesOf(operation).filter(([name]) => name !== "session");
}

const schemesOf = (operation) => (operation.security ?? []).map((scheme) => Object.entries(scheme)[0]).filter(Boolean);

// ---- what was typed, kept in this tab ----

const remembered = {
  get: (name) => sessionStorage.getItem(name) ?? "",
  set: (name, value) => (value ? sessionStorage.setItem(name, value) : sessionStorage.removeItem(name)),
};

function fill(name, value) {
  remembered.set(name, value);
  for (const input of document.querySelectorAll(`[data-path="${CSS.escape(name)}"]`)) {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

function setUpCredentials() {
  for (const name of KEPT) {
    byId(name).value = remembered.get(name);
    byId(name).addEventListener("input", () => remembered.set(name, byId(name).value.trim()));
  }
  byId("credentials").addEventListener("submit", (event) => event.preventDefault());
  byId("forget").addEventListener("click", () => KEPT.forEach((name) => setCredential(name, "")));
  const tabs = new Tabs(() => null, () => setCredential("apiKey", "")); // signed out there is signed out here
  if (!remembered.get("apiKey")) tabs.ask().then((key) => key != null && !byId("apiKey").value && setCredential("apiKey", key));
}

function setCredential(name, value) {
  byId(name).value = value;
  remembered.set(name, value);
}

function setUpTheme() {
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
  };
  show(remembered.get("theme") || "system");
  byId("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(remembered.get("theme") || "system") + 1) % THEMES.length];
    remembered.set("theme", next);
    show(next);
  });
}

// ---- one operation ----

function operationView(operation) {
  const view = el("details", { class: "operation", id: operation.operationId },
    el("summary", {},
      el("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()),
      el("span", { class: "path" }, operation.path),
      el("span", { class: "quiet" }, operation.summary)));
  // Only what is opened is built: the page is there at once, on a phone too.
  view.addEventListener("toggle", () => view.open && view.children.length === 1 && build(view, operation));
  return view;
}

function build(view, operation) {
  const parts = {
    inputs: parameterInputs(operation),
    body: bodyInput(operation),
    by: credentialChoice(operation),
    curl: el("pre", { tabindex: "0", "aria-label": "curl command" }),
    answer: el("div", { class: "answer", role: "status", "aria-live": "polite", hidden: true }),
    send: el("button", { type: "submit", class: "send" }, "Try"),
    stop: el("button", { type: "button", hidden: true }, "Stop"),
  };
  const form = el("form", { autocomplete: "off", novalidate: true },
    prose(operation.description ?? ""),
    el("p", { class: "quiet" }, needs(operation)),
    parts.inputs.size ? [el("h3", {}, "Parameters"), parameterFields(operation, parts.inputs)] : null,
    parts.body ? [el("h3", {}, "Body"), bodyFields(operation), parts.body] : null,
    el("div", { class: "actions" }, parts.send, parts.stop, parts.by && el("label", {}, "with the", parts.by)),
    parts.answer,
    el("h3", {}, "curl"),
    el("div", { class: "curl" }, parts.curl, copyButton(parts.curl)));
  const refresh = () => { parts.curl.textContent = curl(operation, parts); };
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => { event.preventDefault(); send(operation, parts); });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(operation, parts);
  });
  refresh();
  view.append(form, el("section", {}, el("h3", {}, "Answers"), answersTable(operation)));
}

function needs(operation) {
  const keys = keysOf(operation);
  if (!keys.length && schemesOf(operation).length) return "Needs the session of a person who signed in on the page. It cannot be tried here.";
  if (!keys.length) return "Needs no credential.";
  const words = keys.map(([name, scopes]) =>
    name === "deviceToken" ? "the device's own token" : `an API key with the scope ${scopes.join(", ")}`);
  return `Needs ${words.join(", or ")}.`;
}

function parameterInputs(operation) {
  return new Map((operation.parameters ?? []).map(resolve).map((parameter) => [parameter, parameterInput(parameter)]));
}

function parameterInput(parameter) {
  const inPath = parameter.in === "path";
  const common = { id: nextId(), "data-path": inPath ? parameter.name : null, required: parameter.required };
  const { enum: choices, default: fallback } = resolve(parameter.schema);
  if (choices) return el("select", common, el("option", { value: "" }, "(any)"), choices.map((each) => el("option", {}, each)));
  const hint = fallback ?? parameter.example ?? "";
  const input = el("input", { ...common, placeholder: String(hint), spellcheck: "false", autocapitalize: "off" });
  if (inPath) {
    input.value = remembered.get(parameter.name);
    input.addEventListener("change", () => fill(parameter.name, input.value.trim()));
  }
  return input;
}

let ids = 0;
const nextId = () => `input-${(ids += 1)}`;

function parameterFields(operation, inputs) {
  return el("div", { class: "fields" }, [...inputs].flatMap(([parameter, input]) => [
    el("label", { for: input.id }, el("code", {}, parameter.name), parameter.required ? " (required)" : "",
      el("div", { class: "quiet" }, `${parameter.in}, ${kind(parameter.schema)}`)),
    el("div", {}, input, el("small", {}, inline(parameter.description ?? parameter.schema?.description ?? ""))),
  ]));
}

function bodyInput(operation) {
  const content = operation.requestBody?.content?.["application/json"];
  if (!content) return null;
  const text = JSON.stringify(content.example ?? {}, null, 2);
  const area = el("textarea", { "aria-label": "Body, JSON", spellcheck: "false", rows: Math.min(16, text.split("\n").length + 1) });
  area.value = text;
  return area;
}

function bodyFields(operation) {
  const schema = resolve(operation.requestBody.content["application/json"].schema);
  const fields = Object.entries(schema.properties ?? {});
  if (!fields.length) return el("p", { class: "quiet" }, "Takes none; {} is as good as nothing.");
  return el("details", {}, el("summary", {}, `Its ${fields.length} fields`),
    el("table", {}, el("tbody", {}, fields.map(([name, field]) => el("tr", {},
      el("td", {}, el("code", {}, name), (schema.required ?? []).includes(name) ? " (required)" : ""),
      el("td", {}, el("span", { class: "quiet" }, kind(field)), " ", inline(resolve(field).description ?? "")))))));
}

function credentialChoice(operation) {
  const names = keysOf(operation).map(([name]) => name);
  if (names.length < 2) return null;
  return el("select", {}, names.map((name) => el("option", { value: name }, name === "apiKey" ? "API key" : "device token")));
}

function answersTable(operation) {
  return el("table", {}, el("tbody", {}, Object.entries(operation.responses).map(([status, answer]) => el("tr", {},
    el("td", {}, el("strong", {}, status)), el("td", {}, inline(resolve(answer).description ?? ""))))));
}

function copyButton(source) {
  const button = el("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch { // without TLS a browser may refuse: then it is at least selected
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } }, "Copy");
  return button;
}

// ---- a request ----

/** Address, headers and body as they stand in the form; `secret` false puts a variable where the credential goes. */
function requestOf(operation, parts, secret = true) {
  let path = operation.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const [parameter, input] of parts.inputs) {
    const value = input.value.trim();
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, value ? encodeURIComponent(value) : `{${parameter.name}}`);
    else if (value && parameter.in === "query") query.append(parameter.name, value);
    else if (value && parameter.in === "header") headers[parameter.name] = value;
  }
  const name = parts.by?.value ?? keysOf(operation)[0]?.[0];
  const variable = name === "deviceToken" ? "$DEVICE_TOKEN" : "$KEY";
  if (name) headers.Authorization = `Bearer ${secret ? remembered.get(name) : variable}`;
  const body = parts.body?.value.trim() || undefined;
  if (body) headers["Content-Type"] = "application/json";
  const url = new URL(path.slice(1), BASE);
  url.search = query;
  return { url: url.href.replaceAll("%7B", "{").replaceAll("%7D", "}"), name, options: { method: operation.method.toUpperCase(), headers, body } };
}

function curl(operation, parts) {
  const { url, options } = requestOf(operation, parts, false);
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const words = [`curl -s${isStream(operation) ? "N" : ""} -X ${options.method} ${quoted(url)}`];
  for (const [name, value] of Object.entries(options.headers)) {
    words.push(name === "Authorization" ? `-H "${name}: ${value}"` : `-H ${quoted(`${name}: ${value}`)}`);
  }
  if (options.body) words.push(`-d ${quoted(compact(options.body))}`);
  return words.join(" \\\n  ");
}

function compact(text) {
  try { return JSON.stringify(JSON.parse(text)); } catch { return text; }
}

function isStream(operation) {
  return Object.values(operation.responses).some((answer) => resolve(answer).content?.["text/event-stream"]);
}

function refusal(parts, name) {
  for (const [parameter, input] of parts.inputs) {
    if (parameter.required && !input.value.trim()) {
      input.focus();
      return `Fill in ${parameter.name} first.`;
    }
  }
  if (name && !remembered.get(name)) {
    byId(name).focus();
    return name === "apiKey"
      ? "Enter an API key at the top first: 'gateway keys create --name me' prints one."
      : "Enter a device token at the top first: the answer to a bind holds one.";
  }
  return null;
}

async function send(operation, parts) {
  const { url, name, options } = requestOf(operation, parts);
  const missing = refusal(parts, name);
  if (missing) return show(parts, { bad: true, status: missing });
  const abort = new AbortController();
  parts.stop.onclick = () => abort.abort();
  parts.send.disabled = true;
  parts.stop.hidden = false;
  const started = performance.now();
  try {
    const response = await fetch(url, { ...options, signal: abort.signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" });
    await showResponse(operation, parts, response, () => Math.round(performance.now() - started));
  } catch (error) {
    if (error.name !== "AbortError") show(parts, { bad: true, status: `No answer: ${error.message}. Is the gateway running?` });
  } finally {
    parts.send.disabled = false;
    parts.stop.hidden = true;
  }
  return undefined;
}

async function showResponse(operation, parts, response, elapsed) {
  const body = el("pre", { tabindex: "0", "aria-label": "Body of the answer" });
  const headers = el("pre", {}, [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n"));
  const status = `${response.status} ${response.statusText}`;
  const next = el("div", { class: "actions" });
  show(parts, { bad: !response.ok, status, note: ` in ${elapsed()} ms` },
    body, next, el("details", {}, el("summary", {}, "Headers"), headers));
  const text = await read(response, (sofar) => { body.textContent = sofar; });
  body.textContent = pretty(text) || "(empty)";
  if (response.ok) takeUp(operation, parts, response.status, text, next);
}

function show(parts, { bad, status, note = "" }, ...rest) {
  parts.answer.hidden = false;
  parts.answer.className = `answer ${bad ? "bad" : "good"}`;
  parts.answer.replaceChildren(el("p", {}, el("span", { class: "status" }, status), el("span", { class: "quiet" }, note)), ...rest);
}

/** The body as text; of a stream what has come so far is shown as it comes. */
async function read(response, tell) {
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return response.text();
  const decoder = new TextDecoder();
  let text = "";
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text = (text + decoder.decode(part.value, { stream: true })).slice(-200000);
    tell(text);
  }
  return text;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

// ---- what an answer is good for ----

/** Take up the token of a bind, and offer what may come next with the ids that were answered. */
function takeUp(operation, parts, status, text, next) {
  let answer;
  try { answer = JSON.parse(text); } catch { return; }
  if (typeof answer.device_token === "string") setCredential("deviceToken", answer.device_token);
  const path = Object.fromEntries([...parts.inputs].filter(([each]) => each.in === "path").map(([each, input]) => [each.name, input.value.trim()]));
  for (const link of Object.values(resolve(operation.responses[status]).links ?? {})) {
    const values = Object.entries(link.parameters).map(([name, expression]) => [name, evaluate(expression, answer, path)]);
    if (values.every(([, value]) => value)) next.append(nextButton(link.operationId, values));
  }
  if (next.children.length) next.prepend(el("span", { class: "quiet" }, "Next:"));
}

/** A runtime expression of OpenAPI, as far as this document uses them. */
function evaluate(expression, body, path) {
  const [source, pointer] = expression.split("#");
  if (source === "$response.body") return pointer.split("/").slice(1).reduce((inner, key) => inner?.[key], body);
  return path[source.replace("$request.path.", "")];
}

function nextButton(operationId, values) {
  const target = operations().find((each) => each.operationId === operationId);
  return el("button", { type: "button", onclick: () => {
    values.forEach(([name, value]) => fill(name, value));
    open(operationId);
  } }, target.summary);
}

// ---- the page ----

function open(operationId) {
  const view = byId(operationId);
  if (!view?.matches("details")) return;
  view.open = true;
  view.hidden = false;
  history.replaceState(null, "", `#${operationId}`);
  view.scrollIntoView({ block: "start" });
  view.querySelector("summary").focus({ preventScroll: true });
}

function render() {
  byId("version").textContent = api.info.version;
  byId("about").append(el("details", {}, el("summary", {}, "About this API"), prose(api.info.description ?? "")));
  const main = byId("operations");
  for (const tag of api.tags) {
    const own = operations().filter((operation) => operation.tags?.includes(tag.name));
    main.append(el("section", {}, el("h2", {}, tag.name), prose(tag.description ?? ""), own.map(operationView)));
    byId("contents").append(el("h2", {}, tag.name), el("ul", {}, own.map(contentsLine)));
  }
}

function contentsLine(operation) {
  const link = el("a", { href: `#${operation.operationId}`, title: operation.path, onclick: (event) => {
    event.preventDefault();
    open(operation.operationId);
  } }, el("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()), operation.summary);
  return el("li", {}, link);
}

function setUpFind() {
  byId("find").addEventListener("input", () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const operation of operations()) {
      const text = [operation.path, operation.method, operation.summary, operation.description, operation.operationId].join(" ").toLowerCase();
      const hidden = !words.every((word) => text.includes(word));
      byId(operation.operationId).hidden = hidden;
      document.querySelector(`nav a[href="#${operation.operationId}"]`).parentElement.hidden = hidden;
    }
    for (const section of document.querySelectorAll("main > section")) {
      section.hidden = !section.querySelector(".operation:not([hidden])");
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      byId("find").focus();
    }
  });
}

async function start() {
  setUpTheme();
  setUpCredentials();
  try {
    const response = await fetch(new URL("openapi.json", BASE));
    if (!response.ok) throw new Error(`status ${response.status}`);
    api = await response.json();
  } catch (error) {
    byId("loading").textContent = `openapi.json could not be read (${error.message}). Is the gateway running? Reload to try again.`;
    return;
  }
  byId("loading").remove();
  render();
  setUpFind();
  const openNamed = () => location.hash && open(location.hash.slice(1));
  addEventListener("hashchange", openNamed);
  openNamed();
}

start();
