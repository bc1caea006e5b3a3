/** What a request's target comes to. */
export type CanonicalPath =
  | {
      readonly kind: 'ok';
      /** Of unreserved characters, sub-delimiters and escapes that have to be ones, in upper case; no dot segments. */
      readonly path: string;
      /** As it was sent, from its question mark on; empty without. */
      readonly query: string;
    }
  | { readonly kind: 'ambiguous'; readonly reason: string };

const SLASH = 0x2f;
const QUESTION = 0x3f;

/** Nothing to do for a character of a path. */
const PLAIN = 0;
/** Work to do: a slash or dot beside one another, an escape, a parameter, what has to be an escape. */
const LOOK = 1;
const KINDS: Uint8Array = Uint8Array.from({ length: 0x7f }, (_, code) =>
  '%;"<>{}|^`\\'.includes(String.fromCharCode(code)) ? LOOK : PLAIN,
);

/**
 * The one form of a target's path, for matching, policies, logs and upstream: escapes of unreserved characters decoded, all
 * others in upper case, dot segments resolved, then repeated slashes merged (RFC 3986, 6.2.2 and 5.2.4). It is its own form.
 *
 * It is what Envoy makes with `normalize_path`, `merge_slashes` and `REJECT_REQUEST` for escaped slashes, but for escapes in
 * upper case, and we refuse what two readers may take for two things:
 * - a backslash, which Envoy takes for a slash;
 * - escaped control characters (NUL is refused by Envoy, too), escapes that are none, escapes that are no UTF-8;
 * - escapes of a percent sign after which one of the above, a slash, a dot or a semicolon would come out of a second decoding;
 * - parameters on a segment that is empty or a dot segment without them (`/..;x/`, `/;x/`), escaped or not.
 */
export function canonicalPath(target: string): CanonicalPath {
  if (target === '*') return { kind: 'ok', path: target, query: '' };
  if (target.charCodeAt(0) !== SLASH) return ambiguous('it does not start with a slash');
  let end = target.length;
  let isPlain = true;
  let previous = 0;
  for (let index = 0; index < target.length; index += 1) {
    const code = target.charCodeAt(index);
    if (code <= 0x20 || code >= 0x7f) return ambiguous('it has a character that no URI has');
    if (code === 0x23) return ambiguous('it has a fragment');
    if (end < target.length) continue;
    if (code === QUESTION) end = index;
    else if (KINDS[code] === LOOK || (previous === SLASH && (code === SLASH || code === 0x2e)))
      isPlain = false;
    previous = code;
  }
  const query = target.slice(end);
  const path = target.slice(0, end);
  return isPlain ? { kind: 'ok', path, query } : resolve(path, query);
}

function resolve(path: string, query: string): CanonicalPath {
  if (path.includes('\\')) return ambiguous('it has a backslash');
  if (/%(?![0-9A-Fa-f]{2})/.test(path)) return ambiguous('it has an escape that is none');
  const escaped = path
    .replaceAll(/%[0-9A-Fa-f]{2}/g, canonicalEscape)
    .replaceAll(/["<>{}|^`]/g, (character) => escapeOf(character.charCodeAt(0)));
  const reason = escapeProblem(escaped) ?? nestedProblem(escaped);
  if (reason !== undefined) return ambiguous(reason);
  const segments = escaped.slice(1).split('/');
  if (segments.some(hidesDotSegment))
    return ambiguous('it has parameters on an empty segment or a dot segment');
  return { kind: 'ok', path: withoutDots(segments), query };
}

function canonicalEscape(written: string): string {
  const code = Number.parseInt(written.slice(1), 16);
  const character = String.fromCharCode(code);
  return /[A-Za-z0-9._~-]/.test(character) ? character : escapeOf(code);
}

function escapeOf(code: number): string {
  return `%${code.toString(16).toUpperCase().padStart(2, '0')}`;
}

function escapeProblem(path: string): string | undefined {
  if (/%(?:2F|5C)/i.test(path)) return 'it has an escaped slash or backslash';
  if (/%(?:[01][0-9A-F]|7F)/i.test(path)) return 'it has an escaped control character';
  return (path.match(/(?:%[89A-F][0-9A-F])+/gi) ?? []).every(isUtf8)
    ? undefined
    : 'it has escapes that are no UTF-8';
}

/** What a reader who decodes twice, or more often, would find: `%25` may stand for a percent sign any number of times over. */
function nestedProblem(path: string): string | undefined {
  if (!path.includes('%25')) return undefined;
  const decoded = path.replaceAll(/%(?:25)+/g, '%');
  const reason = escapeProblem(decoded);
  if (reason !== undefined) return `decoded again, ${reason}`;
  return /%(?:2E|3B)/i.test(decoded) ? 'decoded again, it has an escaped dot or semicolon' : undefined;
}

/** Strict: neither overlong nor surrogates. */
function isUtf8(escapes: string): boolean {
  try {
    decodeURIComponent(escapes);
    return true;
  } catch {
    return false;
  }
}

function hidesDotSegment(segment: string): boolean {
  const parameters = segment.search(/;|%3B/);
  if (parameters < 0) return false;
  const name = segment.slice(0, parameters);
  return name === '' || name === '.' || name === '..';
}

/** Dots before slashes: `/a//../b` is `/a/b`, as an empty segment is one. */
function withoutDots(segments: readonly string[]): string {
  const kept: string[] = [];
  for (const segment of segments) {
    if (segment === '..') kept.pop();
    else if (segment !== '.') kept.push(segment);
  }
  const last = segments.at(-1) ?? '';
  const path = `/${kept.filter((segment) => segment !== '').join('/')}`;
  const isFolder = last === '' || last === '.' || last === '..';
  return isFolder && path !== '/' ? `${path}/` : path;
}

function ambiguous(reason: string): CanonicalPath {
  return { kind: 'ambiguous', reason };
}
