/**
 * Reads the types that an object file carries (BTF, Documentation/bpf/btf.rst of Linux), as far as the test of layout.ts
 * needs them.
 */

const KIND = { int: 1, pointer: 2, array: 3, struct: 4, enum: 6, variable: 14, section: 15 } as const;
/** Bytes after the common 12 by kind: fixed, and for each of the `count` entries. */
const EXTRA: ReadonlyMap<number, readonly [fixed: number, each: number]> = new Map([
  [KIND.int, [4, 0]],
  [KIND.array, [12, 0]],
  [KIND.struct, [0, 12]],
  [5, [0, 12]],
  [KIND.enum, [0, 8]],
  [13, [0, 8]],
  [KIND.variable, [4, 0]],
  [KIND.section, [0, 12]],
  [17, [4, 0]],
  [19, [0, 12]],
]);

interface Member {
  readonly name: string;
  readonly type: number;
  readonly offset: number;
}

interface Type {
  readonly kind: number;
  readonly name: string;
  /** A size, or the type that this one is made of. */
  readonly sizeOrType: number;
  readonly members: readonly Member[];
  readonly length: number;
}

const VOID: Type = { kind: 0, name: 'void', sizeOrType: 0, members: [], length: 0 };

/** A struct: its size and where its members lie, in bytes. */
export interface StructLayout {
  readonly size: number;
  readonly offsets: Readonly<Record<string, number>>;
}

export class Btf {
  readonly #types: readonly Type[];

  constructor(object: Buffer) {
    this.#types = readTypes(section(object, '.BTF'));
  }

  struct(name: string): StructLayout | undefined {
    const type = this.#types.find((candidate) => candidate.kind === KIND.struct && candidate.name === name);
    if (type === undefined) return undefined;
    const offsets = Object.fromEntries(type.members.map((member) => [member.name, member.offset / 8]));
    return { size: type.sizeOrType, offsets };
  }

  /** Maps by name: numbers as declared, and the sizes of key and value. */
  maps(): ReadonlyMap<string, Readonly<Record<string, number>>> {
    const declared = this.#types.find((type) => type.kind === KIND.section && type.name === '.maps');
    return new Map(
      (declared?.members ?? []).map((member) => {
        const variable = this.#get(member.type);
        const parts = this.#get(variable.sizeOrType).members.map((part) => [part.name, this.#mapPart(part)]);
        return [variable.name, Object.fromEntries(parts)];
      }),
    );
  }

  /** A key or value is a pointer to its type; a number is a pointer to an array of that length. */
  #mapPart(part: Member): number {
    const pointed = this.#get(part.type).sizeOrType;
    return part.name === 'key' || part.name === 'value' ? this.#size(pointed) : this.#get(pointed).length;
  }

  #size(id: number): number {
    const type = this.#get(id);
    const sized: readonly number[] = [KIND.int, KIND.struct, KIND.enum];
    if (sized.includes(type.kind)) return type.sizeOrType;
    if (type.kind === KIND.pointer) return 8;
    return this.#size(type.sizeOrType);
  }

  #get(id: number): Type {
    return this.#types[id] ?? VOID;
  }
}

function readTypes(btf: Buffer): readonly Type[] {
  const header = btf.readUInt32LE(4);
  const first = header + btf.readUInt32LE(8);
  const end = first + btf.readUInt32LE(12);
  const strings = header + btf.readUInt32LE(16);
  const name = (at: number): string => text(btf, strings + btf.readUInt32LE(at));
  const types: Type[] = [VOID];
  for (let at = first; at < end; ) {
    const info = btf.readUInt32LE(at + 4);
    const kind = (info >>> 24) & 31;
    const count = info & 0xffff;
    const [fixed, each] = EXTRA.get(kind) ?? [0, 0];
    const hasNames = kind === KIND.struct || kind === 5;
    types.push({
      kind,
      name: name(at),
      sizeOrType: btf.readUInt32LE(at + 8),
      members: Array.from({ length: each === 12 ? count : 0 }, (_, index) => {
        const entry = at + 12 + index * each;
        return hasNames
          ? { name: name(entry), type: btf.readUInt32LE(entry + 4), offset: btf.readUInt32LE(entry + 8) }
          : { name: '', type: btf.readUInt32LE(entry), offset: btf.readUInt32LE(entry + 4) };
      }),
      length: kind === KIND.array ? btf.readUInt32LE(at + 20) : 0,
    });
    at += 12 + fixed + each * count;
  }
  return types;
}

/** The bytes of a section of an ELF file; a view, so that a test can change the file by it. */
export function section(object: Buffer, name: string): Buffer {
  const headers = Number(object.readBigUInt64LE(40));
  const count = object.readUInt16LE(60);
  const nth = (index: number): { name: number; at: number; size: number } => ({
    name: object.readUInt32LE(headers + index * 64),
    at: Number(object.readBigUInt64LE(headers + index * 64 + 24)),
    size: Number(object.readBigUInt64LE(headers + index * 64 + 32)),
  });
  const names = nth(object.readUInt16LE(62)).at;
  for (let index = 0; index < count; index++) {
    const { name: at, at: start, size } = nth(index);
    if (text(object, names + at) === name) return object.subarray(start, start + size);
  }
  throw new Error(`no section ${name}`);
}

function text(buffer: Buffer, at: number): string {
  return buffer.toString('latin1', at, buffer.indexOf(0, at));
}
