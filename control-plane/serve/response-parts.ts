import type { ServedResource } from './served-view.ts';

/** Resources of one response, split so that none is too long. At least one part: a response without resources is one, too. */
export function splitBySize(
  resources: readonly ServedResource[],
  maxBytes: number,
): readonly (readonly ServedResource[])[] {
  let part: ServedResource[] = [];
  let bytes = 0;
  const parts = [part];
  for (const resource of resources) {
    if (part.length > 0 && bytes + resource.field.length > maxBytes) {
      part = [];
      bytes = 0;
      parts.push(part);
    }
    part.push(resource);
    bytes += resource.field.length;
  }
  return parts;
}
