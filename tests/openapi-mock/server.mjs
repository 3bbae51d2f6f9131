// A mock of BigCommerce's management API from its OpenAPI files: Prism judges every request and makes up the replies.
// Never a simulator: nothing written can be read back, no callback is sent. See README.md.
import { appendFileSync } from 'node:fs';
import http from 'node:http';
import { parseArgs } from 'node:util';
import { judge } from './judge.mjs';
import { sample } from './sample.mjs';
import { find, load } from './spec.mjs';
import { usable } from './usable.mjs';

const { values: options } = parseArgs({
  options: {
    spec: { type: 'string' },
    port: { type: 'string', default: '4010' },
    log: { type: 'string' },
    // Requests per 30 s, as the reply's headers tell it.
    quota: { type: 'string', default: '100000' },
    // How many pages each list has.
    pages: { type: 'string', default: '1' },
    // Answers 400 to a query parameter that the operation does not declare.
    strict: { type: 'boolean', default: false },
  },
});
if (!options.spec) fail('--spec is missing; it names the directory of the OpenAPI files');
const port = number('port', 0, 65535);
const quota = number('quota', 1, 1e9);
const pages = number('pages', 1, 1000);

// The counts go on beyond it; more of them would only fill the memory.
const LISTED_MAX = 1000;
// No body that the bridge sends is larger: BigCommerce takes batches of 2000 rows at most.
const BODY_MAX_BYTES = 16 * 1024 * 1024;

const spec = await load(options.spec).catch(error => fail(error.message));
let stats = zero();
// What a test wants of the replies: rows of lists by path without names of ids, and writes that end in doubt.
let behaviour = {};

function zero() {
  return { accepted: 0, rejected: 0, undeclared: 0, unanswered: 0, operations: {}, rejections: [], undeclared_list: [], unanswered_list: [] };
}

const server = http.createServer((request, response) => {
  answer(request, response).catch(error => {
    note('unanswered', 'unanswered_list', { request: `${request.method} ${request.url}`, why: [String(error.stack ?? error)] });
    send(response, 500, { title: 'the mock failed', detail: String(error) });
  });
});
server.listen(port, '127.0.0.1', () => console.log(`OPENAPI_MOCK=http://127.0.0.1:${server.address().port}`));
process.on('SIGTERM', () => process.exit(0));

async function answer(request, response) {
  const url = new URL(request.url, 'http://mock');
  const method = request.method.toLowerCase();
  const raw = await read(request);
  if (url.pathname.startsWith('/_mock/')) return ours(method, url, raw, response);
  const found = find(spec, method, url.pathname);
  if (found.why) {
    reject(request, [found.why]);
    return send(response, 404, { status: 404, title: found.why });
  }
  const parsed = parseBody(raw, request.headers);
  const asked = { method, query: url.searchParams, headers: request.headers, body: parsed.body };
  const { faults, undeclared, reply } = await judge(found, asked);
  if (parsed.fault) faults.push(parsed.fault);
  if (undeclared.length > 0) {
    note('undeclared', 'undeclared_list', { request: `${request.method} ${request.url}`, operation: found.label, names: undeclared });
    if (options.strict) return send(response, 400, { status: 400, title: `unknown query parameters: ${undeclared.join(', ')}` });
  }
  if (faults.length > 0) {
    reject(request, faults, found);
    const status = reply.statusCode >= 400 ? reply.statusCode : 422;
    return send(response, status, { status, title: 'the request breaks the specification', errors: faults });
  }
  stats.accepted += 1;
  stats.operations[found.label] = (stats.operations[found.label] ?? 0) + 1;
  if (behaviour.doubt && method !== 'get') return send(response, 500, { status: 500, title: 'the reply is in doubt, as asked for' });
  const rows = method === 'get' ? behaviour.lists?.[nameless(found.label.slice('GET '.length))] : undefined;
  const { status, body } = usable(found, { query: url.searchParams, sent: parsed.body, rows, pages }, reply);
  return send(response, status, body);
}

const nameless = path => path.replace(/\{[^}]+\}/g, '{}');

/** The mock's own paths. */
async function ours(method, { pathname, searchParams }, raw, response) {
  if (method === 'get' && pathname === '/_mock/sample') {
    const found = find(spec, searchParams.get('method').toLowerCase(), searchParams.get('path'));
    return found.why ? send(response, 404, { title: found.why }) : send(response, 200, await sample(found, searchParams));
  }
  if (method === 'post' && pathname === '/_mock/behaviour') {
    behaviour = JSON.parse(raw);
    return send(response, 204);
  }
  if (method === 'get' && pathname === '/_mock/stats') {
    const { files, operations, repairs } = spec;
    return send(response, 200, { spec: { files, operations, repairs }, ...stats });
  }
  if (method === 'post' && pathname === '/_mock/reset') {
    stats = zero();
    behaviour = {};
    return send(response, 204);
  }
  return send(response, 404, { title: 'the mock knows GET /_mock/stats and /_mock/sample, POST /_mock/reset and /_mock/behaviour' });
}

function reject(request, why, found) {
  note('rejected', 'rejections', { request: `${request.method} ${request.url}`, operation: found?.label, file: found?.file, why });
}

function note(count, list, entry) {
  stats[count] += 1;
  if (stats[list].length < LISTED_MAX) stats[list].push(entry);
  if (options.log) appendFileSync(options.log, `${JSON.stringify({ time: new Date().toISOString(), kind: count, ...entry })}\n`);
}

async function read(request) {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > BODY_MAX_BYTES) throw new Error(`a body of more than ${BODY_MAX_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parseBody(raw, headers) {
  if (raw === '') return { body: undefined };
  if (!/json/.test(headers['content-type'] ?? '')) return { body: raw };
  try {
    return { body: JSON.parse(raw) };
  } catch (error) {
    return { body: undefined, fault: `the body is no JSON: ${error.message}` };
  }
}

function send(response, status, body) {
  const text = body === undefined || body === null ? '' : JSON.stringify(body);
  response.writeHead(status, {
    ...(text && { 'content-type': 'application/json' }),
    'content-length': Buffer.byteLength(text),
    'x-rate-limit-requests-quota': quota,
    'x-rate-limit-requests-left': quota - 1,
    'x-rate-limit-time-window-ms': 30000,
    'x-rate-limit-time-reset-ms': 15000,
  });
  response.end(text);
}

function number(name, min, max) {
  const value = Number(options[name]);
  if (!Number.isInteger(value) || value < min || value > max) fail(`--${name} is '${options[name]}'; allowed: ${min} to ${max}`);
  return value;
}

function fail(message) {
  console.error(`openapi-mock: ${message}`);
  process.exit(2);
}
