import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { mustRun, runCommand } from './command.ts';

const VERSION = '2.2.1';

/** h2spec's binary, built with Go's tool chain where there is none yet. */
export async function h2specBinary(): Promise<string> {
  const home = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const folder = join(home, 'tulle-bench', `h2spec-${VERSION}`);
  const binary = join(folder, 'h2spec');
  if (existsSync(binary)) return binary;
  mkdirSync(folder, { recursive: true });
  // The module proxy has this tool by no version but the last, which is that one.
  const module = 'github.com/summerwind/h2spec/cmd/h2spec@latest';
  await mustRun(['env', `GOBIN=${folder}`, 'go', 'install', module], 300_000);
  return binary;
}

/** What h2spec has found, by the number of the test: `http2/5.1/8`. */
export interface H2specReport {
  readonly passed: readonly string[];
  readonly skipped: readonly string[];
  /** Those that failed, with what was expected and what came. */
  readonly failed: ReadonlyMap<string, string>;
}

/** Runs all groups against an HTTP/2 server without TLS on loopback. */
export async function runH2spec(port: number): Promise<H2specReport> {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-h2spec-'));
  const report = join(folder, 'report.xml');
  try {
    const groups = ['generic', 'http2', 'hpack'];
    // Its code says whether anything failed; the report says what.
    await runCommand(
      [await h2specBinary(), '-h', '127.0.0.1', '-p', `${port}`, '-o', '2', '-j', report, ...groups],
      300_000,
    );
    return parseReport(readFileSync(report, 'utf8'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** JUnit's XML as h2spec writes it. */
function parseReport(xml: string): H2specReport {
  const passed: string[] = [];
  const skipped: string[] = [];
  const failed = new Map<string, string>();
  const count = new Map<string, number>();
  for (const [, attributes = '', body = ''] of xml.matchAll(/<testcase ([^>]*)>([\s\S]*?)<\/testcase>/g)) {
    const section = /package="([^"]*)"/.exec(attributes)?.[1] ?? '';
    const number = (count.get(section) ?? 0) + 1;
    count.set(section, number);
    const id = `${section}/${number}`;
    if (body.includes('<skipped')) skipped.push(id);
    else if (body.includes('<failure') || body.includes('<error'))
      failed.set(id, body.replaceAll(/<[^>]*>/g, ' ').trim());
    else passed.push(id);
  }
  return { passed, skipped, failed };
}
