import { describe, expect, test } from 'vitest';
import { objectYaml } from '#test/kit/objects.ts';
import { attachText, conditionOf, frontendOf, placesOf } from './testing.ts';

const PORTS = '[{name: http, port: 80}, {name: http-admin, port: 8080}, {name: tcp-raw, port: 9000}]';
const LEDGER = objectYaml('Service', 'pay/ledger', `{selector: {app: ledger}, ports: ${PORTS}}`);
const LEDGER_2 = objectYaml('Service', 'pay/ledger-v2', '{selector: {app: v2}, ports: [{port: 80}]}');
const OTHER = objectYaml('Service', 'web/front', '{selector: {app: front}, ports: [{port: 80}]}');
const parent = (rest = ''): string => `parentRefs: [{group: "", kind: Service, name: ledger${rest}}]`;
const route = (kind: string, name: string, spec: string, metadata = ''): string =>
  objectYaml(kind, name, `{${spec}}`, metadata);
const to = (name: string, rest = ''): string => `backendRefs: [{name: ${name}, port: 80${rest}}]`;
const RULES = `rules: [{${to('ledger')}}]`;

describe('a parent', () => {
  test.each([
    { when: 'a port is named', ref: ', port: 8080', places: ['http pay/ledger.pay:8080'] },
    { when: 'a port is named by its name', ref: ', sectionName: http', places: ['http pay/ledger.pay:80'] },
    {
      when: 'number and name agree',
      ref: ', port: 80, sectionName: http',
      places: ['http pay/ledger.pay:80'],
    },
    { when: 'number and name differ', ref: ', port: 80, sectionName: http-admin', places: [] },
    { when: 'the port does not exist', ref: ', port: 81', places: [] },
    {
      when: 'a port of another protocol is named',
      ref: ', port: 9000',
      places: ['http pay/ledger.pay:9000'],
    },
    {
      when: 'no port is named: all that may speak HTTP',
      ref: '',
      places: ['http pay/ledger.pay:80', 'http pay/ledger.pay:8080'],
    },
  ])('gives its ports to a route when $when', ({ ref, places }) => {
    const attached = attachText(LEDGER + route('HTTPRoute', 'pay/r', `${parent(ref)}, ${RULES}`));
    expect(placesOf(attached)).toEqual(places);
    const condition = places.length > 0 ? 'True Accepted' : 'False NoMatchingParent';
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe(condition);
  });

  test.each([
    {
      kind: 'TCPRoute',
      places: ['tcp pay/ledger.pay:80', 'tcp pay/ledger.pay:8080', 'tcp pay/ledger.pay:9000'],
    },
    { kind: 'TLSRoute', places: [] },
    { kind: 'GRPCRoute', places: ['grpc pay/ledger.pay:80', 'grpc pay/ledger.pay:8080'] },
  ])('without a port gives a $kind those that may speak what it routes', ({ kind, places }) => {
    expect(placesOf(attachText(LEDGER + route(kind, 'pay/r', `${parent()}, ${RULES}`)))).toEqual(places);
  });

  test.each([
    { what: 'that does not exist', yaml: '', reason: 'NoMatchingParent' },
    {
      what: 'that is headless',
      yaml: objectYaml('Service', 'pay/ledger', '{clusterIP: None, ports: [{port: 80}]}'),
      reason: 'UnsupportedValue',
    },
    {
      what: 'of type ExternalName',
      yaml: objectYaml('Service', 'pay/ledger', '{type: ExternalName, ports: [{port: 80}]}'),
      reason: 'UnsupportedValue',
    },
    {
      what: 'with UDP only',
      yaml: objectYaml('Service', 'pay/ledger', '{ports: [{port: 80, protocol: UDP}]}'),
      reason: 'NoMatchingParent',
    },
  ])('Service $what accepts no route', ({ yaml, reason }) => {
    const attached = attachText(yaml + route('HTTPRoute', 'pay/r', `${parent()}, ${RULES}`));
    expect(attached.frontends).toEqual([]);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe(`False ${reason}`);
    expect(attached.problems).toContainEqual(
      expect.objectContaining({ path: 'spec.parentRefs[0]', effect: 'the route is not attached to it' }),
    );
  });

  test('of another kind of the core group accepts no route', () => {
    const refs = 'parentRefs: [{group: "", kind: Pod, name: ledger}]';
    const attached = attachText(LEDGER + route('HTTPRoute', 'pay/r', `${refs}, ${RULES}`));
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe('False NoMatchingParent');
  });

  test('may be a ServiceEntry, for each of its hosts', () => {
    const entry = objectYaml(
      'ServiceEntry',
      'pay/bank',
      '{hosts: [a.bank.example, b.bank.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}',
    );
    const refs = 'parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: bank}]';
    const backend = '{group: networking.istio.io, kind: Hostname, name: b.bank.example, port: 80}';
    const attached = attachText(
      entry + route('HTTPRoute', 'pay/r', `${refs}, rules: [{backendRefs: [${backend}]}]`),
    );
    expect(placesOf(attached)).toEqual(['http pay/a.bank.example:80', 'http pay/b.bank.example:80']);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'ResolvedRefs')).toBe('True ResolvedRefs');
  });

  test('Gateway is not ours: no status, and a warning', () => {
    const attached = attachText(route('HTTPRoute', 'pay/r', `parentRefs: [{name: edge}], ${RULES}`) + LEDGER);
    expect(attached.statuses).toEqual([]);
    expect(attached.problems).toMatchObject([
      { object: 'HTTPRoute pay/r', path: 'spec.parentRefs[0]', severity: 'warning' },
    ]);
  });

  test('is repeated in the status as it was written, beside its generation', () => {
    const refs = 'parentRefs: [{name: edge}, {kind: Service, port: 80, name: ledger, group: ""}]';
    const text = LEDGER + route('HTTPRoute', 'pay/r', `${refs}, ${RULES}`, 'generation: 7');
    expect(attachText(text).statuses).toMatchObject([
      {
        object: 'HTTPRoute pay/r',
        parents: [
          {
            controllerName: 'tulle.dev/waypoint',
            conditions: [{ observedGeneration: 7 }, { observedGeneration: 7 }],
          },
        ],
      },
    ]);
    const written = { group: '', kind: 'Service', name: 'ledger', port: 80 };
    expect(attachText(text).statuses[0]?.parents[0]?.parentRef).toEqual(written);
  });

  test('without a waypoint is warned about, once for each route', () => {
    const text = LEDGER + route('HTTPRoute', 'pay/r', `${parent()}, ${RULES}`);
    expect(attachText(text).problems).toEqual([]);
    const { problems, frontends } = attachText(text, ['pay/ledger']);
    expect(frontends).toHaveLength(2);
    expect(problems).toMatchObject([
      { path: 'spec.parentRefs[0]', severity: 'warning', effect: 'the route does nothing until then' },
    ]);
  });

  test('of a file has generation 1', () => {
    const attached = attachText(LEDGER + route('HTTPRoute', 'pay/r', `${parent()}, ${RULES}`));
    expect(attached.statuses[0]?.parents[0]?.conditions[0]?.observedGeneration).toBe(1);
  });
});

describe('a route in another namespace than its parent', () => {
  const refs = 'parentRefs: [{group: "", kind: Service, name: ledger, namespace: pay, port: 80}]';
  const own = 'backendRefs: [{name: ledger, namespace: pay, port: 80}]';

  test('is for callers of its namespace, beside the one for all', () => {
    const text =
      LEDGER +
      route('HTTPRoute', 'pay/r', `${parent(', port: 80')}, ${RULES}`) +
      route('HTTPRoute', 'web/r', `${refs}, rules: [{${own}}]`);
    const attached = attachText(text);
    expect(placesOf(attached)).toEqual(['http pay/ledger.pay:80', 'http pay/ledger.pay:80 from web']);
    expect(attached.frontends.map(({ entries }) => entries.map(({ object }) => object))).toEqual([
      ['HTTPRoute pay/r'],
      ['HTTPRoute web/r'],
    ]);
  });

  test('needs no grant to be there, nor to send requests where they were going', () => {
    const attached = attachText(LEDGER + route('HTTPRoute', 'web/r', `${refs}, rules: [{${own}}]`));
    expect(conditionOf(attached, 'HTTPRoute web/r', 'Accepted')).toBe('True Accepted');
    expect(conditionOf(attached, 'HTTPRoute web/r', 'ResolvedRefs')).toBe('True ResolvedRefs');
  });

  test('needs one for other services of that namespace', () => {
    const other = 'backendRefs: [{name: ledger-v2, namespace: pay, port: 80}]';
    const attached = attachText(
      LEDGER + LEDGER_2 + route('HTTPRoute', 'web/r', `${refs}, rules: [{${other}}]`),
    );
    expect(conditionOf(attached, 'HTTPRoute web/r', 'ResolvedRefs')).toBe('False RefNotPermitted');
  });

  test('needs one to send there what was going to another parent', () => {
    const both = refs.replace(']', ', {group: "", kind: Service, name: front, port: 80}]');
    const front = LEDGER.replaceAll('ledger', 'front').replaceAll('pay', 'web');
    const attached = attachText(LEDGER + front + route('HTTPRoute', 'web/r', `${both}, rules: [{${own}}]`));
    const conditions = [0, 1].map((at) => conditionOf(attached, 'HTTPRoute web/r', 'ResolvedRefs', at));
    expect(conditions).toEqual(['True ResolvedRefs', 'False RefNotPermitted']);
    expect(
      attached.frontends.map(({ service, entries }) => [
        service.split('.')[0],
        entries.map(({ backends }) => backends[0]?.target.kind),
      ]),
    ).toEqual([
      ['pay/ledger', ['service']],
      ['web/front', ['invalid']],
    ]);
  });

  test('does not contend with routes of another kind of the parent’s namespace', () => {
    const attached = attachText(
      LEDGER +
        route('GRPCRoute', 'pay/g', `${parent(', port: 80')}, ${RULES}`) +
        route('HTTPRoute', 'web/r', `${refs}, rules: [{${own}}]`),
    );
    expect(placesOf(attached)).toEqual(['grpc pay/ledger.pay:80', 'http pay/ledger.pay:80 from web']);
  });
});

describe('routes of several kinds at a port', () => {
  const KINDS = ['GRPCRoute', 'HTTPRoute', 'TLSRoute', 'TCPRoute'];
  const pairs = KINDS.flatMap((winner, index) => KINDS.slice(index + 1).map((loser) => ({ winner, loser })));

  test.each(pairs)('$winner takes it from $loser', ({ winner, loser }) => {
    const at = parent(', port: 80');
    const attached = attachText(
      LEDGER +
        route(loser, 'pay/old', `${at}, ${RULES}`, 'creationTimestamp: "2020-01-01T00:00:00Z"') +
        route(winner, 'pay/new', `${at}, ${RULES}`),
    );
    expect(conditionOf(attached, `${winner} pay/new`, 'Accepted')).toBe('True Accepted');
    expect(conditionOf(attached, `${loser} pay/old`, 'Accepted')).toBe('False Conflicted');
    expect(attached.frontends.flatMap(({ entries }) => entries.map(({ object }) => object))).toEqual([
      `${winner} pay/new`,
    ]);
  });

  test('the loser stays accepted where it holds another port of that parent, and says which it lost', () => {
    const attached = attachText(
      LEDGER +
        route('GRPCRoute', 'pay/g', `${parent(', port: 80')}, ${RULES}`) +
        route('HTTPRoute', 'pay/h', `${parent()}, ${RULES}`),
    );
    expect(placesOf(attached)).toEqual(['grpc pay/ledger.pay:80', 'http pay/ledger.pay:8080']);
    expect(conditionOf(attached, 'HTTPRoute pay/h', 'Accepted')).toBe('True Accepted');
    expect(attached.problems).toMatchObject([
      { object: 'HTTPRoute pay/h', message: expect.stringContaining('port 80'), severity: 'error' },
    ]);
  });

  test('of two TCPRoutes the older holds, and the other is warned about', () => {
    const at = parent(', port: 9000');
    const attached = attachText(
      LEDGER +
        route('TCPRoute', 'pay/a', `${at}, ${RULES}`) +
        route('TCPRoute', 'pay/b', `${at}, ${RULES}`, 'creationTimestamp: "2020-01-01T00:00:00Z"'),
    );
    expect(frontendOf(attached, 'tcp').entries.map(({ object }) => object)).toEqual(['TCPRoute pay/b']);
    expect(conditionOf(attached, 'TCPRoute pay/a', 'Accepted')).toBe('True Accepted');
    expect(attached.problems).toMatchObject([{ object: 'TCPRoute pay/a', severity: 'warning' }]);
  });
});

describe('a backend', () => {
  const at = parent(', port: 80');
  const withBackend = (backend: string, objects = ''): ReturnType<typeof attachText> =>
    attachText(
      LEDGER + OTHER + objects + route('HTTPRoute', 'pay/r', `${at}, rules: [{backendRefs: [${backend}]}]`),
    );

  test('of a Service is its port', () => {
    const [entry] = frontendOf(withBackend('{name: ledger, port: 8080, weight: 3}'), 'http').entries;
    expect(entry?.backends).toMatchObject([
      { weight: 3, target: { kind: 'service', service: 'pay/ledger.pay.svc.cluster.local', port: 8080 } },
    ]);
  });

  test.each([
    {
      what: 'of an unknown kind',
      backend: '{group: x.example, kind: Lambda, name: a}',
      reason: 'InvalidKind',
    },
    { what: 'of an unknown kind of the core', backend: '{kind: Pod, name: ledger}', reason: 'InvalidKind' },
    { what: 'that does not exist', backend: '{name: nobody, port: 80}', reason: 'BackendNotFound' },
    { what: 'without that port', backend: '{name: ledger, port: 81}', reason: 'BackendNotFound' },
    {
      what: 'of another namespace',
      backend: '{name: front, namespace: web, port: 80}',
      reason: 'RefNotPermitted',
    },
    {
      what: 'of another namespace that does not exist, which is not told',
      backend: '{name: nobody, namespace: web, port: 80}',
      reason: 'RefNotPermitted',
    },
  ])('$what is invalid: $reason', ({ backend, reason }) => {
    const attached = withBackend(backend);
    expect(frontendOf(attached, 'http').entries[0]?.backends).toMatchObject([
      { target: { kind: 'invalid', reason } },
    ]);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'ResolvedRefs')).toBe(`False ${reason}`);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe('True Accepted');
    expect(attached.problems).toMatchObject([{ path: 'spec.rules[0].backendRefs[0]', severity: 'error' }]);
  });

  test('that is UDP has no protocol for a route', () => {
    const dns = objectYaml('Service', 'pay/dns', '{ports: [{port: 53, protocol: UDP}]}');
    const attached = withBackend('{name: dns, port: 53}', dns);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'ResolvedRefs')).toBe('False UnsupportedProtocol');
  });

  test('of type ExternalName is not found, and it is said why', () => {
    const name = objectYaml('Service', 'pay/ext', '{type: ExternalName, ports: [{port: 80}]}');
    const { statuses } = withBackend('{name: ext, port: 80}', name);
    expect(statuses[0]?.parents[0]?.conditions[1]).toMatchObject({
      reason: 'BackendNotFound',
      message: expect.stringContaining('ExternalName'),
    });
  });

  test('may be headless', () => {
    const headless = objectYaml('Service', 'pay/h', '{clusterIP: None, ports: [{port: 80}]}');
    const attached = withBackend('{name: h, port: 80}', headless);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'ResolvedRefs')).toBe('True ResolvedRefs');
  });

  test('that is missing and has weight 0 harms nothing', () => {
    const attached = withBackend('{name: ledger, port: 80}, {name: nobody, port: 80, weight: 0}');
    const [entry] = frontendOf(attached, 'http').entries;
    expect(entry?.backends).toMatchObject([
      { weight: 1, target: { kind: 'service' } },
      { weight: 0, target: { kind: 'invalid' } },
    ]);
    expect(attached.problems).toMatchObject([{ severity: 'warning', effect: 'it has no share' }]);
  });

  test('of a mirror is looked for, too, and what is wrong with it is at its place', () => {
    const filter = '{type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 80}}}';
    const attached = attachText(
      LEDGER + route('HTTPRoute', 'pay/r', `${at}, rules: [{filters: [${filter}], ${to('ledger')}}]`),
    );
    const [entry] = frontendOf(attached, 'http').entries;
    expect(entry?.mirrors.get(0)?.target).toMatchObject({ kind: 'invalid', reason: 'BackendNotFound' });
    expect(attached.problems).toMatchObject([
      { path: 'spec.rules[0].filters[0].requestMirror.backendRef', severity: 'warning' },
    ]);
  });

  test.each([
    { what: 'no backends', rule: '{}', path: 'spec.rules[0]' },
    {
      what: 'only backends of weight 0',
      rule: `{${to('ledger', ', weight: 0')}}`,
      path: 'spec.rules[0].backendRefs',
    },
  ])('is missed in a rule with $what, which is a warning', ({ rule, path }) => {
    const attached = attachText(LEDGER + route('HTTPRoute', 'pay/r', `${at}, rules: [${rule}]`));
    expect(attached.problems).toMatchObject([
      { path, severity: 'warning', effect: 'all that it matches is answered 500' },
    ]);
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe('True Accepted');
  });

  test('is missed in a GRPCRoute without rules, which has the port and matches nothing', () => {
    const attached = attachText(LEDGER + route('GRPCRoute', 'pay/r', at));
    expect(frontendOf(attached, 'grpc').entries).toEqual([]);
    expect(attached.problems).toMatchObject([
      { path: 'spec.rules', severity: 'warning', message: 'has no rules; write one, with a backend' },
    ]);
  });

  test('is not missed beside a redirect', () => {
    const filter = '{type: RequestRedirect, requestRedirect: {scheme: https}}';
    const text = route('HTTPRoute', 'pay/r', `${at}, rules: [{filters: [${filter}]}]`);
    expect(attachText(LEDGER + text).problems).toEqual([]);
  });

  describe('of another namespace, with a grant', () => {
    const grant = (spec: string, name = 'web/g'): string => objectYaml('ReferenceGrant', name, spec);
    const from = 'from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: pay}]';
    const any = 'to: [{group: "", kind: Service}]';

    test.each([
      { when: 'it is for all Services', grants: grant(`{${from}, ${any}}`), permitted: true },
      {
        when: 'it names the Service',
        grants: grant(`{${from}, to: [{group: "", kind: Service, name: front}]}`),
        permitted: true,
      },
      {
        when: 'another one allows it',
        grants:
          grant(`{${from}, to: [{group: "", kind: Service, name: back}]}`) +
          grant(`{${from}, ${any}}`, 'web/h'),
        permitted: true,
      },
      {
        when: 'it names another Service',
        grants: grant(`{${from}, to: [{group: "", kind: Service, name: back}]}`),
        permitted: false,
      },
      {
        when: 'it is for another kind',
        grants: grant(`{${from}, to: [{group: "", kind: Secret}]}`),
        permitted: false,
      },
      { when: 'it is in another namespace', grants: grant(`{${from}, ${any}}`, 'pay/g'), permitted: false },
      {
        when: 'it is for another namespace',
        grants: grant(`{${from.replace('pay', 'shop')}, ${any}}`),
        permitted: false,
      },
      {
        when: 'it is for routes of another kind',
        grants: grant(`{${from.replace('HTTPRoute', 'GRPCRoute')}, ${any}}`),
        permitted: false,
      },
      {
        when: 'it is for a kind of that name in another group',
        grants: grant(`{${from.replace('gateway.networking.k8s.io', 'x.example')}, ${any}}`),
        permitted: false,
      },
    ])('is permitted: $permitted when $when', ({ grants, permitted }) => {
      const attached = withBackend('{name: front, namespace: web, port: 80}', grants);
      const condition = permitted ? 'True ResolvedRefs' : 'False RefNotPermitted';
      expect(conditionOf(attached, 'HTTPRoute pay/r', 'ResolvedRefs')).toBe(condition);
    });
  });
});

describe('a route that is refused', () => {
  const at = parent(', port: 80');

  test.each([
    { what: 'a filter type', rule: 'filters: [{type: Foo}]', path: 'spec.rules[0].filters[0].type' },
    {
      what: 'an extension',
      rule: 'filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]',
      path: 'spec.rules[0].filters[0].type',
    },
    {
      what: 'a path type',
      rule: 'matches: [{path: {type: Glob, value: "*"}}]',
      path: 'spec.rules[0].matches[0].path.type',
    },
    { what: 'a method', rule: 'matches: [{method: PURGE}]', path: 'spec.rules[0].matches[0].method' },
    {
      what: 'a header match',
      rule: 'matches: [{headers: [{type: Near, name: a, value: b}]}]',
      path: 'spec.rules[0].matches[0].headers[0].type',
    },
    {
      what: 'a status of a redirect',
      rule: 'filters: [{type: RequestRedirect, requestRedirect: {statusCode: 399}}]',
      path: 'spec.rules[0].filters[0].requestRedirect.statusCode',
    },
    {
      what: 'a regular expression',
      rule: `matches: [{path: {type: RegularExpression, value: "/(?=a)"}}], ${to('ledger')}`,
      path: 'spec.rules[0].matches[0].path.value',
    },
    {
      what: 'a filter of a backend',
      rule: 'backendRefs: [{name: ledger, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: a}}]}]',
      path: 'spec.rules[0].backendRefs[0].filters[0].type',
    },
  ])('for $what that is not known says so, and its requests are not passed over', ({ rule, path }) => {
    const attached = attachText(
      LEDGER + route('HTTPRoute', 'pay/r', `${at}, rules: [{${rule}}, {${to('ledger')}}]`),
    );
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe('False UnsupportedValue');
    const { entries } = frontendOf(attached, 'http');
    expect(entries.map(({ refused }) => refused)).toEqual(Array(2).fill(expect.stringContaining(path)));
    expect(attached.problems).toMatchObject([
      { path, severity: 'error', effect: 'all its requests are answered 500' },
    ]);
  });

  const REDIRECT = '{type: RequestRedirect, requestRedirect: {scheme: https}}';

  test.each([
    { what: 'backends', rule: `filters: [${REDIRECT}], ${to('ledger')}` },
    { what: 'a rewrite', rule: `filters: [${REDIRECT}, {type: URLRewrite, urlRewrite: {hostname: a}}]` },
  ])('for a redirect beside $what has IncompatibleFilters', ({ rule }) => {
    const attached = attachText(LEDGER + route('HTTPRoute', 'pay/r', `${at}, rules: [{${rule}}]`));
    expect(conditionOf(attached, 'HTTPRoute pay/r', 'Accepted')).toBe('False IncompatibleFilters');
    expect(frontendOf(attached, 'http').entries[0]?.refused).toContain('RequestRedirect');
  });

  test('leaves other routes of the port alone, which come first where they are more specific', () => {
    const attached = attachText(
      LEDGER +
        route('HTTPRoute', 'pay/a', `${at}, rules: [{matches: [{path: {type: Glob, value: x}}]}]`) +
        route('HTTPRoute', 'pay/b', `${at}, ${RULES}`),
    );
    expect(
      frontendOf(attached, 'http').entries.map(({ object, refused }) => [object, refused === undefined]),
    ).toEqual([
      ['HTTPRoute pay/b', true],
      ['HTTPRoute pay/a', false],
    ]);
    expect(conditionOf(attached, 'HTTPRoute pay/b', 'Accepted')).toBe('True Accepted');
  });
});
