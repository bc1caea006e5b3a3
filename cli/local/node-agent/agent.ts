import type { Logger } from 'pino';
import type { Reason } from '#bpf/layout.ts';
import type { CaptureMethod } from '#ztunnel/capture/capture.ts';
import type { LocatedPod } from '#ztunnel/zds/server.ts';
import type { OrderedPod, Orders } from './orders.ts';
import { type ControllerParts, goneOrder, PodController } from './pod-controller.ts';
import type { AgentReport } from './reports.ts';

export interface AgentOptions {
  readonly parts: Omit<ControllerParts, 'onChange'>;
  readonly writeReport: (report: AgentReport) => void;
  readonly logger: Logger;
}

interface Managed {
  readonly controller: PodController;
  readonly done: Promise<void>;
  target: OrderedPod;
  refused?: ReadonlyMap<Reason, number>;
}

/** The pods of a node, each with its controller. */
export class NodeAgent {
  readonly #options: AgentOptions;
  readonly #pods = new Map<string, Managed>();
  #problems: readonly string[] = [];
  #stopped = false;

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** Takes what the pods should be; resolves when each new pod's controller knows what is in place for it. */
  async apply({ pods, problems }: Orders): Promise<void> {
    for (const problem of problems) {
      if (!this.#problems.includes(problem)) this.#options.logger.error({ problem }, 'file not understood');
    }
    this.#problems = problems;
    const gone = [...this.#pods].filter(([uid]) => !pods.has(uid)).map(([, managed]) => managed);
    for (const managed of gone) managed.controller.update(goneOrder(managed.target));
    await Promise.all([...pods.values()].map((target) => this.#applyPod(target)));
    this.#report();
  }

  /** Pods that a ztunnel which connects is told of. */
  snapshot(): readonly LocatedPod[] {
    return [...this.#pods.values()].flatMap(({ controller }) => controller.served() ?? []);
  }

  /** A ztunnel refused a pod of its snapshot. */
  refused(uid: string, message: string): void {
    this.#pods.get(uid)?.controller.refused(message);
  }

  /** Ztunnels, or what peers were told, may have changed. */
  look(): void {
    for (const { controller } of this.#pods.values()) controller.look();
    this.#report();
  }

  /** Has it counted what was refused of pods that are captured by that method, and reported. */
  async countRefused(method: CaptureMethod['method']): Promise<void> {
    for (const managed of this.#pods.values()) {
      if (managed.controller.report().capture !== method) continue;
      // A pod that is just going is counted no more.
      const count = await managed.controller.countRefused().catch(() => undefined);
      if (count !== undefined) managed.refused = count;
    }
    this.#report();
  }

  /** Stops; what is in place stays. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { controller } of this.#pods.values()) controller.stop();
    await Promise.all([...this.#pods.values()].map(({ done }) => done));
  }

  async #applyPod(target: OrderedPod): Promise<void> {
    const { uid } = target.pod;
    const known = this.#pods.get(uid);
    if (known !== undefined) {
      known.target = target;
      known.controller.update(target);
      return;
    }
    const predecessor = this.#predecessorOf(target);
    const controller = new PodController(target, {
      ...this.#options.parts,
      onChange: () => this.#report(),
    });
    const adopted =
      predecessor === undefined ? controller.adopt() : predecessor.done.then(() => controller.adopt());
    this.#pods.set(uid, { controller, target, done: adopted.then(() => this.#run(uid, controller)) });
    if (predecessor === undefined) await adopted;
  }

  /** A pod of the same name, which is gone, has its files until it is forgotten. */
  #predecessorOf(target: OrderedPod): Managed | undefined {
    return [...this.#pods.values()].findLast((managed) => managed.target.fileName === target.fileName);
  }

  async #run(uid: string, controller: PodController): Promise<void> {
    try {
      await controller.run();
    } finally {
      if (!this.#stopped) this.#pods.delete(uid);
      this.#report();
    }
  }

  #report(): void {
    const { parts, writeReport, logger } = this.#options;
    const pods = [...this.#pods.values()].map(({ controller, target: { pod }, refused }) => {
      const { uid, name, namespace } = pod;
      const counted = [...(refused ?? [])].filter(([, count]) => count > 0);
      const report = { uid, name, namespace, ...controller.report() };
      return counted.length === 0 ? report : { ...report, refused: Object.fromEntries(counted) };
    });
    try {
      const ztunnel = { connected: parts.zds.connected() };
      writeReport({ pods, ztunnel, problems: this.#problems });
    } catch (error) {
      logger.error({ error: String(error) }, 'cannot write the report');
    }
  }
}
