import type { Socket } from 'node:net';

export interface LineSocketOptions {
  /** A line, as what its JSON says. What it throws ends the connection. */
  readonly onMessage: (message: unknown) => void;
  /** Nothing more comes, and nothing more goes; with why, unless it was closed in good order. Called once. */
  readonly onClose: (error: Error | undefined) => void;
}

/** A line of JSON that is longer than this ends the connection: a connection may have megabytes with it. */
const MAX_LINE_BYTES = 64 << 20;

/** Where messages go, and whence they come as the options say. */
export interface Lines extends Disposable {
  readonly send: (message: object) => void;
  /** After what has been sent. */
  readonly end: () => void;
}

/** A Unix socket on which both ends write lines of JSON. */
export class LineSocket implements Lines {
  readonly #socket: Socket;
  readonly #options: LineSocketOptions;
  #pieces: Buffer[] = [];
  #pending = 0;
  #error: Error | undefined;

  /** @param socket becomes this one's */
  constructor(socket: Socket, options: LineSocketOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('end', () => socket.end());
    socket.once('close', () => options.onClose(this.#error));
  }

  send(message: object): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** After what has been sent. */
  end(): void {
    this.#socket.end();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #take(bytes: Buffer): void {
    let from = 0;
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, from)) {
      const line = Buffer.concat([...this.#pieces, bytes.subarray(from, at)]);
      this.#pieces = [];
      this.#pending = 0;
      from = at + 1;
      if (!this.#read(line)) return;
    }
    this.#pieces.push(bytes.subarray(from));
    this.#pending += bytes.length - from;
    if (this.#pending > MAX_LINE_BYTES) this.#socket.destroy(new Error('a line is too long'));
  }

  #read(line: Buffer): boolean {
    try {
      this.#options.onMessage(JSON.parse(line.toString()));
      return true;
    } catch (error) {
      this.#socket.destroy(error instanceof Error ? error : new Error(String(error)));
      return false;
    }
  }
}
