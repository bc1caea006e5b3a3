import type { RegexMatchAndSubstitute } from '#api/envoy/gen/envoy/type/matcher/v3/regex_pb.ts';
import type { ForwardAction, RequestMatch } from '../model.ts';
import { checkSubstitution, compilePattern } from './pattern.ts';

type PathRewrite = NonNullable<ForwardAction['pathRewrite']>;

/** @throws ConfigError */
export function compileRegexRewrite({ pattern, substitution }: RegexMatchAndSubstitute): PathRewrite {
  const compiled = compilePattern(pattern?.regex ?? '');
  checkSubstitution(compiled, substitution);
  return { kind: 'regex', pattern: compiled, substitution };
}

/**
 * Envoy puts the text in the place of what matched. Of the match `/` that is one slash, of those by segments it ends before one:
 * what is put in the place of `/` is written here so that both are the same.
 */
export function compilePrefix(value: string, match: RequestMatch): PathRewrite {
  if (match.path.kind !== 'prefix' || match.path.value !== '') return { kind: 'prefix', value };
  if (value.endsWith('/')) return { kind: 'prefix', value: value.slice(0, -1) };
  return { kind: 'regex', pattern: compilePattern('^/'), substitution: value.replaceAll('\\', '\\\\') };
}
