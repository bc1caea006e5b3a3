import { create, toBinary } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { isMessageOf, packAny, unpackAny } from './any.ts';
import { ListenerSchema } from './gen/envoy/config/listener/v3/listener_pb.ts';
import { RouterSchema } from './gen/envoy/extensions/filters/http/router/v3/router_pb.ts';
import { TcpProxySchema } from './gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.ts';
import { envoyResourceToJson } from './json.ts';
import { LISTENER_TYPE } from './types.ts';

test('a resource is written with its Any and its metadata spelled out', () => {
  const proxy = packAny(TcpProxySchema, {
    statPrefix: 'a',
    clusterSpecifier: { case: 'cluster', value: 'c' },
  });
  const listener = create(ListenerSchema, {
    name: 'a',
    filterChains: [{ filters: [{ name: 'tcp', configType: { case: 'typedConfig', value: proxy } }] }],
    metadata: { filterMetadata: { 'tulle.dev': { port: 80, addresses: ['10.0.0.1'] } } },
  });
  const value = toBinary(ListenerSchema, listener);
  expect(envoyResourceToJson({ type: LISTENER_TYPE, name: 'a', value })).toEqual({
    name: 'a',
    filterChains: [
      {
        filters: [
          {
            name: 'tcp',
            typedConfig: {
              '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
              statPrefix: 'a',
              cluster: 'c',
            },
          },
        ],
      },
    ],
    metadata: { filterMetadata: { 'tulle.dev': { port: 80, addresses: ['10.0.0.1'] } } },
  });
});

test('what was packed is found again by its type, and what is not known is not there', () => {
  const message = unpackAny(packAny(TcpProxySchema, { statPrefix: 'a' }));
  expect(isMessageOf(message, TcpProxySchema) && message.statPrefix).toBe('a');
  expect(isMessageOf(message, RouterSchema)).toBe(false);
  const strange = { ...packAny(RouterSchema), typeUrl: 'type.googleapis.com/not.Known' };
  expect(unpackAny(strange)).toBeUndefined();
});
