import type { BrokenPolicy, MeshObject, ObjectKey, Position, Problem } from './objects.ts';

/** A problem of which it is not yet known what follows; one that changes nothing has its effect already. */
export type Finding = Omit<Problem, 'effect'> & { readonly effect?: string };

/** An object that is as it should be. */
export interface GoodEntry {
  readonly kind: 'good';
  readonly key: ObjectKey;
  readonly object: MeshObject;
  /** The object as it was written, without nulls. */
  readonly written: unknown;
  readonly findings: readonly Finding[];
}

/** What a file holds, one object of it. */
export type Entry =
  | GoodEntry
  | {
      readonly kind: 'wrong';
      /** Absent where not even its kind and name could be read. */
      readonly key?: ObjectKey;
      readonly position: Position;
      /** With at least one error. */
      readonly findings: readonly Finding[];
      /** What to deny, for a policy that could deny. */
      readonly policy?: BrokenPolicy;
    }
  | {
      /** Of a kind that is not read. */
      readonly kind: 'unread';
      readonly object: string;
      readonly position: Position;
      readonly findings: readonly Finding[];
    };
