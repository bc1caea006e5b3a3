/** Where in an object: keys and list indexes from its root. */
export type Path = readonly (string | number)[];

const PLAIN_KEY = /^[A-Za-z_][\w-]*$/;
const SEGMENT = /\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|([^.[\]]+)/gs;

/** `spec.rules[0].from`; keys that are no plain words in quotes: `metadata.labels["app.kubernetes.io/name"]`. */
export function formatPath(path: Path): string {
  let text = '';
  for (const segment of path) {
    if (typeof segment === 'number') text += `[${segment}]`;
    else if (!PLAIN_KEY.test(segment)) text += `[${JSON.stringify(segment)}]`;
    else text += text === '' ? segment : `.${segment}`;
  }
  return text;
}

/** The inverse of {@link formatPath}; text that it would not write gives the segments that can be made out. */
export function parsePath(text: string): Path {
  return [...text.matchAll(SEGMENT)].map(([, index, quoted, plain]) => {
    if (index !== undefined) return Number(index);
    return quoted === undefined ? (plain ?? '') : unquote(quoted);
  });
}

/** Of what stands between quotes in JSON; a text that does not is taken without its backslashes. */
function unquote(text: string): string {
  try {
    return String(JSON.parse(`"${text}"`));
  } catch {
    return text.replace(/\\(.)/g, '$1');
  }
}
