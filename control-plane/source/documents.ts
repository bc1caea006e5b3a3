import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  Parser,
  parseAllDocuments,
} from 'yaml';
import type { Position } from './objects.ts';
import type { Path } from './path.ts';
import { type PlainValue, plainValue } from './plain-value.ts';

/**
 * Words of YAML that one document may have. The tree of a document takes about 400 bytes a word, so this bounds it to
 * less than a gigabyte.
 */
const MAX_WORDS = 2_000_000;

/** How often one document may repeat what an anchor names, the nested ones multiplied. */
const MAX_ALIASES = 1000;

const OPTIONS = { prettyErrors: false, merge: true, logLevel: 'silent' } as const;

/** Something wrong with the text itself. */
interface TextFault {
  readonly position: Position;
  readonly message: string;
  readonly severity: 'warning' | 'error';
}

/** One document of a file. */
export interface SourceDocument extends PlainValue {
  /** With an error among them, `value` is only what could be made out. */
  readonly faults: readonly TextFault[];
  /** Whether a key is there twice, so that `value` holds only one of what was written. */
  readonly isAmbiguous: boolean;
  readonly text: string;
  /** Position of the value at a path or of its key; of the nearest parent that is written, if it is not. */
  readonly locate: Locate;
}

/** @see SourceDocument.locate */
type Locate = (path: Path, part: 'key' | 'value') => Position;

/** Parses a file of YAML or JSON document by document. It never throws; a fault belongs to its document. */
export function* parseDocuments(file: string, text: string): Generator<SourceDocument> {
  const lines = new LineCounter();
  const trees = composeTrees(text, lines);
  for (let offset = 0; ; ) {
    try {
      const { done, value: tree } = trees.next();
      if (done) return;
      const slice = text.slice(offset, tree.range[2]);
      yield readTree(tree, { file, slice, offset, lines });
      offset = tree.range[2];
    } catch (error) {
      // The one error that is expected besides a breach of the limits is a stack that overflows.
      const message = error instanceof RangeError ? 'nested too deeply' : (error as Error).message;
      const position = positionAt({ file, lines }, offset);
      const faults = [{ position, message, severity: 'error' }] as const;
      const rest = text.slice(offset);
      yield { value: undefined, empties: [], faults, isAmbiguous: true, text: rest, locate: () => position };
      return;
    }
  }
}

interface Slice {
  readonly file: string;
  /** The document's text. */
  readonly slice: string;
  /** Where it begins in the file. */
  readonly offset: number;
  readonly lines: LineCounter;
}

function* composeTrees(text: string, lines: LineCounter): Generator<Document.Parsed> {
  const parser = new Parser(lines.addNewLine);
  const composer = new Composer(OPTIONS);
  lines.addNewLine(0);
  let words = 0;
  for (const word of new Lexer().lex(text)) {
    words += 1;
    if (words > MAX_WORDS) throw new Error('the document is too large; split it into several with ---');
    for (const token of parser.next(word)) {
      if (token.type === 'document') words = 0;
      yield* composer.next(token);
    }
  }
  for (const token of parser.end()) yield* composer.next(token);
  yield* composer.end();
}

function readTree(tree: Document.Parsed, slice: Slice): SourceDocument {
  const faults: TextFault[] = [];
  const [firstError] = tree.errors;
  if (firstError) faults.push({ ...textFault(firstError, slice), severity: 'error' });
  for (const warning of tree.warnings) faults.push({ ...textFault(warning, slice), severity: 'warning' });
  const isAmbiguous = tree.errors.some(({ code }) => code === 'DUPLICATE_KEY');
  const base = { faults, isAmbiguous, text: slice.slice, locate: locator(tree, slice) };
  try {
    const plain = plainValue(tree.toJS({ maxAliasCount: MAX_ALIASES }), slice.slice.length);
    return { ...plain, ...base };
  } catch (error) {
    const message =
      error instanceof RangeError ? 'nested too deeply' : lowerFirst((error as ReferenceError).message);
    const fault = { position: base.locate([], 'value'), message, severity: 'error' } as const;
    return { ...base, value: undefined, empties: [], faults: [fault] };
  }
}

function textFault(
  fault: { readonly message: string; readonly pos: readonly [number, number] },
  slice: Slice,
): { readonly position: Position; readonly message: string } {
  return { position: positionAt(slice, fault.pos[0]), message: lowerFirst(fault.message) };
}

/**
 * Finds positions in the tree of a document. The tree is large and seldom asked for something new once its object has been read,
 * so only its text is kept for long, which is parsed again when needed, and what was found: the same is asked at each change.
 */
function locator(tree: Document.Parsed, slice: Slice): Locate {
  const found = new Map<string, Position>();
  const find = findIn(tree, slice);
  return (path, part) => {
    const key = JSON.stringify([part, ...path]);
    const position = found.get(key) ?? find(path, part);
    found.set(key, position);
    return position;
  };
}

function findIn(tree: Document.Parsed, slice: Slice): Locate {
  let known = new WeakRef(tree);
  let base = 0;
  return (path, part) => {
    let document = known.deref();
    if (document === undefined) {
      document = parseAgain(slice.slice);
      if (document === undefined) return positionAt(slice, slice.offset);
      known = new WeakRef(document);
      base = slice.offset;
    }
    return positionAt(slice, base + offsetOf(document, path, part));
  };
}

function parseAgain(text: string): Document.Parsed | undefined {
  const documents = parseAllDocuments(text, OPTIONS);
  return 'empty' in documents ? undefined : documents.at(-1);
}

function offsetOf(document: Document.Parsed, path: Path, part: 'key' | 'value'): number {
  let node: unknown = resolve(document.contents, document);
  let key: unknown;
  for (const segment of path) {
    let next: unknown;
    if (isMap(node)) {
      const pair = node.items.find(({ key: own }) => isScalar(own) && String(own.value) === String(segment));
      if (pair === undefined) break;
      key = pair.key;
      next = resolve(pair.value, document);
    } else if (isSeq(node) && typeof segment === 'number') {
      next = resolve(node.items[segment], document);
      key = undefined;
    }
    if (next === undefined || next === null) break;
    node = next;
  }
  const written = part === 'key' && key !== undefined ? key : node;
  return (isNode(written) ? written.range?.[0] : undefined) ?? document.range[0];
}

function resolve(node: unknown, document: Document.Parsed): unknown {
  return isAlias(node) ? node.resolve(document) : node;
}

function positionAt(place: { readonly file: string; readonly lines: LineCounter }, offset: number): Position {
  const { line, col } = place.lines.linePos(offset);
  return { file: place.file, line: Math.max(line, 1), column: Math.max(col, 1) };
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
