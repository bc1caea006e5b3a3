import { RE2JS } from 're2js';
import type { StringMatcher } from '#api/envoy/gen/envoy/type/matcher/v3/string_pb.ts';
import type { Pattern, TextMatch } from '../model.ts';
import { bytesOfText } from './byte-text.ts';
import { refuse } from './config-error.ts';

/** Longest regular expression that is taken, in characters. */
const MAX_SOURCE = 4096;

/**
 * Compiles a regular expression in RE2's grammar, which takes time linear in the text, whatever the expression. It looks
 * at bytes, as Envoy's do: above ASCII a dot stands for one of several of a character.
 * @throws ConfigError
 */
export function compilePattern(source: string): Pattern {
  if (source.length > MAX_SOURCE) refuse(`a regular expression has more than ${MAX_SOURCE} characters`);
  const compiled = compile(bytesOfText(source));
  return {
    source,
    matches: (text) => compiled.testExact(text),
    replace: (text, substitution) =>
      compiled.matcher(text).replaceAll((...groups: readonly unknown[]) => substitute(substitution, groups)),
  };
}

/** A substitution of Envoy's, checked against its expression: `\1` to a group that is there. @throws ConfigError */
export function checkSubstitution(pattern: Pattern, substitution: string): void {
  const groups = compile(pattern.source).groupCount();
  for (const [found, digit] of substitution.matchAll(/\\([\s\S]?)/g)) {
    if (digit === '\\') continue;
    if (!/^\d$/.test(digit ?? ''))
      refuse(`${JSON.stringify(found)} in substitution ${JSON.stringify(substitution)} is not known`);
    if (Number(digit) > groups)
      refuse(`substitution ${JSON.stringify(substitution)} names a group that ${pattern.source} has not`);
  }
}

/** How a text has to be. @throws ConfigError */
export function compileTextMatch(matcher: StringMatcher, where: string): TextMatch {
  const { matchPattern } = matcher;
  switch (matchPattern.case) {
    case 'exact':
      return { kind: 'exact', value: bytesOfText(matchPattern.value) };
    case 'safeRegex':
      return { kind: 'regex', pattern: compilePattern(matchPattern.value.regex) };
    default:
      return refuse(`match type ${matchPattern.case ?? 'none'} of ${where} is not supported`);
  }
}

function compile(source: string): RE2JS {
  try {
    return RE2JS.compile(source);
  } catch (cause) {
    return refuse(
      `${JSON.stringify(source)} is no regular expression of RE2: ${cause instanceof Error ? cause.message : String(cause)}`,
    );
  }
}

/** What stands in the place of what was found. */
function substitute(substitution: string, groups: readonly unknown[]): string {
  return substitution.replaceAll(/\\(?:(\d)|\\)/g, (_escape, digit?: string) => {
    const group = digit === undefined ? '\\' : groups[Number(digit)];
    return typeof group === 'string' ? group : '';
  });
}
