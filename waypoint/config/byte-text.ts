/** Text as messages carry it: each byte of its UTF-8 is a character. */
export function bytesOfText(text: string): string {
  if (IS_ASCII.test(text)) return text;
  return String.fromCharCode(...new TextEncoder().encode(text));
}

const IS_ASCII = /^[\0-\x7f]*$/;
