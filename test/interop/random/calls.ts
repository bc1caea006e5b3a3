import fc from 'fast-check';
import type { Case } from '../case.ts';
import { grpc } from '../case.ts';
import { headerFilters, type WrittenFilter } from './filters.ts';
import type { WrittenBackend } from './routes.ts';

/** A GRPCRoute. */
export interface WrittenGrpcRoute {
  readonly kind: 'GRPCRoute';
  readonly rules: readonly {
    readonly matches: readonly unknown[];
    readonly filters: readonly WrittenFilter[];
    readonly backendRefs: readonly WrittenBackend[];
  }[];
}

const { array, constantFrom, integer, record } = fc;

const SERVICES = ['echo.Echo', 'echo.Other', 'Plain', '_a.b_c'] as const;
const METHODS = ['Say', 'Shout', 'say'] as const;

const call = fc.oneof(
  record(
    { service: constantFrom(...SERVICES), method: constantFrom(...METHODS) },
    { requiredKeys: ['service'] },
  ),
  constantFrom(...METHODS).map((method) => ({ method })),
  record({
    type: fc.constant('RegularExpression'),
    service: constantFrom('echo[.].*', '(?i)plain', '.*'),
    method: constantFrom('S.*', '[a-z]+', 'Say|Shout'),
  }),
);
const headers = array(
  record({
    type: constantFrom('Exact', 'RegularExpression'),
    name: constantFrom('x-a', 'X-B'),
    value: constantFrom('1', 'one'),
  }),
  { maxLength: 1 },
);
const backend: fc.Arbitrary<WrittenBackend> = record({
  name: constantFrom('grpc-a', 'grpc-b', 'grpc-a', 'grpc-b', 'empty', 'dead', 'missing'),
  port: fc.constant(80),
  weight: fc.constant(1),
  filters: headerFilters,
});

/** The GRPCRoute of a service. */
export const grpcRoute: fc.Arbitrary<WrittenGrpcRoute> = record({
  kind: fc.constant('GRPCRoute' as const),
  rules: array(
    record({
      matches: array(record({ method: call, headers }, { requiredKeys: ['method'] }), {
        minLength: 1,
        maxLength: 2,
      }),
      filters: headerFilters,
      backendRefs: array(backend, { minLength: 1, maxLength: 1 }),
    }),
    { minLength: 1, maxLength: 4 },
  ),
});

/** A call near those routes. */
export function callNear(to: string): fc.Arbitrary<Case> {
  return record({
    path: fc.oneof(
      {
        weight: 8,
        arbitrary: fc
          .tuple(constantFrom(...SERVICES), constantFrom(...METHODS))
          .map(([service, method]) => `/${service}/${method}`),
      },
      {
        weight: 1,
        arbitrary: constantFrom(
          '/echo.Echo',
          '/echo.Echo/',
          '/echo.Echo/Say/',
          '/echo.Echo/Say/x',
          '/',
          '/e/Say?q=1',
        ),
      },
    ),
    fields: fc.dictionary(constantFrom('x-a', 'x-b', 'user-agent'), constantFrom('1', 'one', '2'), {
      maxKeys: 2,
    }),
    type: constantFrom(
      'application/grpc',
      'application/grpc',
      'application/grpc+proto',
      'application/grpc;x=y',
      'text/plain',
    ),
    script: fc.oneof(
      { weight: 3, arbitrary: fc.constant(undefined) },
      {
        weight: 2,
        arbitrary: fc.oneof(
          integer({ min: 0, max: 17 }).map((status) => `grpc:${status}`),
          integer({ min: 0, max: 17 }).map((status) => `grpc-late:${status}`),
          constantFrom('200', '503', '404', 'reset', 'refuse,200', 'half-reset', 'trailers'),
        ),
      },
    ),
  }).map(({ path, fields, type, script }) => ({
    name: `POST ${path}`,
    to,
    send: grpc(path, { ...fields, 'content-type': type }),
    ...(script !== undefined && { script }),
    expect: {},
  }));
}
