import { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { Handshakes } from './handshakes.ts';

/** A socket from one port of which only its close matters. */
function connected(): Socket {
  return Object.defineProperties(new Socket(), {
    remoteAddress: { value: '192.0.2.1' },
    remotePort: { value: 4000 },
  });
}

test('who comes back from a port before its former socket has closed takes one place, and gives it back', () => {
  const handshakes = new Handshakes(4, 2);
  for (let turn = 0; turn < 10; turn += 1) {
    const [before, after] = [connected(), connected()];
    expect(handshakes.begin(before)).toBe(true);
    expect(handshakes.begin(after)).toBe(true);
    before.emit('close');
    expect(handshakes.size).toBe(1);
    after.emit('close');
    expect(handshakes.size).toBe(0);
  }
});
