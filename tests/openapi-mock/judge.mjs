// Prism's verdict on a request, and the reply it makes up. Prism does the judging; this file only asks, and sees to
// it that nothing passes because Prism could not look.
import { createRequire } from 'node:module';
import { createInstance } from '@stoplight/prism-http';

const require = createRequire(import.meta.url);
const ERROR = 0;

// Prism logs with pino and a level of its own; the verdicts are ours to tell.
const silent = () => {};
const logger = { trace: silent, debug: silent, info: silent, warn: silent, error: silent, fatal: silent, success: silent };
logger.child = () => logger;

const prism = createInstance(
  { isProxy: false, errors: false, checkSecurity: true, validateRequest: true, validateResponse: false, mock: { dynamic: false } },
  { logger },
);

// Prism swallows what Ajv cannot compile, and lets everything pass there.
let uncompiled = [];
for (const dialect of ['ajv', 'ajv/dist/2019', 'ajv/dist/2020']) {
  const { prototype } = require(dialect).default;
  if (Object.hasOwn(prototype, 'compile') === false) continue;
  const { compile } = prototype;
  prototype.compile = function compileLoudly(...schema) {
    try {
      return compile.apply(this, schema);
    } catch (error) {
      uncompiled.push(`a schema of the file cannot be used: ${error.message}`);
      throw error;
    }
  };
}

/**
 * What is wrong with a request (empty: nothing) and where, which of its query parameters the operation does not
 * declare, and Prism's reply.
 */
export async function judge({ operation, path }, { method, query, headers, body }) {
  uncompiled = [];
  const input = { method, url: { path, query: multi(query) }, headers, body };
  const result = await prism.request(input, [operation])();
  const declared = new Set((operation.request?.query ?? []).map(parameter => parameter.name));
  const undeclared = [...new Set(query.keys())].filter(name => !declared.has(name));
  if (result._tag === 'Right') {
    const { output, validations } = result.right;
    const faults = validations.input.filter(fault => fault.severity === ERROR);
    return verdict(faults, undeclared, output);
  }
  const problem = result.left;
  const faults = [...(problem.additional?.validation ?? [])];
  if (faults.length === 0) faults.push({ location: [], message: problem.detail ?? problem.message });
  return verdict(faults, undeclared, { statusCode: problem.status ?? 500 });
}

function verdict(faults, undeclared, reply) {
  return {
    faults: [...faults.map(fault => fault.message), ...uncompiled],
    places: faults.map(fault => fault.path ?? fault.location ?? []),
    undeclared,
    reply,
  };
}

function multi(query) {
  const values = {};
  for (const name of new Set(query.keys())) {
    const all = query.getAll(name);
    values[name] = all.length === 1 ? all[0] : all;
  }
  return values;
}
