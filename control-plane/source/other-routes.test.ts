import { describe, expect, test } from 'vitest';
import { problemsOf, readOne, readSet, specYaml } from './testing.ts';

const GROUP = 'gateway.networking.k8s.io';
const of = (kind: string, spec: string): string => specYaml(`${GROUP}/v1`, kind, spec);
const REFS = 'backendRefs: [{name: a, port: 80}]';

describe('a GRPCRoute', () => {
  const matchOf = (match: string) =>
    readOne(of('GRPCRoute', `{rules: [{matches: [${match}]}]}`), 'GRPCRoute').spec.rules[0]?.matches[0];

  test.each([
    { match: '{}', method: undefined },
    { match: '{method: {service: a.b.C}}', method: { kind: 'exact', service: 'a.b.C' } },
    { match: '{method: {method: Get, service: ""}}', method: { kind: 'exact', method: 'Get' } },
    {
      match: '{method: {type: RegularExpression, service: "a.*", method: "(Get|Put)"}}',
      method: { kind: 'regex', service: 'a.*', method: '(Get|Put)' },
    },
  ])('matches on $match', ({ match, method }) => {
    expect(matchOf(match)?.method).toEqual(method);
  });

  test('matches every call where nothing is written, and may have no rules', () => {
    const { spec } = readOne(of('GRPCRoute', '{rules: [{}]}'), 'GRPCRoute');
    expect(spec.rules[0]?.matches).toEqual([{ method: undefined, headers: [] }]);
    expect(readOne(of('GRPCRoute', '{}'), 'GRPCRoute').spec.rules).toEqual([]);
  });

  test.each([
    { fault: 'neither service nor method', match: '{method: {}}', at: 'method' },
    { fault: 'a service that is none', match: '{method: {service: a/b}}', at: 'method.service' },
    { fault: 'a method that is none', match: '{method: {method: a.b}}', at: 'method.method' },
    { fault: 'a header that is none', match: '{headers: [{name: "a:", value: b}]}', at: 'headers[0].name' },
  ])('with $fault is refused', ({ match, at }) => {
    expect(problemsOf(of('GRPCRoute', `{rules: [{matches: [${match}]}]}`))).toEqual([
      expect.stringContaining(`error spec.rules[0].matches[0].${at}: `),
    ]);
  });

  test('keeps a regular expression that is none as not supported', () => {
    const match = '{method: {type: RegularExpression, service: "a.*", method: "("}}';
    const { rules } = readOne(of('GRPCRoute', `{rules: [{matches: [${match}]}]}`), 'GRPCRoute').spec;
    expect(rules[0]).toMatchObject({
      matches: [{ method: undefined }],
      unsupported: [{ path: 'spec.rules[0].matches[0].method.method' }],
    });
  });

  test('keeps what is not supported with its place', () => {
    const { rules } = readOne(
      of(
        'GRPCRoute',
        '{rules: [{matches: [{method: {type: Glob, service: "*"}}], filters: [{type: URLRewrite, urlRewrite: {hostname: a}}]}]}',
      ),
      'GRPCRoute',
    ).spec;
    expect(rules[0]).toMatchObject({
      matches: [{ method: undefined }],
      unsupported: [{ path: 'spec.rules[0].matches[0].method.type' }],
      filters: [{ kind: 'unsupported', path: 'spec.rules[0].filters[0].type' }],
    });
  });
});

describe.each(['TCPRoute', 'TLSRoute'] as const)('a %s', (kind) => {
  test('has one rule with backends', () => {
    const { spec } = readOne(of(kind, `{rules: [{name: all, ${REFS}}]}`), kind);
    expect(spec.rules).toEqual([
      {
        name: 'all',
        backendRefs: [
          { group: '', kind: 'Service', namespace: 'pay', name: 'a', port: 80, weight: 1, filters: [] },
        ],
      },
    ]);
  });

  test.each([
    { fault: 'no rules', spec: '{}', at: 'rules: is required' },
    { fault: 'an empty list of rules', spec: '{rules: []}', at: 'rules: is empty' },
    { fault: 'two rules', spec: `{rules: [{${REFS}}, {${REFS}}]}`, at: 'rules: has too many entries' },
    { fault: 'no backends', spec: '{rules: [{backendRefs: []}]}', at: 'rules[0].backendRefs: is empty' },
  ])('with $fault is refused', ({ spec, at }) => {
    expect(problemsOf(of(kind, spec))).toEqual([expect.stringContaining(`error spec.${at}`)]);
  });
});

test.each(['10.0.0.1', 'A.example', 'a.*.example', '*', 'a..b'])(
  'host name %s of a TLSRoute is refused',
  (name) => {
    const text = of('TLSRoute', `{hostnames: [${JSON.stringify(name)}], rules: [{${REFS}}]}`);
    expect(problemsOf(text)).toEqual([expect.stringContaining('error spec.hostnames[0]: ')]);
  },
);

describe('a ReferenceGrant', () => {
  const FROM = `from: [{group: ${GROUP}, kind: HTTPRoute, namespace: web}]`;

  test('is read', () => {
    const { spec } = readOne(
      of(
        'ReferenceGrant',
        `{${FROM}, to: [{group: "", kind: Service}, {group: "", kind: Service, name: a}]}`,
      ),
      'ReferenceGrant',
    );
    expect(spec.to).toEqual([
      { group: '', kind: 'Service' },
      { group: '', kind: 'Service', name: 'a' },
    ]);
  });

  test.each([
    { fault: 'without from', spec: '{to: [{group: "", kind: Service}]}', at: 'from' },
    { fault: 'without to', spec: `{${FROM}}`, at: 'to' },
    { fault: 'with an empty list', spec: `{${FROM}, to: []}`, at: 'to' },
    {
      fault: 'whose restriction is misspelt',
      spec: `{${FROM}, to: [{group: "", kind: Service, nane: a}]}`,
      at: 'to[0].nane',
    },
  ])('$fault grants nothing', ({ spec, at }) => {
    const { objects, problems } = readSet(of('ReferenceGrant', spec));
    expect(objects.size).toBe(0);
    expect(problems).toMatchObject([{ path: `spec.${at}`, severity: 'error' }]);
  });
});

describe('a BackendTLSPolicy', () => {
  const REFS_CA = 'caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]';
  const policy = (validation: string, targets = '[{group: "", kind: Service, name: a}]'): string =>
    of('BackendTLSPolicy', `{targetRefs: ${targets}, validation: {${validation}}}`);

  test('is read', () => {
    const text = policy(
      `hostname: a.example, ${REFS_CA}, subjectAltNames: [{type: URI, uri: "spiffe://x/y"}, {type: Hostname, hostname: b.example}]`,
    );
    expect(readOne(text, 'BackendTLSPolicy').spec.validation).toEqual({
      hostname: 'a.example',
      caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'ca' }],
      subjectAltNames: [
        { type: 'URI', value: 'spiffe://x/y' },
        { type: 'Hostname', value: 'b.example' },
      ],
    });
  });

  test('may trust the authorities that are well known', () => {
    const { validation } = readOne(
      policy('hostname: a.example, wellKnownCACertificates: System'),
      'BackendTLSPolicy',
    ).spec;
    expect(validation).toMatchObject({ wellKnownCaCertificates: 'System', caCertificateRefs: [] });
  });

  test.each([
    { fault: 'with no authority', text: policy('hostname: a.example'), at: 'validation' },
    {
      fault: 'with both kinds of authorities',
      text: policy(`hostname: a.example, ${REFS_CA}, wellKnownCACertificates: System`),
      at: 'validation',
    },
    { fault: 'without hostname', text: policy(REFS_CA), at: 'validation.hostname' },
    { fault: 'with a wildcard', text: policy(`${REFS_CA}, hostname: "*.a"`), at: 'validation.hostname' },
    {
      fault: 'with a URI that is none',
      text: policy(`${REFS_CA}, hostname: a, subjectAltNames: [{type: URI, uri: abc}]`),
      at: 'validation.subjectAltNames[0].uri',
    },
    {
      fault: 'with a name of the other type',
      text: policy(`${REFS_CA}, hostname: a, subjectAltNames: [{type: URI, uri: "a:b", hostname: c}]`),
      at: 'validation.subjectAltNames[0].hostname',
    },
    {
      fault: 'with a target twice',
      text: policy(
        `${REFS_CA}, hostname: a`,
        '[{group: "", kind: Service, name: a, sectionName: x}, {group: "", kind: Service, name: a, sectionName: x}]',
      ),
      at: 'targetRefs[1]',
    },
    { fault: 'without targets', text: policy(`${REFS_CA}, hostname: a`, '[]'), at: 'targetRefs' },
  ])('$fault is refused', ({ text, at }) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(`error spec.${at}: `)]);
  });
});

test('a RequestAuthentication has what it is for, and its rules as they are written', () => {
  const text = specYaml(
    'security.istio.io/v1',
    'RequestAuthentication',
    '{targetRef: {kind: Service, name: a}, jwtRules: [{issuer: x, anything: 1}]}',
  );
  expect(readOne(text, 'RequestAuthentication').spec).toEqual({
    targetRefs: [{ group: '', kind: 'Service', name: 'a' }],
    jwtRules: [{ issuer: 'x', anything: 1 }],
  });
});

describe('a GatewayClass', () => {
  const named = (name: string): string =>
    `apiVersion: ${GROUP}/v1\nkind: GatewayClass\nmetadata: {name: c}\nspec: {controllerName: ${name}}`;

  test('names its controller', () => {
    expect(readOne(named('tulle.dev/waypoint'), 'GatewayClass').spec.controllerName).toBe(
      'tulle.dev/waypoint',
    );
  });

  test('with a controller that has no domain is refused', () => {
    expect(problemsOf(named('waypoint'))).toEqual([expect.stringContaining('error spec.controllerName: ')]);
  });
});

describe('a ConfigMap', () => {
  const map = (name: string, rest = 'data: {a: b}'): string =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: pay}\n${rest}\n---\n`;
  const gateway = of(
    'Gateway',
    '{gatewayClassName: tulle-waypoint, infrastructure: {labels: {a: b}, parametersRef: {group: "", kind: ConfigMap, name: two}}}',
  );

  test('that a Gateway names is read, whichever comes first', () => {
    for (const text of [map('two') + gateway, gateway + map('two')])
      expect([...readSet(text).objects.keys()].sort()).toEqual(['ConfigMap pay/two', 'Gateway pay/r']);
    expect(readOne(gateway, 'Gateway').spec.parametersRef).toEqual({
      group: '',
      kind: 'ConfigMap',
      name: 'two',
    });
  });

  test('that a BackendTLSPolicy names is read', () => {
    const policy = of(
      'BackendTLSPolicy',
      '{targetRefs: [{group: "", kind: Service, name: a}], validation: {hostname: a, caCertificateRefs: [{group: "", kind: ConfigMap, name: two}]}}',
    );
    expect(readSet(policy + map('two')).objects.has('ConfigMap pay/two')).toBe(true);
  });

  test('that nothing names is listed only, and nothing of it is wrong', () => {
    const { objects, unread, problems } = readSet(gateway + map('one', 'data: {a: 1}\nfoo: 2'));
    expect([...objects.keys()]).toEqual(['Gateway pay/r']);
    expect(unread).toMatchObject([{ object: 'ConfigMap pay/one' }]);
    expect(problems).toEqual([]);
  });

  test('that is named and wrong is a problem', () => {
    expect(readSet(gateway + map('two', 'data: {a: 1}')).problems).toMatchObject([
      { object: 'ConfigMap pay/two', path: 'data.a', severity: 'error' },
    ]);
  });
});
