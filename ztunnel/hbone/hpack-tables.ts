/** A header field, name in lower case. */
export type Field = readonly [name: string, value: string];

/** HPACK's static table: RFC 7541, appendix A. Index 1 is the first. */
export const STATIC_TABLE: readonly Field[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  ...['200', '204', '206', '304', '400', '404', '500'].map((status): Field => [':status', status]),
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ...[
    'accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control',
    'content-disposition content-encoding content-language content-length content-location content-range',
    'content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range',
    'if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range',
    'referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via',
    'www-authenticate',
  ].flatMap((line) => line.split(' ').map((name): Field => [name, ''])),
];

/**
 * Length in bits of each symbol's Huffman code, a digit of base 32 each: bytes 0 to 255, then the end of the string. The
 * code is canonical, so RFC 7541, appendix B, follows from the lengths.
 */
const CODE_LENGTHS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca' +
  'd67777777777777777777777878djde6f56565666577666567655677777fbeds' +
  'kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn' +
  'qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq' +
  'u';

/** Symbol that ends every string, only ever as padding. */
const END_OF_STRING = 256;

/** Inner nodes are pairs of children; a negative child is the leaf of symbol `-child - 1`. */
const tree: Int16Array = buildTree();

function buildTree(): Int16Array {
  const nodes = new Int16Array(2 * END_OF_STRING);
  let nodeCount = 1;
  let code = 0;
  let codeLength = 5;
  for (let length = 5; length <= 30; length++) {
    for (let symbol = 0; symbol <= END_OF_STRING; symbol++) {
      if (Number.parseInt(CODE_LENGTHS.charAt(symbol), 32) !== length) continue;
      code <<= length - codeLength;
      codeLength = length;
      let node = 0;
      for (let bit = length - 1; bit > 0; bit--) {
        const at = 2 * node + ((code >>> bit) & 1);
        if (nodes[at] === 0) nodes[at] = nodeCount++;
        node = nodes[at] ?? 0;
      }
      nodes[2 * node + (code & 1)] = -symbol - 1;
      code++;
    }
  }
  return nodes;
}

/**
 * Decodes a Huffman coded string; undefined when it is malformed (RFC 7541, 5.2: padding of a byte or more, or with a
 * zero, or an end of string inside).
 */
export function decodeHuffman(bytes: Buffer, start: number, end: number): string | undefined {
  const out = Buffer.allocUnsafe(Math.ceil(((end - start) * 8) / 5));
  let size = 0;
  let node = 0;
  let depth = 0;
  let allOnes = true;
  for (let at = start; at < end; at++) {
    const byte = bytes[at] ?? 0;
    for (let bit = 7; bit >= 0; bit--) {
      const one = (byte >>> bit) & 1;
      const next = tree[2 * node + one] ?? 0;
      if (next >= 0) {
        node = next;
        depth++;
        allOnes &&= one === 1;
        continue;
      }
      if (next === -END_OF_STRING - 1) return undefined;
      out[size++] = -next - 1;
      node = 0;
      depth = 0;
      allOnes = true;
    }
  }
  return depth < 8 && allOnes ? out.toString('latin1', 0, size) : undefined;
}
