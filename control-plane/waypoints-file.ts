import type { WantedWaypoint } from './derive/waypoint/wanted.ts';
import { readIfThere, replaceFile } from './replace-file.ts';

/** Tells whoever starts waypoints which there are to be: `run/waypoints.json`, a list. */
export interface WaypointsFile {
  /** Writes them, if they changed. */
  readonly write: (wanted: readonly WantedWaypoint[]) => void;
}

export function openWaypointsFile(path: string): WaypointsFile {
  let written: string | undefined;
  return {
    write: (wanted) => {
      const text = `${JSON.stringify(wanted)}\n`;
      if (text === written) return;
      if (readIfThere(path) !== text) replaceFile(path, text);
      written = text;
    },
  };
}
