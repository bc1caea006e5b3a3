import { type Case, type Expectation, get } from '../case.ts';

const reference = (name: string, path: string, expect: Expectation): Case => ({
  name,
  to: 'refs',
  send: get(path),
  expect: { upstream: null, attempts: 0, ...expect },
});

export const REFERENCES: readonly Case[] = [
  reference('a service that is not there', '/missing', { status: 500 }),
  reference('a kind that is not known', '/kind', { status: 500 }),
  reference('a port that the service has not', '/port', { status: 500 }),
  reference('another namespace without grant', '/hidden', { status: 500 }),
  reference('another namespace with grant', '/shown', { status: 200, upstream: 'shown', attempts: 1 }),
  reference('no backends', '/none', { status: 500 }),
  reference('an empty list of backends', '/empty-list', { status: 500 }),
  reference('a service without endpoints', '/empty', { status: 503 }),
  reference('no backends, but a filter that answers nothing', '/filter-only', { status: 500 }),
  reference('nothing matches', '/other', { status: 404 }),
  {
    name: 'a good route beside refused ones',
    to: 'refused',
    send: get('/good'),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'an unknown filter',
    to: 'refused',
    send: get('/unknown-filter'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'a filter that sets Host',
    to: 'refused',
    send: get('/host'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'a rule beside an unknown filter',
    to: 'refused',
    send: get('/beside'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'an extension that is not there',
    to: 'refused',
    send: get('/extension'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'nothing that is refused',
    to: 'refused',
    send: get('/x'),
    expect: { status: 404, upstream: null },
  },
  {
    name: 'a service without routes',
    to: 'b',
    send: get('/anything'),
    expect: { status: 200, upstream: 'b' },
  },
  {
    name: 'a service without routes, HTTP/2 inside',
    to: 'h2',
    send: get('/x'),
    expect: { status: 200, upstream: 'h2' },
  },
  {
    name: 'a service without routes whose protocol is not declared',
    to: 'undeclared',
    send: get('/x'),
    expect: { status: 200, upstream: 'undeclared' },
  },
  {
    name: 'routes of a service whose protocol is not declared',
    to: 'undeclared-routes',
    send: get('/x'),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'a caller of another namespace',
    to: 'consumer',
    send: get('/shop'),
    expect: { status: 200, upstream: 'a', headers: { 'x-route': 'producer' } },
  },
  {
    name: "a caller of the route's namespace",
    to: 'consumer',
    from: 'shop',
    send: get('/shop'),
    expect: { status: 200, upstream: 'shown', headers: { 'x-route': 'consumer' } },
  },
  {
    name: "a caller of the route's namespace, for whom nothing matches",
    to: 'consumer',
    from: 'shop',
    send: get('/other'),
    expect: { status: 404, upstream: null },
  },
];
