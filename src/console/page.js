"use strict";
// Shows what the bridge says every two seconds. Everything is written as text, never as markup.
const $ = (id) => document.getElementById(id);
const EVERY_MS = 2000;
const KEY = "bcbridge-console-token";
let token = sessionStorage.getItem(KEY);
let before = null;

function cell(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function row(...texts) {
  const made = cell("tr");
  made.append(...texts.map((text) => cell("td", text)));
  return made;
}

async function ask(path) {
  const headers = token ? { authorization: "Bearer " + token } : {};
  return fetch(path, { headers, cache: "no-store" });
}

// One line of the OpenMetrics text is: name{labels} value
function parse(text) {
  const help = {}, samples = [];
  for (const line of text.split("\n")) {
    const told = /^# HELP (\S+) (.*)$/.exec(line);
    if (told) help[told[1]] = told[2];
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (found) samples.push({ name: found[1], labels: found[2] || "", value: Number(found[3]) });
  }
  return { help, samples, at: performance.now() };
}

function sum(now, name, labels = "") {
  const found = now.samples.filter((s) => s.name === name && s.labels.includes(labels));
  return found.length ? found.reduce((total, s) => total + s.value, 0) : null;
}

const brief = (n) => n === null || !isFinite(n) ? "–" : n.toLocaleString("en", { maximumFractionDigits: 2 });

function tiles(now) {
  const rate = (name, labels) => {
    const [a, b] = [before && sum(before, name, labels), sum(now, name, labels)];
    return a === null || b === null ? null : (b - a) / ((now.at - before.at) / 1000);
  };
  const seconds = sum(now, "bcbridge_hydration_latency_seconds_sum");
  const count = sum(now, "bcbridge_hydration_latency_seconds_count");
  const shown = [
    ["entities published", sum(now, "bcbridge_hydrated_records_total")],
    ["published a second", rate("bcbridge_hydrated_records_total")],
    ["records in hand", sum(now, "bcbridge_open_records")],
    ["mean seconds to publish", count ? seconds / count : null],
    ["API requests a second", rate("bcbridge_api_requests_total")],
    ["API requests left", sum(now, "bcbridge_api_quota_left_requests")],
    ["429 answers", sum(now, "bcbridge_api_throttled_total")],
    ["commands applied", sum(now, "bcbridge_commands_total", 'outcome="applied"')],
    ["commands unknown", sum(now, "bcbridge_commands_total", 'outcome="unknown"')],
    ["dead letters", sum(now, "bcbridge_dead_letters_total")],
  ];
  $("tiles").replaceChildren(...shown.map(([name, value]) => {
    const tile = cell("div", undefined, "tile");
    tile.append(cell("b", brief(value)), cell("span", name));
    return tile;
  }));
}

function table(now) {
  const old = new Map((before ? before.samples : []).map((s) => [s.name + s.labels, s.value]));
  const passed = before ? (now.at - before.at) / 1000 : 0;
  const rows = now.samples.filter((s) => !s.name.endsWith("_bucket")).map((s) => {
    const last = old.get(s.name + s.labels);
    const counts = /_(total|count|sum)$/.test(s.name);
    const made = row(s.name, s.labels, brief(s.value), counts && last !== undefined ? brief((s.value - last) / passed) : "");
    made.title = now.help[s.name.replace(/_(total|count|sum)$/, "")] || "";
    return made;
  });
  $("metrics").replaceChildren(...rows);
}

function tree(value) {
  if (value === null || typeof value !== "object") return cell("span", String(value));
  const made = cell("table");
  for (const [name, inner] of Object.entries(value)) {
    const line = cell("tr");
    const held = cell("td");
    held.append(tree(inner));
    line.append(cell("th", name), held);
    made.append(line);
  }
  return made;
}

function say(text, kind) {
  $("state").textContent = text;
  $("state").className = kind;
}

function close() {
  sessionStorage.removeItem(KEY);
  token = null;
  $("room").hidden = true;
  $("door").hidden = false;
}

async function look() {
  const [ready, metrics] = await Promise.all([ask("/readyz"), ask("/metrics")]);
  const { waiting_for } = await ready.json();
  say(ready.ok ? "ready" : "not ready: " + waiting_for.join(", "), ready.ok ? "good" : "bad");
  if (metrics.status === 401) return close();
  if (!metrics.ok) return;
  $("door").hidden = true;
  $("room").hidden = false;
  const now = parse(await metrics.text());
  tiles(now);
  table(now);
  before = now;
  $("no-status").hidden = Boolean(token);
  if (!token) return;
  const status = await ask("/api/status");
  if (status.ok) $("status").replaceChildren(tree(await status.json()));
}

async function loop() {
  try {
    if (!document.hidden && $("door").hidden) await look();
  } catch {
    say("no answer from the bridge", "bad");
  }
  setTimeout(loop, EVERY_MS);
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  $("token").value = "";
  sessionStorage.setItem(KEY, token);
  $("door").hidden = true;
});

loop();
