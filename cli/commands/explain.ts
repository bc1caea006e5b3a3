import { type Command, Option } from 'commander';
import { isIp, parseIp } from '#api/address.ts';
import { usageError } from '../cli-error.ts';
import { askMesh } from '../explain/ask-mesh.ts';
import { explainConnection } from '../explain/explain.ts';
import { formatExplanation } from '../explain/explanation-text.ts';
import type { ExplainedRequest } from '../explain/waypoint-explanation.ts';
import { parseWorkloadRef } from '../local/names.ts';
import { loadWaypoints } from '../local/waypoint-configs.ts';
import { collect, outputOption, parsePort, stateOption } from './options.ts';

interface ExplainFlags {
  readonly state: string;
  readonly from: string;
  readonly to: string;
  readonly output: 'text' | 'json';
  readonly method?: string;
  readonly path?: string;
  readonly header?: readonly string[];
}

/** Of a method and a header's name (RFC 9110, 5.6.2). */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

export function registerExplain(program: Command): void {
  program
    .command('explain')
    .description('the decisions that a connection would meet, each with the object and line that decided')
    .addOption(stateOption())
    .requiredOption('--from <workload>', 'who calls: NAMESPACE/NAME, or an address')
    .requiredOption('--to <host:port>', 'what it dials: a name or an address, and a port')
    .option('--method <method>', 'of an HTTP request, GET by default; looked at by waypoints only')
    .option('--path <path>', 'of an HTTP request, with its query, / by default; looked at by waypoints only')
    .addOption(
      new Option('--header <key=value>', 'of an HTTP request; looked at by waypoints only').argParser(
        collect,
      ),
    )
    .addOption(outputOption())
    .action(async (flags: ExplainFlags) => {
      const from = isIp(flags.from) ? { ip: parseIp(flags.from) } : parseWorkloadRef(flags.from);
      const to = parseDestination(flags.to);
      const request = readRequest(flags);
      const { facts, view } = await askMesh(flags.state, from);
      const { served, basis, toWaypoints } = view;
      const part = {
        waypoints: loadWaypoints(toWaypoints),
        rules: toWaypoints.rules,
        request,
        nowMs: facts.nowMs,
      };
      const explanation = explainConnection({ served, basis, from, to, part, facts });
      if (flags.output === 'json') {
        console.log(JSON.stringify(explanation, undefined, 2));
        return;
      }
      console.log(formatExplanation(explanation));
      const isAsked = [flags.method, flags.path, flags.header].some((given) => given !== undefined);
      // What is refused before may have been meant for one.
      if (isAsked && explanation.waypoints.length === 0 && explanation.outcome !== 'refused') {
        console.log('no waypoint is on the way, so nobody looks at the method, path or headers of a request');
      }
    });
}

/** Reads `catalog.shop:8080`, `10.96.1.0:80`, `[fd00::1]:80`. */
function parseDestination(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || port === undefined) throw usageError(`not HOST:PORT: ${JSON.stringify(text)}`);
  return { host, port: parsePort(port) };
}

/**
 * Reads the request: GET / where nothing is said.
 * @throws CliError (usage)
 */
function readRequest({
  method = 'GET',
  path = '/',
  header = [],
}: ExplainFlags): Omit<ExplainedRequest, 'authority'> {
  if (!TOKEN.test(method)) throw usageError(`not a method: ${JSON.stringify(method)}`);
  if (!path.startsWith('/')) throw usageError(`not a path: ${JSON.stringify(path)} (it begins with /)`);
  const headers = header.flatMap((text) => {
    const [, name = '', value = ''] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
    if (TOKEN.test(name)) return [name.toLowerCase(), value.trim()];
    throw usageError(`not a header: ${JSON.stringify(text)} (wanted: name=value, such as x-version=v2)`);
  });
  return { method, target: path, headers };
}
