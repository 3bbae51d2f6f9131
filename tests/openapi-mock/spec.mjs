// The OpenAPI files as Prism's operations, and the search for the one that a request means.
// A file that cannot be used stops the start: an operation that is missing would look like a mistake of the bridge.
import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { parse } from '@stoplight/yaml';
import { getHttpOperationsFromSpec } from '@stoplight/prism-http';

const METHODS = ['get', 'put', 'post', 'delete', 'patch', 'head', 'options', 'trace'];

// Regular expressions of the files that are none in Unicode mode, which JSON Schema asks for. Prism takes a schema
// that it cannot compile for one that everything fits: without the repair these operations would go unchecked.
const REPAIRS = [
  ['^\\+?[1-9]\\d{1,14}(x\\d{1-5})?$', '^\\+?[1-9]\\d{1,14}(x\\d{1,5})?$'],
  ['[a-zA-Z0-9_\\ -]', '[a-zA-Z0-9_ -]'],
];

/** Every operation of every file of a directory, with a note of each repair. */
export async function load(directory) {
  const names = (await readdir(directory)).filter(name => /\.(ya?ml|json)$/.test(name)).sort();
  if (names.length === 0) throw new Error(`${directory} holds no OpenAPI file (*.yml, *.yaml, *.json)`);
  const paths = new Map();
  const repairs = [];
  let count = 0;
  for (const name of names) {
    const document = parse(await readFile(path.join(directory, name), 'utf8'));
    for (const pattern of repairPatterns(document)) repairs.push({ file: name, pattern });
    const expected = Object.values(document.paths ?? {})
      .reduce((sum, methods) => sum + METHODS.filter(method => methods[method]).length, 0);
    // Prism writes into the document it is given.
    const operations = await getHttpOperationsFromSpec(document);
    if (operations.length !== expected) {
      throw new Error(`${name} lists ${expected} operations, Prism found ${operations.length}`);
    }
    for (const operation of operations) file(paths, name, operation);
    count += operations.length;
  }
  return { paths: [...paths.values()], files: names.length, operations: count, repairs };
}

/** Puts an operation below its whole path: that of the server, then its own. */
function file(paths, name, operation) {
  const [server] = operation.servers ?? [];
  if (!server) throw new Error(`${name} names no server for ${operation.method} ${operation.path}`);
  const prefix = server.url.replace(/^https?:\/\/[^/]+/, '').replace(/\/$/, '');
  const template = (prefix + operation.path).split('/');
  const key = template.map(segment => (isParameter(segment) ? '{}' : segment)).join('/');
  if (!paths.has(key)) paths.set(key, { segments: key.split('/'), methods: new Map() });
  const { methods } = paths.get(key);
  const twin = methods.get(operation.method);
  if (twin) throw new Error(`${operation.method} ${key} is in ${twin.file} and in ${name}`);
  methods.set(operation.method, {
    file: name,
    // As the catalogue of the bridge spells it: without the store, with the version.
    label: `${operation.method.toUpperCase()} ${template.join('/').replace(/^\/stores\/\{[^}]+\}/, '')}`,
    depth: prefix.split('/').length - 1,
    operation,
  });
}

const isParameter = segment => /^\{.+\}$/.test(segment);

/**
 * The operation of a request, or why there is none. Where several templates fit, the one whose literal segments come
 * first is meant: `/hooks/admin` before `/hooks/{id}`.
 */
export function find(spec, method, pathname) {
  const segments = pathname.split('/');
  const fits = known => known.segments.length === segments.length
    && known.segments.every((segment, i) => (segment === '{}' ? segments[i] !== '' : segment === segments[i]));
  const [known] = spec.paths.filter(fits).sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  if (!known) return { why: 'no file has such a path' };
  const found = known.methods.get(method);
  if (!found) return { why: `the path is known for ${[...known.methods.keys()].join(', ')} only` };
  return { ...found, path: `/${segments.slice(found.depth + 1).join('/')}` };
}

const rank = known => known.segments.map(segment => (segment === '{}' ? '1' : '0')).join('');

function repairPatterns(node, done = new Set(), seen = new Set()) {
  if (node === null || typeof node !== 'object' || seen.has(node)) return done;
  seen.add(node);
  for (const [name, value] of Object.entries(node)) {
    const repair = name === 'pattern' && REPAIRS.find(([broken]) => broken === value);
    if (repair) {
      [, node.pattern] = repair;
      done.add(value);
    } else {
      repairPatterns(value, done, seen);
    }
  }
  return done;
}
