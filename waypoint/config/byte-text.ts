/** Text as messages carry it: each byte of its UTF-8 is a character. */
export function bytesOfText(text: string): string {
  if (IS_ASCII.test(text)) return text;
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/** What such bytes say; the bytes themselves where they are no UTF-8. */
export function textOfBytes(bytes: string): string {
  if (IS_ASCII.test(bytes)) return bytes;
  try {
    return UTF8.decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
  } catch {
    return bytes;
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const IS_ASCII = /^[\0-\x7f]*$/;
