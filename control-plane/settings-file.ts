import { DEFAULT_SETTINGS, type MeshSettings } from './derive/settings.ts';
import { readIfThere, replaceFile } from './replace-file.ts';

/** The mesh's settings as they were last in force, kept over restarts, so that a wrong text never means the defaults. */
export interface SettingsFile {
  /** Undefined before there were any. */
  readonly current: () => MeshSettings | undefined;
  /** Keeps them, if they changed. */
  readonly save: (settings: MeshSettings) => void;
}

/** The file is not what was written to it. */
export class SettingsFileError extends Error {
  override readonly name = 'SettingsFileError';
}

/** @throws SettingsFileError for a file that is no JSON */
export function openSettingsFile(path: string): SettingsFile {
  let text = readIfThere(path);
  let settings = text === undefined ? undefined : parse(path, text);
  return {
    current: () => settings,
    save: (next) => {
      const nextText = `${JSON.stringify(next)}\n`;
      if (nextText !== text) replaceFile(path, nextText);
      text = nextText;
      settings = next;
    },
  };
}

function parse(path: string, text: string): MeshSettings {
  try {
    // Written by us, from this very type; what a later version has added gets its default.
    return { ...DEFAULT_SETTINGS, ...(JSON.parse(text) as Partial<MeshSettings>) };
  } catch (cause) {
    throw new SettingsFileError(
      `${path} cannot be read; remove it, and the settings are read from the objects alone`,
      { cause },
    );
  }
}
