import { describe, expect, test } from 'vitest';
import type { RouteFilter } from './route-objects.ts';
import { problemsOf, readOne, specYaml } from './testing.ts';

const V1 = 'gateway.networking.k8s.io/v1';
const httpRoute = (rule: string): string => specYaml(V1, 'HTTPRoute', `{rules: [${rule}]}`);
const filterOf = (filter: string): RouteFilter | undefined =>
  readOne(httpRoute(`{filters: [${filter}]}`), 'HTTPRoute').spec.rules[0]?.filters[0];
const headers = (text: string, type = 'Request'): string =>
  `{type: ${type}HeaderModifier, ${type.toLowerCase()}HeaderModifier: ${text}}`;
const redirect = (text: string): string => `{type: RequestRedirect, requestRedirect: ${text}}`;
const rewrite = (text: string): string => `{type: URLRewrite, urlRewrite: ${text}}`;
const mirror = (text: string): string =>
  `{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80}${text}}}`;
const cors = (text: string): string => `{type: CORS, cors: ${text}}`;

describe('a filter', () => {
  test.each([
    {
      what: headers('{set: [{name: X-A, value: b}], add: [{name: c, value: d e}], remove: [f]}'),
      filter: {
        kind: 'request-headers',
        set: [{ name: 'X-A', value: 'b' }],
        add: [{ name: 'c', value: 'd e' }],
        remove: ['f'],
      },
    },
    {
      what: headers('{remove: [f]}', 'Response'),
      filter: { kind: 'response-headers', set: [], add: [], remove: ['f'] },
    },
    { what: redirect('{}'), filter: { kind: 'redirect', statusCode: 302 } },
    {
      what: redirect(
        '{scheme: https, hostname: a.example, port: 8443, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /x}}',
      ),
      filter: {
        kind: 'redirect',
        scheme: 'https',
        hostname: 'a.example',
        port: 8443,
        statusCode: 308,
        path: { kind: 'full', value: '/x' },
      },
    },
    {
      what: rewrite('{hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: ""}}'),
      filter: { kind: 'rewrite', hostname: 'b.example', path: { kind: 'prefix', value: '' } },
    },
    {
      what: mirror(''),
      filter: {
        kind: 'mirror',
        numerator: 100,
        denominator: 100,
        backend: { namespace: 'pay', name: 'm', port: 80 },
      },
    },
    { what: mirror(', percent: 5'), filter: { kind: 'mirror', numerator: 5, denominator: 100 } },
    {
      what: mirror(', fraction: {numerator: 1, denominator: 1000}'),
      filter: { kind: 'mirror', numerator: 1, denominator: 1000 },
    },
    {
      what: cors(
        '{allowOrigins: ["https://*.shop.example:8443"], allowMethods: [GET, PATCH], allowCredentials: true}',
      ),
      filter: {
        kind: 'cors',
        allowOrigins: ['https://*.shop.example:8443'],
        allowMethods: ['GET', 'PATCH'],
        allowHeaders: [],
        exposeHeaders: [],
        allowCredentials: true,
        maxAge: 5,
      },
    },
  ])('is read: $what', ({ what, filter }) => {
    expect(filterOf(what)).toMatchObject(filter);
  });

  test.each([
    { fault: 'without its field', filter: '{type: URLRewrite}', at: 'urlRewrite' },
    { fault: 'with the field of another type', filter: '{type: Foo, cors: {}}', at: 'cors' },
    {
      fault: 'whose header has no name',
      filter: headers('{set: [{name: "", value: a}]}'),
      at: 'requestHeaderModifier.set[0].name',
    },
    {
      fault: 'whose header has a line break',
      filter: headers('{add: [{name: a, value: "b\\nc"}]}'),
      at: 'requestHeaderModifier.add[0].value',
    },
    {
      fault: 'that sets a header twice',
      filter: headers('{set: [{name: a, value: b}, {name: A, value: c}]}'),
      at: 'requestHeaderModifier.set[1].name',
    },
    {
      fault: 'that redirects to a wildcard',
      filter: redirect('{hostname: "*.example"}'),
      at: 'requestRedirect.hostname',
    },
    { fault: 'that redirects to no port', filter: redirect('{port: 0}'), at: 'requestRedirect.port' },
    {
      fault: 'whose path has no value',
      filter: rewrite('{path: {type: ReplaceFullPath}}'),
      at: 'urlRewrite.path.replaceFullPath',
    },
    {
      fault: 'whose path has both values',
      filter: rewrite('{path: {type: ReplaceFullPath, replaceFullPath: /, replacePrefixMatch: /}}'),
      at: 'urlRewrite.path.replacePrefixMatch',
    },
    {
      fault: 'whose path has a line break',
      filter: redirect('{path: {type: ReplaceFullPath, replaceFullPath: "/x\\r\\nSet-Cookie: a=b"}}'),
      at: 'requestRedirect.path.replaceFullPath',
    },
    {
      fault: 'whose path has a space',
      filter: rewrite('{path: {type: ReplaceFullPath, replaceFullPath: "/x HTTP/1.1"}}'),
      at: 'urlRewrite.path.replaceFullPath',
    },
    {
      fault: 'whose path is empty',
      filter: rewrite('{path: {type: ReplaceFullPath, replaceFullPath: ""}}'),
      at: 'urlRewrite.path.replaceFullPath',
    },
    {
      fault: 'whose path does not begin with a slash',
      filter: rewrite('{path: {type: ReplacePrefixMatch, replacePrefixMatch: x}}'),
      at: 'urlRewrite.path.replacePrefixMatch',
    },
    { fault: 'that mirrors more than all', filter: mirror(', percent: 101'), at: 'requestMirror.percent' },
    {
      fault: 'that mirrors a fraction above one',
      filter: mirror(', fraction: {numerator: 3, denominator: 2}'),
      at: 'requestMirror.fraction.numerator',
    },
    {
      fault: 'that mirrors percent and fraction',
      filter: mirror(', percent: 1, fraction: {numerator: 1}'),
      at: 'requestMirror.fraction',
    },
    {
      fault: 'that mirrors to no port',
      filter: '{type: RequestMirror, requestMirror: {backendRef: {name: m}}}',
      at: 'requestMirror.backendRef.port',
    },
    {
      fault: 'with an origin without scheme',
      filter: cors('{allowOrigins: [shop.example]}'),
      at: 'cors.allowOrigins[0]',
    },
    {
      fault: 'with * beside another origin',
      filter: cors('{allowOrigins: ["*", "https://a"]}'),
      at: 'cors.allowOrigins',
    },
    {
      fault: 'with * beside another method',
      filter: cors('{allowMethods: ["*", GET]}'),
      at: 'cors.allowMethods',
    },
    {
      fault: 'with * beside another header',
      filter: cors('{allowHeaders: ["*", a]}'),
      at: 'cors.allowHeaders',
    },
    { fault: 'with an age of 0', filter: cors('{maxAge: 0}'), at: 'cors.maxAge' },
  ])('$fault is refused', ({ filter, at }) => {
    expect(problemsOf(httpRoute(`{filters: [${filter}]}`))).toEqual([
      expect.stringContaining(`error spec.rules[0].filters[0].${at}: `),
    ]);
  });

  test.each([headers('{}'), headers('{}', 'Response'), redirect('{}'), rewrite('{}'), cors('{}')])(
    'may not be there twice: %s',
    (filter) => {
      expect(problemsOf(httpRoute(`{filters: [${filter}, ${filter}]}`))).toEqual([
        expect.stringContaining('error spec.rules[0].filters[1].type: '),
      ]);
    },
  );

  test('that mirrors may be there again', () => {
    expect(problemsOf(httpRoute(`{filters: [${mirror('')}, ${mirror('')}]}`))).toEqual([]);
  });
});

describe('a prefix is replaced', () => {
  const PATH = 'path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}';
  const rule = (matches: string, filter: string): string => httpRoute(`{${matches}filters: [${filter}]}`);

  test.each([
    { when: 'nothing is matched on', matches: '' },
    { when: 'there is one match on a prefix', matches: 'matches: [{path: {value: /a}, method: GET}], ' },
    { when: 'there is one match without path', matches: 'matches: [{method: GET}], ' },
  ])('where $when', ({ matches }) => {
    for (const filter of [redirect(`{${PATH}}`), rewrite(`{${PATH}}`)])
      expect(problemsOf(rule(matches, filter))).toEqual([]);
  });

  test.each([
    { when: 'the match is exact', matches: 'matches: [{path: {type: Exact, value: /a}}], ' },
    { when: 'there are two matches', matches: 'matches: [{path: {value: /a}}, {path: {value: /b}}], ' },
    {
      when: 'the match is a regular expression',
      matches: 'matches: [{path: {type: RegularExpression, value: /a}}], ',
    },
  ])('not where $when', ({ matches }) => {
    for (const [field, filter] of [
      ['requestRedirect', redirect(`{${PATH}}`)],
      ['urlRewrite', rewrite(`{${PATH}}`)],
    ] as const)
      expect(problemsOf(rule(matches, filter))).toEqual([
        expect.stringContaining(`error spec.rules[0].filters[0].${field}.path.replacePrefixMatch: `),
      ]);
  });
});

describe('not supported, and so kept with its place, is', () => {
  test.each([
    { what: 'a filter type', filter: '{type: Foo}', at: 'type' },
    {
      what: 'an extension',
      filter: '{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}',
      at: 'type',
    },
    { what: 'external authorization', filter: '{type: ExternalAuth, externalAuth: {}}', at: 'type' },
    {
      what: 'a status of a redirect',
      filter: redirect('{statusCode: 399}'),
      at: 'requestRedirect.statusCode',
    },
    { what: 'a scheme of a redirect', filter: redirect('{scheme: ftp}'), at: 'requestRedirect.scheme' },
    { what: 'a path type', filter: rewrite('{path: {type: ReplaceRegex}}'), at: 'urlRewrite.path.type' },
    { what: 'a method', filter: cors('{allowMethods: [GET, QUERY]}'), at: 'cors.allowMethods[1]' },
    {
      what: 'to set the host',
      filter: headers('{set: [{name: Host, value: a}]}'),
      at: 'requestHeaderModifier.set[0].name',
    },
    {
      what: 'to name another caller',
      filter: headers('{add: [{name: X-Forwarded-Client-Cert, value: a}]}'),
      at: 'requestHeaderModifier.add[0].name',
    },
    {
      what: 'to change how long a body is',
      filter: headers('{remove: [content-length]}', 'Response'),
      at: 'responseHeaderModifier.remove[0]',
    },
  ])('$what', ({ filter, at }) => {
    expect(filterOf(filter)).toMatchObject({ kind: 'unsupported', path: `spec.rules[0].filters[0].${at}` });
  });

  test.each([redirect('{}'), rewrite('{hostname: a}'), mirror(''), cors('{}')])(
    'on one of several backends: %s',
    (filter) => {
      const rule = `{backendRefs: [{name: a, port: 80, filters: [${filter}]}]}`;
      const [ref] = readOne(httpRoute(rule), 'HTTPRoute').spec.rules[0]?.backendRefs ?? [];
      expect(ref?.filters).toMatchObject([
        { kind: 'unsupported', path: 'spec.rules[0].backendRefs[0].filters[0].type' },
      ]);
    },
  );
});

test('a backend may change headers of its own', () => {
  const filter = headers('{set: [{name: Set-Cookie, value: c}]}', 'Response');
  const rule = `{backendRefs: [{name: a, port: 80, weight: 0, filters: [${filter}]}]}`;
  const [ref] = readOne(httpRoute(rule), 'HTTPRoute').spec.rules[0]?.backendRefs ?? [];
  expect(ref).toMatchObject({ weight: 0, namespace: 'pay', filters: [{ kind: 'response-headers' }] });
});
