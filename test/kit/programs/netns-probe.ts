/**
 * `node netns-probe.ts tcp|udp HOST PORT [SOURCE] [COUNT]` prints what came of it: see ../netns-probe.ts. With a COUNT of 0
 * a UDP probe asks once for each line on its standard input, always from the same socket, and prints a line for each.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { createInterface } from 'node:readline';

const [kind, host = '', port = '', source = '', count = '1'] = process.argv.slice(2);
if (kind === 'tcp') console.log(await tcp());
else if (count === '0') await interactive();
else console.log(await several(Number(count)));
process.exit(0);

async function tcp(): Promise<string> {
  const bound = source === '' ? {} : { localAddress: source };
  const socket = net.connect({ host, port: Number(port), ...bound });
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(2_000) });
    return 'connected';
  } catch (error) {
    return codeOf(error);
  }
}

async function several(times: number): Promise<string> {
  const answers: string[] = [];
  let socket: dgram.Socket;
  try {
    socket = await udpSocket();
  } catch (error) {
    return codeOf(error);
  }
  for (let turn = 0; turn < times; turn++) answers.push(await ask(socket));
  return answers.join(',');
}

async function interactive(): Promise<void> {
  const socket = await udpSocket();
  for await (const _line of createInterface({ input: process.stdin })) console.log(await ask(socket));
}

async function udpSocket(): Promise<dgram.Socket> {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
  socket.connect(Number(port), host);
  await once(socket, 'connect');
  return socket;
}

async function ask(socket: dgram.Socket): Promise<string> {
  socket.send('question');
  try {
    const [answer] = await once(socket, 'message', { signal: AbortSignal.timeout(1_000) });
    return String(answer);
  } catch (error) {
    return codeOf(error);
  }
}

function codeOf(error: unknown): string {
  if (error instanceof Error && error.name === 'AbortError') return 'timeout';
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
