import type { Journal } from './journal.ts';
import type { Kernel, NetnsHandle } from './kernel.ts';
import { type NodeParts, Pod, type PodInfo } from './pod.ts';
import { ZDS } from './recording.ts';
import { bytesField, Message } from './wire.ts';

/** The recorded bytes of what a ztunnel says. */
const [HELLO = '', ACK = ''] = ZDS.filter(({ direction }) => direction === '<-').map(({ hex }) => hex);

/** The pods of the node, as the node agent tells of them. */
export class Enrolment {
  readonly pods: Map<string, Pod> = new Map();
  readonly #journal: Journal;
  readonly #named = new Set<string>();
  #snapshotSent = false;
  /** Error with which the next `add` is refused, whatever it is. */
  #refusal: string | undefined;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  refuseNextAdd(error: string): void {
    this.#refusal = error;
  }

  /** Takes nothing more in any pod, and lets what is there end. */
  drain(kernel: Kernel): void {
    for (const pod of this.pods.values()) {
      kernel.stopListening(pod.netns);
      pod.drain();
    }
  }

  /** The pod that a namespace belongs to. */
  podIn(netns: NetnsHandle): Pod | undefined {
    return [...this.pods.values()].find((pod) => pod.netns === netns);
  }

  /** Says hello, the first words on a connection. Its pods stay, unless the snapshot leaves them out. */
  greet(kernel: Kernel): void {
    this.#named.clear();
    this.#snapshotSent = false;
    this.#say(kernel, HELLO);
  }

  /** Takes a message of the node agent and answers it. @throws Error when it is against the protocol */
  async receive(
    packet: { hex: string; truncated: boolean; netns: readonly NetnsHandle[] },
    parts: NodeParts,
  ): Promise<void> {
    this.#journal({ event: 'zds', direction: '->', hex: packet.hex, fds: packet.netns.length });
    if (packet.truncated)
      throw new Error('a message of more than 1024 bytes, or with descriptors without end');
    const wasReady = this.#snapshotSent;
    const error = await this.#take(new Message(Buffer.from(packet.hex, 'hex')), packet.netns, parts);
    this.#say(parts.kernel, error === undefined ? ACK : bytesField(1, bytesField(1, error)).toString('hex'));
    if (this.#snapshotSent && !wasReady) this.#journal({ event: 'ready' });
  }

  /** What stands in the way of serving the pod, if anything. */
  async #take(
    message: Message,
    netns: readonly NetnsHandle[],
    parts: NodeParts,
  ): Promise<string | undefined> {
    const [add, del, snapshot, keep] = [1, 2, 3, 5].map((number) => message.message(number));
    const [handle] = netns;
    if (add !== undefined) {
      if (handle === undefined || netns.length !== 1) throw new Error(`add with ${netns.length} descriptors`);
      return this.#add(add, handle, parts);
    }
    if (netns.length > 0) throw new Error('a descriptor with a message that has none');
    if (del !== undefined) this.#drop(del.text(2), parts.kernel);
    else if (keep !== undefined) this.#named.add(keep.text(1));
    else if (snapshot !== undefined) this.#endSnapshot(parts.kernel);
    else throw new Error(`message ${message.numbers.join(', ')} is not known`);
    return undefined;
  }

  async #add(add: Message, netns: NetnsHandle, parts: NodeParts): Promise<string | undefined> {
    const info = add.message(2);
    if (info === undefined) throw new Error('add without workload_info');
    const pod: PodInfo = {
      uid: add.text(1),
      name: info.text(1),
      namespace: info.text(2),
      serviceAccount: info.text(3),
    };
    this.#named.add(pod.uid);
    const refusal = this.#refusal;
    this.#refusal = undefined;
    if (refusal !== undefined) return refusal;
    if (this.pods.get(pod.uid)?.netns === netns) return undefined;
    this.#drop(pod.uid, parts.kernel);
    try {
      await parts.kernel.serve(netns);
    } catch (error) {
      parts.kernel.release(netns);
      return `failure to start proxy : ${String(error)}`;
    }
    this.pods.set(pod.uid, new Pod(pod, netns, parts));
    return undefined;
  }

  #drop(uid: string, kernel: Kernel): void {
    const pod = this.pods.get(uid);
    if (pod === undefined) return;
    this.pods.delete(uid);
    kernel.release(pod.netns);
  }

  #endSnapshot(kernel: Kernel): void {
    if (this.#snapshotSent) throw new Error('a second snapshot');
    this.#snapshotSent = true;
    for (const uid of this.pods.keys()) if (!this.#named.has(uid)) this.#drop(uid, kernel);
  }

  #say(kernel: Kernel, hex: string): void {
    this.#journal({ event: 'zds', direction: '<-', hex, fds: 0 });
    kernel.send(hex);
  }
}
