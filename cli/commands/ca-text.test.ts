import { expect, test } from 'vitest';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { formatAuthorities } from './ca-text.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const REPORT: AuthorityReport = {
  trustDomain: 'cluster.local',
  authorities: [],
  trusted: ['ab'],
  rotation: null,
  revoked: [],
  certificates: [],
};

test('what revoke takes is shown: the serial number of each certificate, and whose it is', () => {
  const notAfter = '2026-01-02T00:00:00.000Z';
  const certificates = [
    { identity: WEB, holder: 'n1', serial: '4a0b', notAfter },
    { identity: `${WEB}2`, holder: 'waypoint/shop/waypoint', serial: '4a0c', notAfter },
  ];
  expect(formatAuthorities({ ...REPORT, certificates })).toMatch(
    /\n\nSERIAL +IDENTITY +HOLDER +UNTIL\n4a0b +spiffe:.*web +n1 +2026-01-02T00:00:00Z\n4a0c .*web2 +waypoint.shop.waypoint /,
  );
  expect(formatAuthorities(REPORT)).toMatch(/\nnobody is revoked$/);
});
