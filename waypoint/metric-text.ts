/** A metric's label names and values, in the same order. */
export type Labels = readonly (readonly [name: string, value: string])[];

/** `{a="b",c="d"}`; empty without labels. */
export function labelText(labels: Labels): string {
  if (labels.length === 0) return '';
  return `{${labels.map(([name, value]) => `${name}="${escapeLabel(value)}"`).join(',')}}`;
}

/** `# HELP` and `# TYPE`. */
export function familyHead(name: string, help: string, type: 'counter' | 'gauge' | 'histogram'): string {
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
}

/** Upper bounds that Envoy and Istio use for everything, in ms or bytes. */
export const BUCKETS: readonly number[] = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
  3_600_000,
];

/** Counts of values by {@link BUCKETS}. */
export class Distribution {
  readonly #counts = new Uint32Array(BUCKETS.length + 1);
  #sum = 0;

  observe(value: number): void {
    let at = 0;
    while (at < BUCKETS.length && value > (BUCKETS[at] ?? Number.POSITIVE_INFINITY)) at += 1;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#sum += value;
  }

  /** Its lines. @param labels without braces, `a="b",c="d"` */
  text(name: string, labels: string): string {
    let total = 0;
    let text = '';
    for (const [at, count] of this.#counts.entries()) {
      total += count;
      text += `${name}_bucket{${labels},le="${BUCKETS[at] ?? '+Inf'}"} ${total}\n`;
    }
    return `${text}${name}_sum{${labels}} ${this.#sum}\n${name}_count{${labels}} ${total}\n`;
  }
}

/** A counter with labels. Sets of values beyond the limit are counted together, as `other`. */
export class CounterFamily {
  readonly #name: string;
  readonly #help: string;
  readonly #labelNames: readonly string[];
  readonly #limit: number;
  readonly #counts = new Map<string, { readonly values: readonly string[]; count: number }>();

  constructor(name: string, help: string, labelNames: readonly string[] = [], limit = 1000) {
    this.#name = name;
    this.#help = help;
    this.#labelNames = labelNames;
    this.#limit = limit;
  }

  add(values: readonly string[] = [], amount = 1): void {
    const key = values.join('\n');
    const known = this.#counts.get(key);
    if (known !== undefined) known.count += amount;
    else if (this.#counts.size < this.#limit) this.#counts.set(key, { values, count: amount });
    else this.#addOther(amount);
  }

  text(): string {
    let text = familyHead(this.#name, this.#help, 'counter');
    for (const { values, count } of this.#counts.values()) {
      const labels = this.#labelNames.map((name, at): [string, string] => [name, values[at] ?? '']);
      text += `${this.#name}${labelText(labels)} ${count}\n`;
    }
    return text;
  }

  #addOther(amount: number): void {
    const other = this.#counts.get('other') ?? { values: this.#labelNames.map(() => 'other'), count: 0 };
    other.count += amount;
    this.#counts.set('other', other);
  }
}

/** A value with its labels. */
export interface Sample {
  readonly labels?: Labels;
  readonly value: number;
}

/** Values that are asked for when somebody looks. */
export function gaugeText(name: string, help: string, samples: readonly Sample[]): string {
  return familyHead(name, help, 'gauge') + samplesText(name, samples);
}

/** Likewise, of what only grows. */
export function counterText(name: string, help: string, samples: readonly Sample[]): string {
  return familyHead(name, help, 'counter') + samplesText(name, samples);
}

function samplesText(name: string, samples: readonly Sample[]): string {
  return samples.map(({ labels = [], value }) => `${name}${labelText(labels)} ${value}\n`).join('');
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['\\', '\\\\'],
  ['"', '\\"'],
  ['\n', '\\n'],
]);

function escapeLabel(value: string): string {
  return value.replace(/[\\"\n]/g, (character) => ESCAPES.get(character) ?? character);
}
