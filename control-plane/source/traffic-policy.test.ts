import { describe, expect, test } from 'vitest';
import type { TrafficPolicySpec } from './route-objects.ts';
import { problemsOf, readOne, readSet, specYaml } from './testing.ts';

const TARGETS = 'targetRefs: [{kind: Service, name: ledger}]';
const policy = (faults: string, rest = TARGETS): string =>
  specYaml('tulle.dev/v1alpha1', 'TrafficPolicy', `{${rest}, faults: [${faults}]}`);
const fault = (rest: string): string => policy(`{name: f, expiresAfter: 10m, ${rest}}`);
const ABORT = 'abort: {httpStatus: 503}';
const specOf = (text: string): TrafficPolicySpec => readOne(text, 'TrafficPolicy').spec;

describe('a TrafficPolicy', () => {
  test('says who gets which fault, how often, where, and for how long', () => {
    const spec = specOf(
      policy(
        `{name: slow-pay, match: {headers: [{name: X-Chaos, value: pay}], from: {serviceAccounts: [shop/loadgen, own]}},
          delay: {fixed: 2s, jitter: 500ms}, responseRate: {kbps: 64}, percent: 12.5, where: upstream, expiresAfter: 30m,
          maxConcurrent: 50}`,
        'targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: checkout, sectionName: pay}]',
      ),
    );
    expect(spec).toEqual({
      targetRefs: [
        { group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', name: 'checkout', sectionName: 'pay' },
      ],
      faults: [
        {
          name: 'slow-pay',
          match: {
            headers: [{ name: 'x-chaos', match: { kind: 'exact', value: 'pay' } }],
            serviceAccounts: ['shop/loadgen', 'pay/own'],
            namespaces: [],
          },
          delay: { fixedMs: 2000, jitterMs: 500 },
          responseRateKbps: 64,
          percent: 12.5,
          where: 'upstream',
          expiresAfterMs: 1_800_000,
          maxConcurrent: 50,
        },
      ],
    });
  });

  test('is for all requests of all callers, once for each, where nothing is written', () => {
    expect(specOf(fault('abort: {grpcStatus: 14}')).faults).toEqual([
      {
        name: 'f',
        match: { headers: [], serviceAccounts: [], namespaces: [] },
        abort: { grpcStatus: 14 },
        percent: 100,
        where: 'downstream',
        expiresAfterMs: 600_000,
      },
    ]);
  });

  test('without expiresAfter is refused, and it is said what to write', () => {
    expect(problemsOf(policy(`{name: f, ${ABORT}}`))).toEqual([
      'error spec.faults[0].expiresAfter: is required: a fault ends by itself; write a time such as 10m',
    ]);
  });

  test.each(['retry', 'breaker', 'rateLimit'])('with %s is refused, as that comes later', (part) => {
    expect(
      problemsOf(policy(`{name: f, expiresAfter: 1m, ${ABORT}}`, `${TARGETS}, ${part}: {a: 1}`)),
    ).toEqual([`error spec.${part}: comes later and is refused for now; leave it away`]);
  });

  test('with a restriction that is misspelt is refused, and not in force without it', () => {
    const { objects, problems } = readSet(fault(`${ABORT}, percents: 1`));
    expect(objects.size).toBe(0);
    expect(problems).toMatchObject([{ path: 'spec.faults[0].percents', severity: 'error' }]);
  });

  test.each([
    { fault: 'an end at once', rest: `${ABORT}, expiresAfter: 0s`, at: 'expiresAfter', whole: true },
    { fault: 'nothing to do', rest: 'percent: 5', at: '' },
    { fault: 'a delay of nothing', rest: 'delay: {fixed: 0s}', at: '.delay' },
    { fault: 'a delay without time', rest: 'delay: {jitter: 1s}', at: '.delay.fixed' },
    { fault: 'a status below 200', rest: 'abort: {httpStatus: 199}', at: '.abort.httpStatus' },
    { fault: 'a status above 599', rest: 'abort: {httpStatus: 600}', at: '.abort.httpStatus' },
    { fault: 'a gRPC status above 16', rest: 'abort: {grpcStatus: 17}', at: '.abort.grpcStatus' },
    { fault: 'two statuses', rest: 'abort: {httpStatus: 503, grpcStatus: 14}', at: '.abort' },
    { fault: 'no status', rest: 'abort: {}', at: '.abort' },
    { fault: 'a rate of 0', rest: 'responseRate: {kbps: 0}', at: '.responseRate.kbps' },
    { fault: 'more than 100 percent', rest: `${ABORT}, percent: 100.5`, at: '.percent' },
    {
      fault: 'a regular expression that is none',
      rest: `match: {headers: [{name: a, type: RegularExpression, value: "("}]}, ${ABORT}`,
      at: '.match.headers[0].value',
    },
    {
      fault: 'a match on Host',
      rest: `match: {headers: [{name: HOST, value: a}]}, ${ABORT}`,
      at: '.match.headers[0].name',
    },
    { fault: 'less than 0 percent', rest: `${ABORT}, percent: -1`, at: '.percent' },
    { fault: 'an unknown place', rest: `${ABORT}, where: here`, at: '.where' },
    { fault: 'too many at a time', rest: `${ABORT}, maxConcurrent: 4294967296`, at: '.maxConcurrent' },
    { fault: 'no request at a time', rest: `${ABORT}, maxConcurrent: 0`, at: '.maxConcurrent' },
    {
      fault: 'an unknown way to compare',
      rest: `${ABORT}, match: {headers: [{name: a, value: b, type: Near}]}`,
      at: '.match.headers[0].type',
    },
    {
      fault: 'accounts and namespaces',
      rest: `${ABORT}, match: {from: {serviceAccounts: [a/b], namespaces: [a]}}`,
      at: '.match.from.namespaces',
    },
    {
      fault: 'an account that is a principal',
      rest: `${ABORT}, match: {from: {serviceAccounts: [cluster.local/ns/a/sa/b]}}`,
      at: '.match.from.serviceAccounts[0]',
    },
  ])('with $fault is refused', ({ rest, at, whole = false }) => {
    const text = whole ? policy(`{name: f, ${rest}}`) : fault(rest);
    const place = whole ? `.${at}` : at;
    expect(problemsOf(text)).toEqual([expect.stringContaining(`error spec.faults[0]${place}: `)]);
  });

  test.each([
    {
      fault: 'two faults of a name',
      text: policy(`{name: f, expiresAfter: 1m, ${ABORT}}, {name: f, expiresAfter: 1m, ${ABORT}}`),
      at: 'faults[1].name',
    },
    { fault: 'no faults', text: policy(''), at: 'faults' },
    {
      fault: 'no targets',
      text: policy(`{name: f, expiresAfter: 1m, ${ABORT}}`, 'targetRefs: []'),
      at: 'targetRefs',
    },
    {
      fault: 'a target of another kind',
      text: policy(`{name: f, expiresAfter: 1m, ${ABORT}}`, 'targetRefs: [{kind: Pod, name: a}]'),
      at: 'targetRefs[0].kind',
    },
    {
      fault: 'a target of the wrong group',
      text: policy(`{name: f, expiresAfter: 1m, ${ABORT}}`, 'targetRefs: [{kind: HTTPRoute, name: a}]'),
      at: 'targetRefs[0].group',
    },
    {
      fault: 'a rule of a Service',
      text: policy(
        `{name: f, expiresAfter: 1m, ${ABORT}}`,
        'targetRefs: [{kind: Service, name: a, sectionName: b}]',
      ),
      at: 'targetRefs[0].sectionName',
    },
  ])('with $fault is refused', ({ text, at }) => {
    expect(problemsOf(text)).toEqual([expect.stringContaining(`error spec.${at}: `)]);
  });
});
