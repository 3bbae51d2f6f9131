// Makes a reply out of an example: the example shows order 118 whoever is asked for, and page 1 of 20 for ever.
// Ids follow the request, pages end, dates are of now; everything else stays as the files show it.

const ID = /^(id|uuid)$|_id$|_uuid$/;
const MODIFIED = new Set(['date_modified', 'date_last_modified', 'date_updated', 'updated_at', 'updated_time', 'modified_at']);
const DEPTH_MAX = 8;

const snake = name => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase();
const isObject = value => value !== null && typeof value === 'object' && !Array.isArray(value);

/** The status and body to send for Prism's reply to an accepted request. */
export function usable({ operation, path }, { query, sent, rows, pages }, reply) {
  const asked = { parameters: parametersOf(operation.path, path), query, pages, rows, operation, path };
  let body = structuredClone(reply.body);
  // Some lists have an example of one thing only.
  if (rows && isObject(body) && !Array.isArray(body.data)) body.data = [isObject(body.data) ? body.data : {}];
  if (!isObject(body) && !Array.isArray(body)) return { status: reply.statusCode, body };
  if (declares(asked, 'id:in') || declares(asked, 'id')) identify(body.data ?? body);
  if (Array.isArray(body)) {
    // The file of the blog's tags puts its list into a list.
    body = bareList(body.flat(), asked);
    if (body.length === 0) return { status: 204, body: undefined };
  } else if (Array.isArray(body.data) && Array.isArray(sent)) {
    body.data = written(body.data, sent);
  } else if (Array.isArray(body.data)) {
    body.data = enveloped(body, asked);
  } else {
    one(isObject(body.data) ? body.data : body, asked);
  }
  freshen(body, 0);
  return { status: reply.statusCode, body };
}

/** The path's parameters in order: name in snake case, text. */
function parametersOf(template, path) {
  const texts = path.split('/').map(decodeURIComponent);
  const named = template.split('/').flatMap((segment, i) =>
    (/^\{.+\}$/.test(segment) ? [{ name: snake(segment.slice(1, -1)), text: texts[i], isLast: i === texts.length - 1 }] : []));
  // A metafield calls what it belongs to `resource_id`, whatever the path calls it.
  const owner = texts[texts.indexOf('metafields') - 1];
  return template.includes('}/metafields') ? [...named, { name: 'resource_id', text: owner, isLast: false }] : named;
}

function one(object, { parameters }) {
  for (const { name, text, isLast } of parameters) {
    const own = isLast && (ID.test(name) ? ['id', 'uuid', name] : ['type_id']).find(field => field in object);
    if (own) put(object, own, text);
    else if (name in object) put(object, name, text);
    // Some examples show what is sent, which has no id yet.
    else if (isLast && ID.test(name)) put(object, 'id', text);
  }
}

function put(object, name, text) {
  object[name] = typeof object[name] !== 'string' && /^\d{1,15}$/.test(text) ? Number(text) : text;
}

/** The rows of a write of many are what was sent, with whatever else the example shows. */
function written(example, sent) {
  return sent.map((item, i) => (isObject(item) ? { ...structuredClone(example[i % example.length]), ...item } : item));
}

/** Gives the rows of a list that can be asked for by id an id, where the example shows what is sent. */
function identify(rows) {
  if (!Array.isArray(rows)) return;
  for (const row of rows) if (isObject(row) && !('uuid' in row)) row.id ??= 0;
}

/** A V2 list: full pages up to the last, then 204. */
function bareList(example, asked) {
  const { query, pages } = asked;
  const rows = filtered(example, asked);
  if (rows) return page(query) > 1 ? [] : rows;
  if (example.length === 0) return [];
  if (!declares(asked, 'page')) {
    const number = keysetPage(query, example.length) ?? 1;
    return number > pages ? [] : distinct(example, asked, (number - 1) * example.length);
  }
  const limit = Number(query.get('limit') ?? 50);
  const number = keysetPage(query, limit) ?? page(query);
  if (number > pages) return [];
  const length = number < pages ? limit : Math.min(example.length, limit - 1);
  return distinct(repeat(example, length), asked, (number - 1) * limit);
}

/** A V3 list, by pages or by cursor. */
function enveloped(body, asked) {
  const { query } = asked;
  const rows = filtered(body.data, asked);
  const pages = rows ? 1 : asked.pages;
  const cursor = body.meta?.cursor_pagination;
  const numbered = body.meta?.pagination;
  const least = keysetPage(query, body.data.length);
  const number = least ?? (cursor && query.has('after') ? cursorPage(query) : page(query));
  const data = number > pages ? [] : rows ?? distinct(body.data, asked, (number - 1) * body.data.length);
  if (isObject(numbered)) Object.assign(numbered, least ? pagination(1, Math.max(pages - least + 1, 1), data.length, query) : pagination(number, pages, data.length, query));
  if (isObject(cursor)) {
    Object.assign(cursor, { count: data.length, start_cursor: `page-${number}`, end_cursor: `page-${number}` });
    cursor.links = links(number, pages, `after=page-${number}`);
  }
  return data;
}

function pagination(number, pages, count, query) {
  return {
    total: pages * count,
    count,
    per_page: Number(query.get('limit') ?? 50),
    current_page: number,
    total_pages: pages,
    links: links(number, pages, `page=${number + 1}`),
  };
}

const links = (number, pages, next) => (number < pages ? { next: `?${next}` } : {});
const page = query => Number(query.get('page') ?? 1);
const cursorPage = query => Number(query.get('after').replace('page-', '')) + 1 || Infinity;
/** The page that begins at the least id asked for; none where the query names none. */
function keysetPage(query, size) {
  const least = Number(query.get('min_id') ?? query.get('id:min'));
  return least > 0 && size > 0 ? Math.floor((least - 1) / size) + 1 : undefined;
}

const declares = ({ operation }, name) => (operation.request?.query ?? []).some(parameter => parameter.name === name);

/** The rows that a test wants, or those of the ids that the query asks for; none when it asks for no ids. */
function filtered(example, asked) {
  if (asked.rows) return asked.rows.map(row => ({ ...structuredClone(example[0]), ...row }));
  if (example.length === 0 || !isObject(example[0])) return undefined;
  const range = ['min_id', 'max_id'].map(name => asked.query.get(name)).map(Number);
  if (range.every(id => id > 0)) {
    const length = Math.min(range[1] - range[0] + 1, Number(asked.query.get('limit') ?? 50));
    const rows = repeat(example, Math.max(length, 0));
    rows.forEach((row, i) => put(row, 'id', String(range[0] + i)));
    return rows;
  }
  for (const [name, text] of asked.query) {
    const field = fieldOf(name.replace(/:in$/, ''), asked);
    const at = ID.test(name.replace(/:in$/, '')) && holder(example[0], field);
    if (!at) continue;
    const ids = asked.query.getAll(name).flatMap(value => value.split(',')).filter(Boolean);
    // `product_id=5` is met by many rows, `id:in=5,6` by one each.
    const rows = repeat(example, name.endsWith(':in') ? ids.length : example.length);
    rows.forEach((row, i) => put(holder(row, field) ?? row, field, ids[i % ids.length] ?? text));
    return distinct(rows, asked, 0, field);
  }
  return undefined;
}

/** `location_id` is the `id` of the rows of `/inventory/locations`. */
function fieldOf(name, { path }) {
  const collection = path.split('/').at(-1);
  return name.endsWith('_id') && collection === `${name.slice(0, -3)}s` ? 'id' : name;
}

/** The object of a row that has a field: the row, or an object directly in it. */
function holder(row, field) {
  return field in row ? row : Object.values(row).find(value => isObject(value) && field in value);
}

function repeat(example, length) {
  return Array.from({ length }, (_, i) => structuredClone(example[i % example.length]));
}

/** Gives every row an id of its own (from `base` on) and the path's ids; leaves `kept` alone. */
function distinct(rows, { parameters }, base, kept) {
  rows.forEach((row, i) => {
    if (!isObject(row)) return;
    for (const { name, text } of parameters) if (name in row && name !== kept) put(row, name, text);
    for (const name of ['id', 'uuid']) {
      if (!(name in row) || name === kept) continue;
      const number = base + i + 1;
      row[name] = typeof row[name] !== 'string' ? number : numbered(row[name], number);
    }
  });
  return rows;
}

/** A text id with a number worked in, in the shape that it has: number, UUID or other. */
function numbered(text, number) {
  if (/^\d+$/.test(text)) return String(number);
  if (/^[0-9a-f-]{36}$/i.test(text)) return text.slice(0, 24) + String(number).padStart(12, '0');
  return `${text}-${number}`;
}

/** Dates of change are of now, in the form that they have: a bridge that asks twice for stale rows asks once. */
function freshen(node, depth) {
  if (node === null || typeof node !== 'object' || depth > DEPTH_MAX) return;
  for (const [name, value] of Object.entries(node)) {
    // The least number that fits is what Prism makes up where the files show none: no id.
    if (value === -2147483648) node[name] = 1;
    else if (!MODIFIED.has(name)) freshen(value, depth + 1);
    else if (typeof value === 'number') node[name] = Math.floor(Date.now() / 1000);
    else if (typeof value === 'string') node[name] = now(value);
  }
}

function now(like) {
  const date = new Date();
  if (/^\d{4}-\d\d-\d\dT/.test(like) || like === 'string') return date.toISOString().replace(/\.\d+Z/, 'Z');
  if (/^[A-Z][a-z]{2}, /.test(like)) return date.toUTCString().replace('GMT', '+0000');
  return like;
}
