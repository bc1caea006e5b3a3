import { expect, test } from 'vitest';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import { workload } from '#test/kit/resources.ts';
import { createPeerView } from './peer-view.ts';

const POD = { namespace: 'shop', name: 'web-1' };
const UID = 'Kubernetes//Pod/shop/web-1';
const web = (tunnelProtocol: 'HBONE' | 'NONE') => workload({ ...POD, uid: UID, tunnelProtocol });

test('how a pod is reached, and since when, follows the workload API', () => {
  const view = createPeerView();
  expect(view.told(POD)).toBeUndefined();
  view.apply({ type: AUTHORIZATION_TYPE, updated: [], removed: [] }, 1);
  expect(view.told(POD)).toBeUndefined();
  view.apply({ type: ADDRESS_TYPE, updated: [], removed: [] }, 2);
  expect(view.told(POD)).toEqual({ tunnel: 'NONE', sinceMs: 2 });
  view.apply({ type: ADDRESS_TYPE, updated: [web('HBONE')], removed: [] }, 3);
  view.apply({ type: ADDRESS_TYPE, updated: [web('HBONE')], removed: [] }, 4);
  expect(view.told(POD)).toEqual({ tunnel: 'HBONE', sinceMs: 3 });
  view.apply({ type: ADDRESS_TYPE, updated: [web('NONE')], removed: [] }, 5);
  expect(view.told(POD)).toEqual({ tunnel: 'NONE', sinceMs: 5 });
  view.apply({ type: ADDRESS_TYPE, updated: [], removed: [UID] }, 6);
  expect(view.told(POD)?.tunnel).toBe('NONE');
});
