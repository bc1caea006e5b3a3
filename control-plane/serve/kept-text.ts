/** The beginning of a text, as a string of its own: a slice would keep the whole of a client's text in memory with it. */
export function keptText(text: string, longest: number): string {
  return text.length <= longest ? text : Buffer.from(text.slice(0, longest), 'utf16le').toString('utf16le');
}
