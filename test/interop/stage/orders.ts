import type { Case, Observation } from '../case.ts';
import type { Application } from './applications.ts';
import type { Credentials, Door } from './doors.ts';

/** First line that the stage is given. */
export interface Setting {
  readonly applications: readonly Application[];
  readonly credentials: Credentials;
}

/** Every further line: send this, and say what came of it. */
export interface Order {
  /** Unique: it goes with the request to the applications. */
  readonly id: string;
  readonly door: Door;
  /** Host of the service, for requests that name none. */
  readonly host: string;
  readonly send: Case['send'];
  readonly script?: string;
  /** How many mirrored requests to wait for. */
  readonly mirrors: number;
  readonly patienceMs: number;
}

/** Or: how many mirrored requests of that path were there, in cases whose names begin so? */
export interface Count {
  readonly id: string;
  readonly prefix: string;
  readonly path: string;
}

/** What the stage answers, a line each, in any order. */
export type Report =
  | { readonly id: 'ready' }
  | { readonly id: string; readonly count: number }
  | { readonly id: string; readonly observation: Observation }
  | { readonly id: string; readonly error: string };
