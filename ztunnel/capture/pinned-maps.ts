import type { MapLayout, MapName } from '#bpf/layout.ts';
import { BpfMap } from '#bpf/maps.ts';
import { mapPath } from '#bpf/pins.ts';
import type { SpliceMapName } from '#bpf/splice-layout.ts';

/**
 * Opens maps that a node agent has pinned below a mesh's directory: all, or none. They are the caller's to close.
 * @throws BpfError of the first that cannot be opened, ENOENT when it is not there; BpfUnsupportedError without libbpf
 */
export function openMaps<Name extends MapName | SpliceMapName>(
  directory: string,
  layouts: Readonly<Record<Name, MapLayout>>,
): Readonly<Record<Name, BpfMap>> {
  const opened = new Map<Name, BpfMap>();
  try {
    for (const name of Object.keys(layouts) as Name[])
      opened.set(name, BpfMap.openPinned(mapPath(directory, name), layouts[name]));
  } catch (error) {
    for (const map of opened.values()) map.close();
    throw error;
  }
  return Object.fromEntries(opened) as Record<Name, BpfMap>;
}
