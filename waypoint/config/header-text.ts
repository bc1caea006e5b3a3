import type { HeaderMatcher } from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import type { TextMatch } from '../model.ts';
import { bytesOfText } from './byte-text.ts';
import { refuse } from './config-error.ts';
import { compilePattern, compileTextMatch } from './pattern.ts';

/** How a header has to be. @throws ConfigError */
export function headerText({ name, headerMatchSpecifier: by }: HeaderMatcher): TextMatch {
  switch (by.case) {
    case 'exactMatch':
      return { kind: 'exact', value: bytesOfText(by.value) };
    case 'safeRegexMatch':
      return { kind: 'regex', pattern: compilePattern(by.value.regex) };
    case 'stringMatch':
      return compileTextMatch(by.value, `header ${name}`);
    default:
      return refuse(`match type ${by.case ?? 'none'} of header ${name} is not supported`);
  }
}
