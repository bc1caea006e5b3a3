import { NO_VIPS, readVips, type VipAllocations, writeVips } from './derive/vips.ts';
import { readIfThere, replaceFile } from './replace-file.ts';

/** The addresses given to services, kept over restarts in one file. */
export interface VipFile {
  readonly current: () => VipAllocations;
  /** Keeps them, if they changed; before anyone is told of them. */
  readonly save: (vips: VipAllocations) => void;
}

/** The file is not what was written to it. */
export class VipFileError extends Error {
  override readonly name = 'VipFileError';
}

/** @throws VipFileError for a file that is no JSON: addresses given anew would send connections astray. */
export function openVipFile(path: string): VipFile {
  let text = readIfThere(path);
  let vips = text === undefined ? NO_VIPS : parse(path, text);
  return {
    current: () => vips,
    save: (next) => {
      const nextText = `${JSON.stringify(writeVips(next))}\n`;
      if (nextText !== text) replaceFile(path, nextText);
      text = nextText;
      vips = next;
    },
  };
}

function parse(path: string, text: string): VipAllocations {
  try {
    return readVips(JSON.parse(text));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new VipFileError(
      `${path} cannot be read (${reason}); restore it, or remove it and services get new addresses`,
      { cause },
    );
  }
}
