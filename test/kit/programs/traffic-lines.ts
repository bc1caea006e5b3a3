/** What traffic.ts is told and what it writes. */

/** `new`: HTTP, a connection each; `kept`: HTTP, one connection; `websocket`, `tcp`: a message each on one connection; `grpc`: streams of two seconds on one HTTP/2 connection. */
export type TrafficKind = 'new' | 'kept' | 'websocket' | 'tcp' | 'bulk' | 'dns' | 'grpc';

export interface TrafficLoop {
  readonly name: string;
  readonly kind: TrafficKind;
  /** HOST:PORT; for `dns` the name. */
  readonly target: string;
  /** How many of them run at once: 1 unless said. */
  readonly count?: number;
  /** Between two requests or messages. */
  readonly pauseMs: number;
  /** Of one exchange of `bulk`, and how fast it is sent. */
  readonly bytes?: number;
  readonly bytesPerSecond?: number;
}

export interface TrafficPlan {
  readonly file: string;
  readonly loops: readonly TrafficLoop[];
}

/** `failed`: a request or a new connection without its answer; `cut`: an open connection ended that was not to end. */
export type TrafficLine =
  | { readonly loop: string; readonly at: number; readonly what: 'failed' | 'cut'; readonly error: string }
  /** From `at` on nothing of the loop succeeded for so long. */
  | { readonly loop: string; readonly at: number; readonly what: 'stall'; readonly ms: number }
  /** What went well since the start, by who answered. */
  | {
      readonly loop: string;
      readonly at: number;
      readonly what: 'progress';
      readonly ok: Readonly<Record<string, number>>;
    };
