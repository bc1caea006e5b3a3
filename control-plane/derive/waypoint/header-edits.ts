import {
  HeaderValueOption_HeaderAppendAction,
  type HeaderValueOptionSchema,
} from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import type { HeaderFilter, RouteFilter } from '../../source/route-objects.ts';
import type { Fields } from './messages.ts';

/** Changes of headers, as routes and weighted clusters have them. */
export interface HeaderEdits {
  readonly requestHeadersToAdd: Fields<typeof HeaderValueOptionSchema>[];
  readonly requestHeadersToRemove: string[];
  readonly responseHeadersToAdd: Fields<typeof HeaderValueOptionSchema>[];
  readonly responseHeadersToRemove: string[];
}

/** What is said of headers in a list of filters. */
export function headerEdits(filters: readonly RouteFilter[]): HeaderEdits {
  const request = filters.filter((filter) => filter.kind === 'request-headers');
  const response = filters.filter((filter) => filter.kind === 'response-headers');
  return {
    requestHeadersToAdd: request.flatMap(additions),
    requestHeadersToRemove: request.flatMap(({ remove }) => remove),
    responseHeadersToAdd: response.flatMap(additions),
    responseHeadersToRemove: response.flatMap(({ remove }) => remove),
  };
}

/** Whether a filter edits `Host`, which Envoy does for neither requests nor responses. */
export function hasImpossibleEdit(filters: readonly RouteFilter[]): boolean {
  return filters.some((filter) => {
    if (filter.kind !== 'request-headers' && filter.kind !== 'response-headers') return false;
    const { set, add, remove } = filter;
    return [...[...set, ...add].map(({ name }) => name), ...remove].some(
      (name) => name.toLowerCase() === 'host',
    );
  });
}

function additions({ set, add }: HeaderFilter): Fields<typeof HeaderValueOptionSchema>[] {
  const { OVERWRITE_IF_EXISTS_OR_ADD, APPEND_IF_EXISTS_OR_ADD } = HeaderValueOption_HeaderAppendAction;
  const toOption = (
    { name, value }: HeaderFilter['set'][number],
    appendAction: HeaderValueOption_HeaderAppendAction,
  ): Fields<typeof HeaderValueOptionSchema> => ({
    // In Envoy a percent sign begins a command; two stand for one.
    header: { key: name, value: value.replaceAll('%', '%%') },
    appendAction,
    ...(value === '' && { keepEmptyValue: true }),
  });
  return [
    ...set.map((header) => toOption(header, OVERWRITE_IF_EXISTS_OR_ADD)),
    ...add.map((header) => toOption(header, APPEND_IF_EXISTS_OR_ADD)),
  ];
}
