// Requests that the specification allows, for a test to send: ids, parameters that must be there, and bodies.
// Prism judges each before it is offered, so what is rejected afterwards is the bridge's doing.
import sampler from '@stoplight/json-schema-sampler';
import { judge } from './judge.mjs';

// Parts of one schema are sampled again and again where it refers to itself.
const TICKS_MAX = 50_000;
// A made body loses at most so many fields that Prism finds wrong, before it is given up.
const REPAIRS_MAX = 40;
const TOKEN = { 'x-auth-token': 'sample', accept: 'application/json', 'user-agent': 'sample' };

const isObject = value => value !== null && typeof value === 'object' && !Array.isArray(value);
const list = text => (text ?? '').split(',').filter(Boolean);

/**
 * A sample of an operation. Asked for by query: `n` (samples of different n have different ids), `query` (parameters
 * that are wanted besides the required ones), `shape` (object or array), `vary` (fields of each item that are to
 * differ), `items` (the field that holds the items), `without` (fields that the items must not have).
 */
export async function sample(found, asked) {
  const { operation } = found;
  const n = Number(asked.get('n') ?? 1);
  const request = { operation, template: found.path, n, query: new URLSearchParams(), parts: {} };
  await fillPath(request);
  const wanted = list(asked.get('query'));
  for (const parameter of operation.request?.query ?? []) {
    if (parameter.required || wanted.includes(parameter.name)) await fillQuery(request, parameter);
  }
  const why = [];
  const bodies = await bodiesOf(request, asked, why);
  return {
    operation: found.label,
    path: Object.values(request.parts),
    query: Object.fromEntries(request.query),
    bodies,
    why,
  };
}

/** The path with these parts in its places. */
function pathOf({ operation, template, parts }) {
  const names = operation.path.split('/');
  return template.split('/').map((text, i) => {
    const name = /^\{(.+)\}$/.exec(names[i])?.[1];
    return name && name in parts ? encodeURIComponent(parts[name]) : text;
  }).join('/');
}

async function ask(request, body) {
  const { operation, query } = request;
  const headers = body === undefined ? TOKEN : { ...TOKEN, 'content-type': 'application/json' };
  const asked = { method: operation.method, query, headers, body };
  return judge({ operation, path: pathOf(request) }, asked);
}

async function fillPath(request) {
  for (const part of request.operation.path.split('/')) {
    const name = /^\{(.+)\}$/.exec(part)?.[1];
    if (!name) continue;
    const declared = (request.operation.request?.path ?? []).find(parameter => parameter.name === name);
    await fill(request, declared, value => { request.parts[name] = value; }, 'path', name);
  }
}

async function fillQuery(request, parameter) {
  await fill(request, parameter, value => request.query.set(parameter.name, value), 'query', parameter.name);
}

/** Takes the first value that Prism has nothing against at this place. */
async function fill(request, parameter, put, ...place) {
  const values = valuesOf(parameter, request.n);
  for (const value of values) {
    put(value);
    const { places } = await ask(request, undefined);
    if (!places.some(found => place.every((part, i) => found[i] === part))) return;
  }
  put(values[0]);
}

function valuesOf(parameter, n) {
  const schema = parameter?.schema?.items ?? parameter?.schema ?? {};
  const shown = [schema.example, ...(schema.examples ?? []), schema.default, ...(parameter?.examples ?? []).map(example => example.value)]
    .filter(value => value !== undefined && value !== null && !isObject(value))
    .flat();
  // No schema says what a currency's code looks like.
  if (/currency_code/.test(parameter?.name)) return ['USD'];
  const values = schema.enum ? [schema.enum[n % schema.enum.length]] : [];
  const texts = shown.map(String);
  if (schema.format === 'uuid' || texts.some(isUuid)) values.push(uuid(n));
  if (schema.type === 'string' && texts.length > 0 && !/^\d+$/.test(texts[0])) values.push(...texts.slice(0, 1));
  return [...values, String(n), uuid(n), ...texts, 'sample', 'true', '2026-01-31T08:00:00Z'];
}

const isUuid = text => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
const uuid = n => `0f0e0d0c-1b2a-4c3d-8e4f-${String(n).padStart(12, '0')}`;

/** Every different body that Prism takes: the examples of the file, then what its schema makes up. */
async function bodiesOf(request, asked, why) {
  const bodies = [];
  for (const body of candidates(request.operation, asked.get('shape'), why)) {
    const whole = await repaired(request, trimmed(structuredClone(body), asked), why);
    if (whole === undefined) continue;
    for (const item of itemsOf(whole, asked)) await vary(request, whole, item, asked);
    if (!bodies.some(known => JSON.stringify(known) === JSON.stringify(whole))) bodies.push(whole);
  }
  return bodies;
}

function candidates(operation, shape, why) {
  const found = [];
  const contents = operation.request?.body?.contents ?? [];
  for (const content of contents.filter(({ mediaType }) => /json/.test(mediaType))) {
    found.push(...(content.examples ?? []).map(example => example.value));
    for (const schema of branches(content.schema)) {
      for (const options of [{ skipReadOnly: true }, { skipReadOnly: true, skipNonRequired: true }]) {
        try {
          found.push(sampler.sample(schema, { ...options, ticks: TICKS_MAX }, operation));
        } catch (error) {
          why.push(`no sample of the schema: ${error.message}`);
        }
      }
    }
  }
  const fits = body => body !== null && typeof body === 'object' && (!shape || Array.isArray(body) === (shape === 'array'));
  return found.filter(fits).map(unsigned);
}

/** The sampler's least number that fits is no price and no id. */
function unsigned(node) {
  if (typeof node === 'number' && node <= -2147483648) return 1;
  if (Array.isArray(node)) return node.map(unsigned);
  return isObject(node) ? Object.fromEntries(Object.entries(node).map(([name, value]) => [name, unsigned(value)])) : node;
}

function branches(schema) {
  const choices = schema?.oneOf ?? schema?.anyOf;
  return choices ? choices.flatMap(choice => branches({ ...schema, oneOf: undefined, anyOf: undefined, ...choice })) : [schema];
}

function itemsOf(body, asked) {
  const items = asked.get('items');
  const all = items ? body[items] : body;
  return (Array.isArray(all) ? all : [all]).filter(isObject);
}

function trimmed(body, asked) {
  for (const item of itemsOf(body, asked)) for (const name of list(asked.get('without'))) delete item[name];
  return body;
}

/** The body without the fields that Prism finds wrong; none where nothing is left that it would take. */
async function repaired(request, body, why) {
  for (let repairs = 0; repairs < REPAIRS_MAX; repairs += 1) {
    const { faults, places } = await ask(request, body);
    if (faults.length === 0) return body;
    if (places.some((place, i) => place[0] === 'body' && add(body, place.slice(1), faults[i]))) continue;
    const place = places.find(([where, ...rest]) => where === 'body' && rest.length > 0);
    if (!place || !remove(body, place.slice(1))) {
      why.push(...faults);
      return undefined;
    }
  }
  why.push(`more than ${REPAIRS_MAX} faults`);
  return undefined;
}

/** Puts in a field that must be there and that the schema says nothing more about. */
function add(body, place, fault) {
  const name = /must have required property '([^']+)'/.exec(fault)?.[1];
  // Prism names the place of what lacks it, or the place that lacks it.
  const parts = place.at(-1) === name ? place.slice(0, -1) : place;
  const holder = parts.reduce((node, part) => node?.[part], body);
  if (!name || !isObject(holder) || name in holder) return false;
  holder[name] = true;
  return true;
}

function remove(body, place) {
  const holder = place.slice(0, -1).reduce((node, name) => node?.[name], body);
  const name = place.at(-1);
  if (Array.isArray(holder)) {
    if (holder.length < 2) return place.length > 1 && remove(body, place.slice(0, -1));
    return holder.splice(Number(name), 1).length > 0;
  }
  return isObject(holder) && name in holder && delete holder[name];
}

/** Gives fields of an item values of its own, as far as Prism takes them. */
async function vary(request, whole, item, asked) {
  for (const field of list(asked.get('vary'))) {
    const names = field.split('.');
    const holder = names.slice(0, -1).reduce((node, name) => node?.[name], item);
    const name = names.at(-1);
    if (!isObject(holder) || holder[name] === undefined || holder[name] === null) continue;
    const before = holder[name];
    for (const value of [...variants(before, request.n), before]) {
      holder[name] = value;
      if ((await ask(request, whole)).faults.length === 0) break;
    }
  }
}

function variants(value, n) {
  if (typeof value === 'number') return [n];
  if (isUuid(value)) return [uuid(n)];
  if (/@/.test(value)) return [`sample-${n}@example.com`];
  return [`${value}-${n}`, `${value.slice(0, -2)}${n}`, String(n)];
}
