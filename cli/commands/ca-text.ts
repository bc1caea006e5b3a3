import type {
  AuthorityReport,
  ReportedCertificate,
  ReportedClient,
  ReportedRevocation,
  ReportedRotation,
} from '#control-plane/authority-report.ts';

/** `tulle ca list`, for people. */
export function formatAuthorities(report: AuthorityReport): string {
  const { trustDomain, authorities, trusted, rotation, revoked, certificates } = report;
  const rows = authorities.map(({ phase, role, keyType, notBefore, notAfter, serial, subject }) => [
    phase,
    role,
    keyType,
    `${day(notBefore)} to ${day(notAfter)}`,
    serial,
    subject,
  ]);
  return [
    `trust domain ${trustDomain}`,
    '',
    ...table([['PHASE', 'ROLE', 'KEY', 'VALID', 'SERIAL', 'SUBJECT'], ...rows]),
    '',
    `trusted roots: ${trusted.join(', ')}`,
    ...(rotation === null ? ['no rotation is under way'] : formatRotation(rotation)),
    ...(revoked.length === 0 ? ['nobody is revoked'] : ['revoked:', ...revoked.map(formatRevocation)]),
    ...(certificates.length === 0 ? [] : ['', ...formatCertificates(certificates)]),
  ].join('\n');
}

function formatRevocation({ identity, serial, since, until }: ReportedRevocation): string {
  if (serial === null) return `  ${identity}, since ${since}`;
  return `  certificate ${serial} of ${identity}, since ${since}; it ends at ${until}`;
}

/** With what `ca revoke` takes. */
function formatCertificates(certificates: readonly ReportedCertificate[]): readonly string[] {
  const rows = certificates.map(({ identity, holder, serial, notAfter }) => [
    serial,
    identity,
    holder,
    notAfter.replace(/\.\d+Z$/, 'Z'),
  ]);
  return table([['SERIAL', 'IDENTITY', 'HOLDER', 'UNTIL'], ...rows]);
}

function formatRotation({ phase, started, until, clients }: ReportedRotation): readonly string[] {
  if (phase === 'retiring') {
    return [
      `rotation since ${started}: the new authority signs; the old root goes at ${until}, with the last certificate from before`,
    ];
  }
  const done = clients.filter((client) => client.done).length;
  return [
    `rotation since ${started}: the new root is being distributed, ${done} of ${clients.length} have it`,
    ...clients.map((client) => `  ${client.name}: ${formatClient(client)}`),
  ];
}

function formatClient({ state, waitsFor }: ReportedClient): string {
  switch (state) {
    case 'acknowledged':
      return 'has acknowledged it';
    case 'reissued':
      return 'has it with its certificates';
    case 'holds-nothing':
      return 'holds no certificate';
    case 'asked':
      return 'was sent it, and has not answered';
    case 'holds-older':
      return `gets it with the next certificate of ${waitsFor.join(', ')}`;
  }
}

function day(time: string): string {
  return time.slice(0, 10);
}

function table(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
