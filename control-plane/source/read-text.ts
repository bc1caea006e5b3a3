import { parseDocuments, type SourceDocument } from './documents.ts';
import type { Entry, Finding } from './entry.ts';
import { isRecord } from './plain-value.ts';
import { readObject, type SourceObject } from './read-object.ts';

/** So many objects without a kind or name, and it is no file of objects. */
const MAX_NAMELESS = 100;

/** What a text holds. */
export interface TextContents {
  readonly entries: readonly Entry[];
  /** Whether its text is right and every object has a name; if not, one that is not in `entries` may be there all the same. */
  readonly isComplete: boolean;
}

/**
 * Reads the objects of a file: YAML documents or JSON, alone or in lists.
 * @param file what the file is called in messages
 */
export function readText(file: string, text: string): TextContents {
  const entries: Entry[] = [];
  let nameless = 0;
  let isComplete = true;
  for (const document of parseDocuments(file, text)) {
    if (document.faults.some(({ severity }) => severity === 'error')) isComplete = false;
    for (const source of objectsOf(document, file)) {
      const entry = readObject(source);
      entries.push(entry);
      if (entry.kind === 'wrong' && entry.key === undefined) nameless += 1;
    }
    if (nameless > MAX_NAMELESS) {
      entries.push(givingUp(document, file));
      break;
    }
  }
  return { entries, isComplete: isComplete && nameless === 0 };
}

function givingUp(document: SourceDocument, file: string): Entry {
  const message = 'is not a file of Kubernetes objects; the rest of it is not read';
  const position = document.locate([], 'value');
  return {
    kind: 'wrong',
    position,
    findings: [{ object: file, position, path: '', message, severity: 'error' }],
  };
}

function* objectsOf(document: SourceDocument, file: string): Generator<SourceObject> {
  const { faults, value } = document;
  const findings = faults.map(({ severity, ...fault }): Finding => {
    const effect = severity === 'warning' ? { effect: 'ignored' } : {};
    return { object: file, path: '', severity, ...fault, ...effect };
  });
  if (value === undefined && findings.length === 0) return;
  const { kind, apiVersion, items } = isRecord(value) ? value : {};
  if (typeof kind !== 'string' || !kind.endsWith('List') || !Array.isArray(items)) {
    yield { ...document, findings };
    return;
  }
  // The items of a PodList may go without their own kind.
  const inherited = kind === 'List' ? {} : { kind: kind.slice(0, -'List'.length), apiVersion };
  const { isAmbiguous, locate } = document;
  const empties = Map.groupBy(document.empties, ([field, at]) => (field === 'items' ? at : undefined));
  for (const [index, item] of items.entries())
    yield {
      value: isRecord(item) ? { ...inherited, ...item } : item,
      empties: (empties.get(index) ?? []).map((path) => path.slice(2)),
      isAmbiguous,
      locate: (path, part) => locate(['items', index, ...path], part),
      findings,
    };
}
